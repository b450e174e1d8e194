"""A client whose training is that of LeastSquares, so that its numbers can be compared with those
of flq.simulate bit for bit.
"""

import nvflare.client as flare
import torch

from tests.system.own_learner import LeastSquares


def main():
    flare.init()
    learner = LeastSquares(int(flare.get_site_name().rpartition("-")[2]) - 1)
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        weights, loss = learner.train(
            [value.detach().numpy().copy() for value in model.params.values()],
            model.current_round)
        flare.send(flare.FLModel(
            params={name: torch.from_numpy(array) for name, array in zip(model.params, weights)},
            metrics={"train_loss": loss},
            meta={"NUM_STEPS_CURRENT_ROUND": learner.num_samples()}))


if __name__ == "__main__":
    main()
