#!/usr/bin/env python3
"""Bits that Flower's messages take to a test accuracy on Fashion-MNIST, with its own float32 and
with FLQ's updates.

    tests/integrations/run.sh flower-apps            # once: build/integrations/flower-apps
    build/integrations/flower-apps/bin/python benchmarks/peers/flower_accuracy.py
    build/integrations/flower-apps/bin/python benchmarks/peers/flower_accuracy.py --table

The ClientApps are those of examples/flower_quickstart (PyTorch) and examples/flower_tensorflow,
with a CNN of 55,338 weights and Fashion-MNIST in the place of their models and digits: ten nodes,
15,000 images in shards from Dirichlet 0.3, one epoch a round. `float32` is Flower's FedAvg without
FLQ. All nodes are in one process; bits are those of the messages of all nodes, both ways, as Flower
serialises them, the first whole model included. What HTTP adds is in flower_wire.py's table.

A run ends when the mean of its last three tests has reached --until, or after --rounds. It is kept
as OUT/APP-UPDATES-SEED.json, and what is there is not measured again.
"""

import argparse
import contextlib
import json
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.accuracy_per_bit import averaged, best_mean, first_at, scientific  # noqa: E402
from benchmarks.peers.flower_messages import PLAIN, Messages, strategy_of  # noqa: E402
from flq import config  # noqa: E402
from flq.learning.datasets import load_dataset  # noqa: E402
from flq.learning.partition import partition  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "flower_accuracy"
LEVELS = (0.80, 0.85)
TESTS = 3
ALPHA = 0.3
SAMPLES = 15000  # of the training set, all nodes together
BATCH = 32
LEARNING_RATE = {"pytorch": 0.02, "tensorflow": 0.2}

# name -> FLQ's mode and its keys beside the defaults
UPDATES = {
    PLAIN: (PLAIN, {}),
    "laq": ("laq", {}),
    "rd": ("rd", {}),
    "bin": ("bin", {}),
    "rd, no average": ("rd", {"averaging": 0}),
}


class Shards:
    """Each node's part of a data set, and the whole test."""

    def __init__(self, name, nodes, seed):
        data = load_dataset(name)
        settings = config.load(None, [f"dataset.name={name}", f"total_workers={nodes}", "seed="
                                      f"{seed}", "partition=non_iid", f"dir_alpha={ALPHA}"]).config
        parts = partition(data.y_train[:SAMPLES], None, settings)
        self._train = [(data.x_train[part], data.y_train[part]) for part in parts]
        self._test, self._scale = (data.x_test, data.y_test), data.scale

    def of(self, part, node):
        """Grey images float32[n, height, width, 1] from 0 to 1 and labels int64[n]."""
        x, y = self._train[node] if part == "train" else self._test
        return x.astype("float32") / self._scale, y.astype("int64")

    @property
    def height(self):
        return self._test[0].shape[1]


class PyTorch:
    """The quickstart's ClientApp with these shards; the server's model and its test."""

    package = "torch"

    def __init__(self, shards, seed):
        import torch
        from quickstart import client_app, task
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        torch.manual_seed(seed)
        torch.set_num_threads(1)

        def net():
            return nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                nn.Linear(32 * (shards.height // 4)**2, 32), nn.ReLU(), nn.Linear(32, 10))

        def load_data(part, node=0, _=1):
            x, y = shards.of(part, node)
            dataset = TensorDataset(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(y))
            return DataLoader(dataset, batch_size=BATCH if part == "train" else 500,
                              shuffle=part == "train")

        client_app.Net, client_app.load_data = net, load_data
        self.app, self._model, self._test = client_app.app, net(), task.test
        self._data = load_data("test")

    def first(self):
        from flwr.app import ArrayRecord
        return ArrayRecord(self._model.state_dict())

    def accuracy(self, arrays):
        self._model.load_state_dict(arrays.to_torch_state_dict())
        return self._test(self._model, self._data)[1]


class TensorFlow:
    """As PyTorch, for the ClientApp of the TensorFlow quickstart. Its optimiser is SGD without
    momentum, which keeps nothing: one compiled model serves all nodes.
    """

    package = "tensorflow"

    def __init__(self, shards, seed):
        import keras
        from tfexample import client_app

        from flq.learning.models.cnn_small import build
        keras.utils.set_random_seed(seed)
        self._model = build((shards.height, shards.height, 1), 10)
        self._model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE["tensorflow"]),
                            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                            metrics=["accuracy"])
        test = shards.of("test", 0)
        client_app.load_model = lambda _: self._model
        client_app.load_data = lambda node, _: (*shards.of("train", node), *test)
        client_app.keras.backend.clear_session = lambda: None
        self.app, self._test = client_app.app, test

    def first(self):
        from flwr.app import ArrayRecord
        return ArrayRecord(self._model.get_weights())

    def accuracy(self, arrays):
        self._model.set_weights(arrays.to_numpy_ndarrays())
        return self._model.evaluate(*self._test, batch_size=500, verbose=0)[1]


APPS = {"pytorch": PyTorch, "tensorflow": TensorFlow}
EXAMPLES = {"pytorch": "flower_quickstart", "tensorflow": "flower_tensorflow"}


class Enough(Exception):
    """The accuracy was reached."""


def measure(app, updates, arguments):
    """One run: [rounds, accuracy, bits up, bits down, processor seconds] after each round."""
    from flwr.app import ConfigRecord, MetricRecord
    sys.path.insert(0, str(ROOT / "examples" / EXAMPLES[app]))
    learner = APPS[app](Shards(arguments.dataset, arguments.nodes, arguments.seed), arguments.seed)
    rate = LEARNING_RATE[app]
    grid = Messages(learner.app, arguments.nodes, {
        "local-epochs": 1, "batch-size": BATCH, "learning-rate": rate
    })
    first, points, began = learner.first(), [], time.process_time()

    def evaluate(server_round, arrays):
        if server_round:
            points.append([server_round, learner.accuracy(arrays), 8 * grid.up, 8 * grid.down,
                           time.process_time() - began])
            if best_mean([point[1] for point in points], TESTS) >= arguments.until:
                raise Enough
        return MetricRecord()

    mode, keys = UPDATES[updates]
    with contextlib.suppress(Enough):
        strategy_of(mode, arguments.nodes, **keys).start(
            grid, first, num_rounds=arguments.rounds, train_config=ConfigRecord({"lr": rate}),
            evaluate_fn=evaluate)
    return {
        "app": app, "updates": updates, "mode": mode, "keys": keys, "seed": arguments.seed,
        "dataset": arguments.dataset, "nodes": arguments.nodes, "dir_alpha": ALPHA,
        "samples": SAMPLES, "batch": BATCH, "learning_rate": rate,
        "weights": sum(array.numpy().size for array in first.values()),
        "points": points, "machine": f"{platform.machine()}, Python {platform.python_version()}, "
        f"Flower {metadata.version('flwr')}, {app} {sys.modules[learner.package].__version__}"
    }


def table(folder, levels=LEVELS):
    """Rounds and bits to each level, and what float32 needs of FLQ's bits."""
    results = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    results.sort(key=lambda one: (one["app"], list(UPDATES).index(one["updates"]), one["seed"]))
    heads = [f"to {level:.2f}: rounds; bits; beside float32" for level in levels]
    print("| app | updates | " + " | ".join(heads) + " | best of three tests, after rounds | bytes "
          "up | bytes down |")
    print("|---|---|" + "---|" * (len(levels) + 3))
    whole = {(one["app"], one["seed"]): averaged(one["points"], TESTS) for one in results
             if one["updates"] == PLAIN}
    for one in results:
        points, cells = averaged(one["points"], TESTS), []
        for level in levels:
            found = first_at(points, level)
            beside = first_at(whole.get((one["app"], one["seed"]), []), level)
            share = f"; 1/{(beside[2] + beside[3]) / (found[2] + found[3]):.1f}" if (
                found and beside and one["updates"] != PLAIN) else ""
            cells.append(f"{found[0]}; {scientific(found[2] + found[3])}{share}" if found
                         else "not reached")
        played = one["points"][-1][0]
        per_message = [one["points"][-1][way] / 8 / played / one["nodes"] for way in (2, 3)]
        best = max((point[1] for point in points), default=statistics.mean(
            point[1] for point in one["points"]))
        print(f"| {one['app']} | {one['updates']} | {' | '.join(cells)} | {best:.3f}, {played} | "
              f"{per_message[0]:,.0f} | {per_message[1]:,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--apps", nargs="+", choices=list(APPS), default=list(APPS))
    parser.add_argument("--updates", nargs="+", choices=list(UPDATES), default=list(UPDATES))
    parser.add_argument("--dataset", default="fmnist", help="default: %(default)s")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", type=float, default=LEVELS[-1])
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for app in () if arguments.table else arguments.apps:
        for updates in arguments.updates:
            stem = "".join(letter if letter.isalnum() else "_" for letter in updates)
            path = arguments.out / f"{app}-{stem}-{arguments.seed}.json"
            if path.exists():
                continue
            result = measure(app, updates, arguments)
            path.write_text(json.dumps(result) + "\n")
            rounds, accuracy, up, down, _ = result["points"][-1]
            print(f"{app}, {updates}: {accuracy:.3f} after {rounds} rounds, "
                  f"{scientific(up + down)} bits", file=sys.stderr, flush=True)
    table(arguments.out)


if __name__ == "__main__":
    main()
