#!/usr/bin/env python3
"""Processor time of a round on Flower without the training: FLQ's mod and strategy beside Flower's
own serialisation.

    build/integrations/flower-apps/bin/python benchmarks/peers/flower_processor.py

Each node answers with the model plus normal noise, new in each round, which no coder makes small.
Nodes and server share this process, and messages are written and read as Flower sends them. Prints
a Markdown table: milliseconds of processor time for each node and round, the median of the rounds
after the first two. The server's column is its whole round divided by the nodes.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import tensors  # noqa: E402
from benchmarks.peers.flower_messages import PLAIN, Messages, strategy_of  # noqa: E402

MODELS = {
    "cnn_small": ((3, 3, 1, 16), (16,), (3, 3, 16, 32), (32,), (1568, 32), (32,), (32, 10), (10,)),
    "cnn": tensors.SHAPES,
}
WARM_UP = 2


class Spent:
    """Processor seconds of the nodes' apps with their mods, of the training among them, and of the
    server's strategy.
    """

    def __init__(self):
        self.app, self.training, self.strategy = 0.0, 0.0, 0.0

    def around(self, name, function):
        def timed(*arguments, **keywords):
            began = time.process_time()
            found = function(*arguments, **keywords)
            setattr(self, name, getattr(self, name) + time.process_time() - began)
            return found

        return timed


def client_app(spent, mods):
    """A ClientApp whose training is noise."""
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    noise = np.random.Generator(np.random.PCG64(0))

    def train(message, _):
        arrays = ArrayRecord({
            name: Array(array.numpy() + 0.01 * noise.standard_normal(array.shape, np.float32))
            for name, array in message.content["arrays"].items()
        })
        metrics = MetricRecord({"num-examples": tensors.SAMPLES})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    app = ClientApp(mods=mods)
    app.train()(spent.around("training", train))
    return app


def measure(mode, shapes, nodes, rounds):
    """Medians of the rounds after the first ones, in milliseconds for each node: FLQ on the node,
    Flower's serialisation there, the strategy, Flower's serialisation on the server.
    """
    from flwr.app import Array, ArrayRecord

    from flq.integrations.flower import flq_mod
    spent, ends = Spent(), []
    app = client_app(spent, [] if mode == PLAIN else [flq_mod])
    grid = Messages(spent.around("app", app), nodes, {})
    strategy = strategy_of(mode, nodes)
    for name in ("configure_train", "aggregate_train"):
        setattr(strategy, name, spent.around("strategy", getattr(strategy, name)))

    def ended(*_):
        ends.append((spent.app - spent.training, grid.serialising_s[0], spent.strategy,
                     grid.serialising_s[1]))

    first = ArrayRecord({
        str(number): Array(np.zeros(shape, np.float32)) for number, shape in enumerate(shapes)
    })
    strategy.start(grid, first, num_rounds=rounds, evaluate_fn=ended)
    rows = [[1000 * (after - before) / nodes for before, after in zip(*pair)]
            for pair in zip(ends[WARM_UP:], ends[WARM_UP + 1:])]
    return [statistics.median(column) for column in zip(*rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--modes", nargs="+", default=[PLAIN, "laq", "rd", "bin"])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.rounds <= WARM_UP:
        parser.error(f"--rounds must be more than {WARM_UP}, which are left out")
    print("| weights | updates | node: FLQ, ms | node: Flower's serialisation, ms | server: "
          "strategy, ms | server: Flower's serialisation, ms |\n|---|---|---|---|---|---|")
    for model in arguments.models:
        weights = sum(int(np.prod(shape)) for shape in MODELS[model])
        for mode in arguments.modes:
            cells = measure(mode, MODELS[model], arguments.nodes, arguments.rounds)
            print(f"| {weights:,} | {mode} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |",
                  flush=True)


if __name__ == "__main__":
    main()
