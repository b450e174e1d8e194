#!/usr/bin/env python3
"""What enable_mixed_precision does to accuracy: the same runs in float32 and in float16 with loss
scaling.

    python benchmarks/mixed_precision.py [--model cnn_small] [--rounds 60] [--seeds 0 1 2]

Four workers on digits, 5 local steps of batch 32, laq8. Speed is not measured: a CPU has no fast
float16.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config  # noqa: E402


def accuracy(model, rounds, seed, mixed):
    from flq.learning.learner import build_learner
    from flq.simulation.run import simulate
    settings = config.load(None, [
        "dataset.name=digits", "model.name=" + model, "total_workers=4", "quorum=all", "mode=laq8",
        "local_steps=5", "log_level=ERROR", f"max_rounds={rounds}", f"eval_every={rounds}",
        f"seed={seed}", "averaging=0", f"enable_mixed_precision={str(mixed).lower()}"
    ]).config
    learner = build_learner(settings, range(4), evaluate=True)
    with tempfile.TemporaryDirectory() as folder:
        return simulate(settings, str(Path(folder) / "run"), learner)[1].summary["accuracy"]


def main():
    parser = argparse.ArgumentParser(description="accuracy with and without mixed precision")
    parser.add_argument("--model", default="cnn_small")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    print("| enable_mixed_precision | accuracy, mean (each seed) |")
    print("|---|---|")
    for mixed in (False, True):
        found = [
            accuracy(arguments.model, arguments.rounds, seed, mixed) for seed in arguments.seeds
        ]
        each = ", ".join(f"{one:.3f}" for one in found)
        print(f"| `{str(mixed).lower()}` | {statistics.mean(found):.3f} ({each}) |", flush=True)


if __name__ == "__main__":
    main()
