#!/usr/bin/env python3
"""Where the processor time of a round goes, on the master and on a worker.

    python benchmarks/round_profile.py [--workers 4] [--rounds 30]

A run of `python -m flq simulate --resume` with the updates of benchmarks/round_time.py (p =
467,818): all that a round does but the training and HTTP, the store and the state files included.
Each part is measured in its thread's processor time, without the parts inside of it, so that who
else uses the machine counts little. What a file waits for its disk is in seconds beside it. A
worker's parts are those of one worker, the master's those of a whole round. Before them the floor:
what the same bytes take at least, one pass over a vector, one SHA-256, one fsync.

Prints Markdown tables.
"""

import argparse
import functools
import hashlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.round_time import CNN, TableLearner  # noqa: E402
from flq import config  # noqa: E402

CASES = {
    "laq, coded": ["mode=laq"],
    "laq, 4 bits": ["mode=laq", "entropy_coding=false", "entropy_coding_down=false", "b_down=4"],
    "rd": ["mode=rd", "downlink=rd"],
    "bin": ["mode=bin", "downlink=bin"],
}
PARTS = {
    "worker": (
        ("quantise", "flq.compression.codec", "encode"),
        ("c of the levels", "flq.compression.codec", "decode"),
        ("norms", "flq.kernels", "squared_norm"),
        ("norms", "flq.kernels", "squared_distance"),
        ("entropy coding, packing", "flq.compression.codec", "to_body"),
        ("the rest of the proposal", "flq.algorithm.uplink", "propose"),
        ("frame and CRC", "flq.protocol.frames", "pack"),
        ("state: write", "flq.worker.state_file:StateFile", "save"),
        ("broadcast: entropy decoding", "flq.compression.codec", "from_body"),
        ("broadcast: SHA-256 of the model", "flq.parameters", "params_hash"),
        ("broadcast: the rest", "flq.worker.received", "receive"),
    ),
    "master": (
        ("upload: entropy decoding", "flq.compression.codec", "from_body"),
        ("upload: c of the levels", "flq.compression.codec", "decode"),
        ("upload: bounds", "flq.algorithm.bounds", "measure"),
        ("upload: the rest", "flq.master.service:Service", "upload"),
        ("sum of the uploads", "flq.algorithm.aggregation", "weighted_sum"),
        ("norms", "flq.kernels", "squared_norm"),
        ("average", "flq.algorithm.round", "average_after"),
        ("broadcast: quantise", "flq.compression.codec", "encode"),
        ("broadcast: SHA-256 of the model", "flq.parameters", "params_hash"),
        ("the rest of the step", "flq.algorithm.round", "close_round"),
        ("broadcast: entropy coding, packing", "flq.compression.codec", "to_body"),
        ("broadcast: frame and CRC", "flq.protocol.frames", "pack"),
        ("store: write", "flq.master.store.run_store:RunStore", "commit_round"),
        ("the rest of closing", "flq.master.run.closing:RoundCloser", "close"),
    ),
}
SKIPPED = 3  # rounds in which what is made once is made


class Meter:
    """Processor seconds and seconds of each part, in each thread without those of parts inside."""

    def __init__(self):
        self._open, self._lock, self.spent = threading.local(), threading.Lock(), {}
        self._sides = {}
        for side, parts in PARTS.items():
            for label, owner, name in parts:
                self._sides.setdefault((owner, name), {})[side] = label

    def watch(self):
        for (owner, name), labels in self._sides.items():
            module, _, cls = owner.partition(":")
            found = importlib.import_module(module)
            self._replace(getattr(found, cls) if cls else found, name, labels)

    def _replace(self, owner, name, labels):
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def measured(*arguments, **more):
            stack = self._open.__dict__.setdefault("stack", [])
            before, stack_entry = (time.thread_time(), time.perf_counter()), [0.0, 0.0]
            stack.append(stack_entry)
            try:
                return inner(*arguments, **more)
            finally:
                stack.pop()
                took = time.thread_time() - before[0], time.perf_counter() - before[1]
                if stack:
                    stack[-1][0] += took[0]
                    stack[-1][1] += took[1]
                self._note(labels, took[0] - stack_entry[0], took[1] - stack_entry[1])

        # whoever imported the function by its name has it too
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("flq") and getattr(
                    module, name, None) is inner:
                setattr(module, name, measured)
        setattr(owner, name, measured)

    def _note(self, labels, used, seconds):
        side = "master" if self._is_master() else "worker"
        label = labels.get(side)
        if label is not None:
            with self._lock:
                total = self.spent.setdefault((side, label), [0.0, 0.0])
                total[0] += used
                total[1] += seconds

    def _is_master(self):
        """A worker's thread serves its own requests here, inside of `Service`."""
        beside = threading.current_thread().name.startswith(("driver", "coder"))
        return beside or self._open.__dict__.get("serves", 0)

    def serve(self, service):
        """From now on what happens inside of these methods is the master's."""
        for name in ("upload", "broadcast", "bid", "outcome"):
            inner = getattr(service, name)

            def served(*arguments, inner=inner, **named):
                state = self._open.__dict__
                state["serves"] = state.get("serves", 0) + 1
                try:
                    return inner(*arguments, **named)
                finally:
                    state["serves"] -= 1

            setattr(service, name, served)

    def start_again(self):
        with self._lock:
            self.spent.clear()


def profile(keys, workers, rounds):
    """{(side, part): (processor seconds, seconds)} of a round, and its bytes up and down."""
    from flq.simulation.run import simulate
    meter = Meter()
    meter.watch()
    settings = config.load(None, [
        f"total_workers={workers}", f"max_rounds={rounds + SKIPPED}", "quorum=all", "cohorts=1",
        "eval_every=1000000", "log_level=WARNING", "save_results=false", *keys
    ]).config

    def after(record):
        if record.round == SKIPPED - 1:
            meter.start_again()

    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        _, run = simulate(settings, os.path.join(folder, "run"), TableLearner(), meter.serve,
                          resume=True, on_round=after)
    last = run.rounds[-1]
    shares = {"master": rounds, "worker": rounds * workers}
    return {
        key: (used / shares[key[0]], seconds / shares[key[0]])
        for key, (used, seconds) in meter.spent.items()
    }, (last["payload_bits_up"] // workers // 8, last["payload_bits_down"] // workers // 8)


def floor():
    """Rows (what, milliseconds): medians."""
    vector = np.random.RandomState(0).standard_normal(CNN.num_params).astype(np.float32)
    out = np.empty_like(vector)

    def fsync():
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(250_000))
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            return time.perf_counter() - started

    def timed(action):
        started = time.thread_time()
        action()
        return time.thread_time() - started

    return [
        ("one pass over a float32 vector (read and write)",
         statistics.median(timed(lambda: np.add(vector, 1, out=out)) for _ in range(50))),
        ("one SHA-256 of the model",
         statistics.median(timed(lambda: hashlib.sha256(vector).digest()) for _ in range(20))),
        ("one fsync of 250 kB, seconds that pass",
         statistics.median(fsync() for _ in range(20))),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--role", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        found, sizes = profile(CASES[arguments.role], arguments.workers, arguments.rounds)
        print(json.dumps([list(found.items()), sizes]))
        return
    print("| floor | ms |\n|---|---|")
    for what, seconds in floor():
        print(f"| {what} | {1000 * seconds:.2f} |")
    found, sizes = {}, {}
    for case in arguments.cases:
        found[case], sizes[case] = in_a_process(case, arguments)
    print(f"\n{arguments.workers} workers; processor milliseconds, those that pass in brackets\n")
    print("| who | part | " + " | ".join(
        f"{case}: {sizes[case][0] / 1e3:.0f} kB up, {sizes[case][1] / 1e3:.0f} down"
        for case in arguments.cases) + " |\n" + "|---" * (2 + len(arguments.cases)) + "|")
    for side, parts in PARTS.items():
        for label in list(dict.fromkeys(label for label, _, _ in parts)) + ["all"]:
            cells = [cell(found[case], side, label) for case in arguments.cases]
            print(f"| {side} | {label} | {' | '.join(cells)} |")


def cell(spent, side, label):
    rows = [value for (who, part), value in spent.items()
            if who == side and label in (part, "all")]
    used, passed = (1000 * sum(values) for values in zip(*rows)) if rows else (0.0, 0.0)
    return f"{used:.2f} ({passed:.2f})"


def in_a_process(case, arguments):
    """Watched functions stay watched: each case has a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--workers", str(arguments.workers),
               "--rounds", str(arguments.rounds), "--role", case]
    found, sizes = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {tuple(key): values for key, values in found}, sizes


if __name__ == "__main__":
    main()
