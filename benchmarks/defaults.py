#!/usr/bin/env python3
"""Which settings each mode should have by default: the same task under every candidate, several
seeds.

    # measures what is not in the file yet, then prints the tables
    python benchmarks/defaults.py --out build/defaults.jsonl
    python benchmarks/defaults.py --out build/defaults.jsonl --table

Task: Fashion-MNIST, 10 workers, Dirichlet 0.1, cnn_small, 5 local steps of batch 64, 40 rounds,
quorum all, the whole test set. One line of the file is one run, so it can be stopped and continued.
Bits are payload bits.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config  # noqa: E402

TASK = [
    "dataset.name=fmnist",
    "total_workers=10",
    "partition=non_iid",
    "dir_alpha=0.1",
    "model.name=cnn_small",
    "batch_size=64",
    "local_steps=5",
    "max_rounds=40",
    "eval_every=10",
    "quorum=all",
    "log_level=ERROR",
    # whatever the defaults have become since
    "entropy_coding=false",
    "radius=tensor",
    "b_down=4",
    "entropy_coding_down=true",
    "averaging=0",
    "memory_rate=1"
]

# What is compared: groups of overrides, one run for every combination and seed.
SWEEPS = {
    # the rates, in float32 both ways, from which the compressed modes start
    "rates": [["mode=fedavg b_down=32"], ["server_optimizer=sgd", "server_optimizer=momentum"],
              ["local_lr=0.05", "local_lr=0.1", "local_lr=0.2", "local_lr=0.4"]],
    "memory": [["mode=laq", "mode=laq8", "mode=bbit", "mode=bin"],
               ["memory=reference", "memory=residual", "memory=none"]],
    "baselines": [["mode=fedavg", "mode=qsgd"]],
    "downlink": [["mode=laq"],
                 [
                     "b_down=32", "downlink=laq b_down=4", "downlink=bbit b_down=4",
                     "downlink=bbit b_down=3", "downlink=laq b_down=8"
                 ]],
    "correction": [["mode=laq", "mode=bin"], ["sel_clients=3"],
                   ["correction=bids", "correction=count", "correction=none"]],
    "rd": [["mode=rd downlink=rd b_down=8", "mode=laq", "mode=rd"]],
    "radius": [["mode=rd"], ["radius=tensor", "radius=vector"],
               ["rd_step=1.5", "rd_step=2.5", "rd_step=4"]],
    "lazy": [["mode=laq"], ["thr_scale=0", "thr_scale=1", "thr_scale=10"]],
}


def combinations(sweep, base):
    for parts in itertools.product(*SWEEPS[sweep]):
        yield [word for part in parts for word in part.split()], base


def name_of(overrides):
    return " ".join(overrides)


def measure(overrides, base, seed, learners):
    from flq.learning.learner import build_learner
    from flq.simulation.run import simulate
    settings = config.load(None, TASK + base + overrides + [f"seed={seed}"]).config
    key = (seed, settings.model)
    if key not in learners:
        learners.clear()  # one data set in memory at a time
        learners[key] = build_learner(settings, range(settings.system.total_workers), evaluate=True,
                                      replicas=os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        _, run = simulate(settings, os.path.join(folder, "run"), learners[key])
    summary = run.summary
    if summary["rounds"] != settings.system.max_rounds:
        raise SystemExit(f"interrupted after {summary['rounds']} rounds: this run does not count")
    up, down = summary["bits"]["up"], summary["bits"]["down"]
    return {
        "accuracy": summary["accuracy"], "bits_up": up["payload"], "bits_down": down["payload"],
        "float32_up": up["float32"], "float32_down": down["float32"], "seconds": summary["seconds"],
        "skipped": summary["skipped"], "refused": summary["refused"]
    }


def table(lines, sweep):
    rows = {}
    for line in lines:
        if line["sweep"] == sweep:
            rows.setdefault(line["name"], []).append(line)
    print(f"\n### {sweep}\n")
    print(
        "| settings | accuracy, mean (standard deviation) | up, Mbit | down, Mbit | up, fewer than "
        "float32 | seeds |"
    )
    print("|---|---|---|---|---|---|")
    for name, group in sorted(
            rows.items(), key=lambda item: -statistics.mean(line["accuracy"] for line in item[1])):
        accuracies = [line["accuracy"] for line in group]
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        mean = {
            key: statistics.mean(line[key] for line in group)
            for key in ("bits_up", "bits_down", "float32_up")
        }
        fewer = mean["float32_up"] / mean["bits_up"]
        print(
            f"| `{name}` | {statistics.mean(accuracies):.3f} ({spread:.3f}) | "
            f"{mean['bits_up'] / 1000000.0:.1f} | {mean['bits_down'] / 1000000.0:.1f} | "
            f"{fewer:.1f} | {len(group)} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--sweeps", nargs="+", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[],
                        help="further overrides for every run")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    path = Path(arguments.out)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if arguments.table:
        for sweep in arguments.sweeps:
            table(lines, sweep)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    done, learners = {(line["name"], line["seed"], tuple(line["set"])) for line in lines}, {}
    for seed in arguments.seeds:
        for sweep in arguments.sweeps:
            for overrides, base in combinations(sweep, arguments.set):
                key = (name_of(overrides), seed, tuple(base))
                if key in done:
                    continue
                result = measure(overrides, base, seed, learners)
                done.add(key)
                with open(path, "a") as file:
                    file.write(
                        json.dumps(dict(result, sweep=sweep, name=key[0], seed=seed, set=base)) +
                        "\n")
                print(
                    f"{sweep} seed {seed} {key[0]}: {result['accuracy']:.4f}, "
                    f"{result['bits_up'] / 1000000.0:.1f} Mbit up, {result['seconds']:.0f} s",
                    flush=True)


if __name__ == "__main__":
    main()
