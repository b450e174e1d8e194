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
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.flower_messages import PLAIN, Messages, strategy_of  # noqa: E402
from benchmarks.peers.processes import Group, free_ports, listens, wait_for  # noqa: E402
from tests.system.counting_proxy import CountingProxy  # noqa: E402

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


class Flower(Group):
    """A SuperLink, SuperNodes behind proxies, and one run of the app."""

    def __init__(self, folder, nodes):
        super().__init__(folder, Path(sys.executable).parent, {
            "PYTHONPATH": str(ROOT), "FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "ROUNDS_FILE": str(Path(folder) / "rounds.jsonl")
        })
        port, *others = free_ports(1 + nodes)
        self.superlink(port)
        wait_for(lambda: listens(port), "the SuperLink", 300)
        self.proxies = [CountingProxy(port) for _ in range(nodes)]
        for number, (proxy, own) in enumerate(zip(self.proxies, others)):
            self.start(self.bin / "flower-supernode", "--insecure", "--superlink",
                       f"127.0.0.1:{proxy.address[1]}", "--port", own, "--node-config",
                       f"partition-id={number} num-partitions={nodes}")

    def notes(self):
        file = self.folder / "rounds.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def run(self, app, rounds, mode):
        """(seconds, accuracy, bytes up, bytes down) at the end of each round; the test of the first
        model is round 0.
        """
        values = (f'num-server-rounds={rounds} mode="{mode}" '
                  f'final-model="{self.folder / "final.pt"}"')
        last = self.start(self.bin / "flwr", "run", app, "local", "--stream", "--run-config",
                          values)
        found = []
        while len(found) <= rounds:
            notes = self.notes()
            if len(notes) > len(found):
                found.append((*notes[len(found)], sum(proxy.up for proxy in self.proxies),
                              sum(proxy.down for proxy in self.proxies)))
            elif last.poll() not in (None, 0):
                raise SystemExit((self.folder / "log-0").read_text()[-3000:])
            time.sleep(0.02)
        return found

    def end(self):
        super().end()
        for proxy in self.proxies:
            proxy.close()


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
    time_of = "processor s" if arguments.messages else "s"
    print(f"| updates | bytes up | bytes down | {time_of} a round | accuracy at the end |\n"
          "|---|---|---|---|---|")
    for mode in arguments.modes:
        ends = (count_messages if arguments.messages else measure)(mode, arguments.nodes,
                                                                   arguments.rounds)[1:]
        spans = list(zip(ends, ends[1:]))
        up, down = (statistics.mean((after[way] - before[way]) / arguments.nodes
                                    for before, after in spans) for way in (2, 3))
        seconds = statistics.median(after[0] - before[0] for before, after in spans)
        print(f"| {mode} | {up:,.0f} | {down:,.0f} | {seconds:.2f} | {ends[-1][1]:.3f} |",
              flush=True)


if __name__ == "__main__":
    main()
