#!/usr/bin/env python3
"""What late_updates apply is worth: one worker of five is five times slower than the deadline's
pace.

    python benchmarks/late_updates.py [--rounds 100] [--seeds 0 1 2]

Real training of the mlp on digits, Dirichlet 0.1, 5 local steps of batch 32, laq with 4 bits,
quorum deadline. Every local update is stretched to 0.1 s, worker 4's to 0.5 s, and a phase lasts
0.25 s, so worker 4 misses its round each time it trains.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config  # noqa: E402

WORKERS, SLOW, UPDATE_S, DEADLINE_S = 5, 4, 0.1, 0.25
TASK = [
    "dataset.name=digits", "model.name=mlp", f"total_workers={WORKERS}",
    f"min_workers={WORKERS - 1}", "quorum=deadline", f"round_deadline_s={DEADLINE_S}",
    "partition=non_iid", "dir_alpha=0.1", "averaging=0", "log_level=ERROR"
]


class Stretched(object):
    """A learner whose local updates take as long as on a fleet with one slow worker."""

    def __init__(self, learner):
        self._learner = learner

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def local_update(self, params, non_trainable, worker, round_):
        until = time.monotonic() + UPDATE_S * (5 if worker == SLOW else 1)
        result = self._learner.local_update(params, non_trainable, worker, round_)
        time.sleep(max(0.0, until - time.monotonic()))
        return result


def measure(mode, rounds, seed):
    from flq.learning.learner import build_learner
    from flq.simulation.run import simulate
    settings = config.load(
        None, TASK +
        [f"max_rounds={rounds}", f"eval_every={rounds}", f"late_updates={mode}", f"seed={seed}"
         ]).config
    learner = build_learner(settings, range(WORKERS), evaluate=True)
    # the first step is compiled before the clock runs
    learner.local_update(*learner.initial(), 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        _, run = simulate(settings, str(Path(folder) / "run"), Stretched(learner))
    rows = [
        row for row in run.worker_rounds if row["worker"] == SLOW and row["state"] == "accepted"
    ]
    return {
        "accuracy": run.summary["accuracy"],
        "seconds": sum(record["round_time_s"] for record in run.rounds), "uploads": len(rows),
        "staleness": max((row["staleness"] for row in rows), default=0), "bits": run.summary["bits"]
                                                                                 ["up"]["payload"]
    }


def main():
    parser = argparse.ArgumentParser(
        description="late_updates refuse and apply with one slow worker")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    print(
        "| late_updates | accuracy, mean (each seed) | seconds, mean | uploads of the slow worker, "
        "mean | largest staleness | up, Mbit |"
    )
    print("|---|---|---|---|---|---|")
    for mode in ("refuse", "apply"):
        runs = [measure(mode, arguments.rounds, seed) for seed in arguments.seeds]
        mean = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
        each = ", ".join(f"{run['accuracy']:.3f}" for run in runs)
        oldest = max(run["staleness"] for run in runs)
        print(
            f"| `{mode}` | {mean['accuracy']:.3f} ({each}) | {mean['seconds']:.1f} | "
            f"{mean['uploads']:.1f} | {oldest} | {mean['bits'] / 1000000.0:.1f} |",
            flush=True)


if __name__ == "__main__":
    main()
