"""A site of NVFlare's PyTorch example hello-pt: what FLQ adds is not here, but in job.py."""

import argparse

import nvflare.client as flare
import torch
from model import SimpleNetwork, accuracy, load_data
from torch.nn.functional import cross_entropy


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_sites", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flare.init()
    site = int(flare.get_site_name().rpartition("-")[2]) - 1
    train, test = (load_data(part, site, arguments.num_sites) for part in ("train", "test"))
    net = SimpleNetwork()
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        net.load_state_dict(model.params)
        reached = accuracy(net, test)
        print(f"site {site}, round {model.current_round}: accuracy {reached:.3f}", flush=True)
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        steps = 0
        for _ in range(arguments.epochs):
            for images, labels in train:
                optimizer.zero_grad()
                cross_entropy(net(images), labels).backward()
                optimizer.step()
                steps += 1
        flare.send(flare.FLModel(params=net.state_dict(), metrics={"accuracy": reached},
                                 meta={"NUM_STEPS_CURRENT_ROUND": steps}))


if __name__ == "__main__":
    main()
