#!/usr/bin/env python3
"""What Flower sends between SuperNode and SuperLink, with its own float32 and with FLQ's updates,
counted by a proxy on each node's connection.

    tests/integrations/run.sh flower-apps            # once: build/integrations/flower-apps
    build/integrations/flower-apps/bin/python benchmarks/peers/flower_wire.py --rounds 6
    build/integrations/flower-apps/bin/python benchmarks/peers/flower_wire.py --rounds 30 --messages

The app is examples/flower_quickstart, with a SuperLink and SuperNodes as processes; `float32` is
the same app without the line of FlqStrategy. Bytes are all that a proxy saw, polls, heartbeats and
acknowledgements included, from the end of one round to the end of the next and for each node; the
first round, which also brings the app and the whole model, is left out. --messages counts the
messages alone instead, as Flower serialises them, with all nodes in this process: polls, whose
number follows from how long a round lasts, are no part of it. Prints a Markdown table.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.counted import CountedGroup, print_head, print_row  # noqa: E402
from benchmarks.peers.flower_messages import PLAIN, Messages, strategy_of  # noqa: E402
from benchmarks.peers.processes import free_ports, listens, wait_for  # noqa: E402

APP = ROOT / "examples" / "flower_quickstart"
NOTE = """    import json, os, time
    with open(os.environ["ROUNDS_FILE"], "a") as file:
        file.write(json.dumps([time.time(), accuracy]) + "\\n")
"""


def prepared(folder, plain):
    """A copy of the app that notes the end of each round."""
    app = Path(folder) / "app"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    server = app / "quickstart" / "server_app.py"
    text = server.read_text()
    test = '    loss, accuracy = test(model, load_data("test"))\n'
    assert test in text and "FlqStrategy" in text
    text = text.replace(test, test + NOTE)
    if plain:
        text = re.sub(r".*FlqStrategy.*\n", "", text)
    server.write_text(text)
    return app


class Flower(CountedGroup):
    """A SuperLink, SuperNodes behind proxies, and one run of the app."""

    def __init__(self, folder, nodes):
        super().__init__(folder, {"FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0"})
        port, *others = free_ports(1 + nodes)
        self.superlink(port)
        wait_for(lambda: listens(port), "the SuperLink", 300)
        self.stand_before(port, nodes)
        for number, (proxy, own) in enumerate(zip(self.proxies, others)):
            self.start(self.bin / "flower-supernode", "--insecure", "--superlink",
                       f"127.0.0.1:{proxy.address[1]}", "--port", own, "--node-config",
                       f"partition-id={number} num-partitions={nodes}")

    def run(self, app, rounds, mode):
        """`count` at the end of each round; the test of the first model is round 0."""
        values = (f'num-server-rounds={rounds} mode="{mode}" '
                  f'final-model="{self.folder / "final.pt"}"')
        last = self.start(self.bin / "flwr", "run", app, "local", "--stream", "--run-config",
                          values)
        return self.count(rounds + 1, lambda: last.poll() not in (None, 0))


def count_messages(mode, nodes, rounds):
    """As Flower.run, with processor seconds in the place of the time."""
    import torch
    from flwr.app import ArrayRecord, ConfigRecord
    from quickstart import client_app, server_app
    torch.manual_seed(0)
    torch.set_num_threads(1)
    grid, found = Messages(client_app.app, nodes, {"local-epochs": 1}), []

    def evaluate(server_round, arrays):
        metrics = server_app.global_evaluate(server_round, arrays)
        found.append((time.process_time(), metrics["accuracy"], grid.up, grid.down))
        return metrics

    strategy_of(mode).start(grid, ArrayRecord(server_app.Net().state_dict()),
                            num_rounds=rounds, train_config=ConfigRecord({"lr": 0.05}),
                            evaluate_fn=evaluate)
    return found


def measure(mode, nodes, rounds):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        app = prepared(folder, mode == PLAIN)
        flower = Flower(folder, nodes)
        try:
            return flower.run(app, rounds, "laq" if mode == PLAIN else mode)
        finally:
            flower.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--modes", nargs="+", default=[PLAIN, "laq", "rd", "bin"])
    parser.add_argument("--messages", action="store_true",
                        help="the messages alone, in one process")
    arguments = parser.parse_args()
    sys.path.insert(0, str(APP))
    print_head("processor s" if arguments.messages else "s")
    for mode in arguments.modes:
        ends = (count_messages if arguments.messages else measure)(mode, arguments.nodes,
                                                                   arguments.rounds)
        print_row(mode, ends, arguments.nodes)


if __name__ == "__main__":
    main()
