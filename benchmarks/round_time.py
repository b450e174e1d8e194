#!/usr/bin/env python3
"""What a round costs beyond the training: master and workers as processes on loopback, updates from
a table.

    python benchmarks/round_time.py --workers 4 8 --rounds 30

Everything but the training is real: registration, quantising, frames, HTTP, decoding, aggregation,
the run store, the downlink. The model has the shapes of the cnn on 28x28x1 (467,818 weights).
Prints a Markdown table.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq import config  # noqa: E402
from flq.learning.initial import initial_params  # noqa: E402
from flq.learning.interface import Learner  # noqa: E402
from flq.parameters import Layout  # noqa: E402
from flq.records import Evaluation, LocalResult  # noqa: E402

CNN = Layout(((3, 3, 1, 32), (32,), (3, 3, 32, 32), (32,), (3, 3, 32, 64), (64,), (3, 3, 64, 64),
              (64,), (3136, 128), (128,), (128, 10), (10,)))
SAMPLES = 100


class TableLearner(Learner):
    """A learner whose updates were drawn beforehand: the cost of a round without that of the
    training.
    """

    builtin_model = True
    partition_hash = ""

    def __init__(self, layout=CNN):
        noise = np.random.RandomState(0)
        self.layout = layout
        self._updates = [(0.01 * noise.standard_normal(layout.num_params)).astype(np.float32)
                         for _ in range(4)]
        self.used_s = []  # processor time of this process, once a round

    def num_samples(self, worker):
        return SAMPLES

    def device(self):
        return {}

    def initial(self):
        return initial_params(self.layout, "glorot_uniform", 0), np.zeros(0, np.float32)

    def local_update(self, params, non_trainable, worker, round_):
        self._note_time()
        return LocalResult(self._updates[(worker + round_) % 4], non_trainable, 1.0, 1)

    def evaluate(self, params, non_trainable):
        self._note_time()
        return Evaluation(0.0, 0.0, 1)

    def _note_time(self):
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.used_s.append(used.ru_utime + used.ru_stime)

    def used_a_round_s(self):
        """Processor time from the fourth round to the last, for each round between them."""
        return (self.used_s[-1] - self.used_s[3]) / (len(self.used_s) - 4)


def settings(arguments):
    budget = [f"sel_clients={arguments.sel_clients}"] if arguments.sel_clients else []
    return config.load(None, [
        f"total_workers={arguments.workers[0]}", f"cohorts={arguments.cohorts}",
        f"max_rounds={arguments.rounds}", "quorum=all", "mode=" + arguments.mode,
        f"entropy_coding={str(arguments.coded).lower()}",
        "partition=local", "save_results=false", "log_level=WARNING",
        *([] if arguments.default_down else ["b_down=4"])
    ] + budget).config


def master(arguments):
    from flq.master import process
    options = process.Options(settings(arguments), set(), "127.0.0.1", 0, "run", False, True,
                              "token", "port")
    learner = TableLearner()
    finish("master", learner, process.run(options, lambda _: learner, None))


def worker(arguments):
    from flq.worker import process
    while not os.path.exists("port"):
        time.sleep(0.02)
    with open("port") as file:
        url = "http://127.0.0.1:" + file.read().strip()
    options = process.Options([arguments.id], url, config.load(None, []), "token", 30.0, False,
                              "state", None)
    learner = TableLearner()
    finish(f"worker-{arguments.id}", learner, process.run(options, lambda *_: learner))


def finish(name, learner, code):
    with open(name + ".used", "w") as file:
        file.write(repr(learner.used_a_round_s()))
    sys.exit(code)


def measure(workers, arguments):
    """Of the rounds after the first three: seconds of each, from one closed round to the next, and
    the processor time that each process took for one, the master's first."""
    with tempfile.TemporaryDirectory() as folder:
        base = [
            sys.executable,
            str(Path(__file__).resolve()), "--workers",
            str(workers), "--rounds",
            str(arguments.rounds), "--mode", arguments.mode, "--sel_clients",
            str(arguments.sel_clients), "--cohorts", str(arguments.cohorts)
        ] + (["--coded"] if arguments.coded else
             []) + (["--default_down"] if arguments.default_down else [])
        processes = [
            subprocess.Popen(base + ["--role", "master"], cwd=folder, stdout=subprocess.DEVNULL)
        ]
        processes += [
            subprocess.Popen(
                base + ["--role", "worker", "--id", str(index)], cwd=folder)
            for index in range(workers)
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"a process failed: exit codes {codes}")
        with open(os.path.join(folder, "run", "history.json")) as file:
            rounds = json.load(file)["rounds"]
        used = [float((Path(folder) / (name + ".used")).read_text())
                for name in ["master"] + [f"worker-{index}" for index in range(workers)]]
    closed = [record["closed_at"] for record in rounds]
    return [after - before for before, after in zip(closed[2:], closed[3:])], used, rounds[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--mode", default="laq")
    parser.add_argument("--sel_clients", type=int, default=0)
    parser.add_argument("--cohorts", type=int, default=1, help="the workers take turns in so many")
    parser.add_argument("--coded", action="store_true", help="code the uplink's levels")
    parser.add_argument("--default_down", action="store_true",
                        help="the broadcasts of the default, not with 4 bits")
    parser.add_argument("--role", choices=("master", "worker"), help=argparse.SUPPRESS)
    parser.add_argument("--id", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        {"master": master, "worker": worker}[arguments.role](arguments)
        return
    print("| workers | mode | median s | p90 s | processor s, all | master | a worker "
          "| payload up, bytes a worker | headers up, bytes a worker |")
    print("|---|---|---|---|---|---|---|---|---|")
    for workers in arguments.workers:
        seconds, used, last = measure(workers, arguments)
        payload = last["payload_bits_up"] / 8 / len(last["selected"])
        ordered = sorted(seconds)
        in_a_round = used[0] + sum(used[1:]) / arguments.cohorts  # a worker's is that of its turn
        print(
            f"| {workers} | {arguments.mode} | {statistics.median(seconds):.3f} | "
            f"{ordered[int(0.9 * len(ordered))]:.3f} | {in_a_round:.3f} | {used[0]:.4f} | "
            f"{statistics.mean(used[1:]):.4f} | {payload:.0f} | "
            f"{(last['wire_bits_up'] - last['payload_bits_up']) / 8 / len(last['selected']):.0f} |"
        )


if __name__ == "__main__":
    main()
