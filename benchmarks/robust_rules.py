#!/usr/bin/env python3
"""What two bad workers of ten do to a run, with the mean and with each rule against them.

    FLQ_DATA_DIR=DIR python benchmarks/robust_rules.py --out benchmarks/results/robust \\
        --flower build/peers/flwr/bin/python

Ten workers, real training; workers 0 and 1 are bad. The default bounds on uploads are on.

    none     they are honest
    flip     each sends -u, u being its own update
    scale    each sends -4 u, which is within the bounds
    collude  both send mean - 1.5 deviations of the honest updates, in each coordinate ("a little
             is enough", Baruch 2019; their formula gives no deviation at all for 2 of 10)
    counts   each sends -u and says that it has ten times its samples

Rows: FLQ's default (laq, 4 bits, references), FLQ in float32 without a memory, and Flower's
aggregation functions on updates of the same learner, averaged and tested as FLQ's. Cells are the
accuracy of the model that the run keeps, the mean over seeds; "diverged" is a run that paused
because all updates were too long. Each finished run is in
--out/TASK-SEED.json and is not run again. --time prints milliseconds of processor time a call for
vectors of 467,818 weights in place of that, for each number of --workers. --tasks, --seeds,
--wires, --attacks and --rounds choose what runs; --small is for the tests.
"""

import argparse
import contextlib
import json
import logging
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

from flq import config  # noqa: E402
from flq.algorithm.aggregation import Committed, weighted_sum  # noqa: E402
from flq.algorithm.averaging import Average, average_after  # noqa: E402
from flq.algorithm.robust_rules import RULES  # noqa: E402
from flq.errors import FlqError  # noqa: E402
from flq.learning.batches import local_steps_of  # noqa: E402
from flq.learning.interface import Learner  # noqa: E402
from flq.modes import AGGREGATIONS, MEAN  # noqa: E402
from flq.pieces import pieces  # noqa: E402

WORKERS, BAD = 10, (0, 1)
DEVIATIONS, SCALE, CLAIM = 1.5, 4, 10
ATTACKS = ("none", "flip", "scale", "collude", "counts")
WIRES = {
    "FLQ, laq": (), "FLQ, float32": ("mode=fedavg", "b_down=32"), "Flower": None
}
TASKS = {
    "digits": ("dataset.name=digits", "model.name=softmax", "max_rounds=40"),
    "digits_uneven": ("dataset.name=digits", "model.name=softmax", "max_rounds=40",
                      "partition=non_iid", "dir_alpha=0.5"),
    "fmnist": ("dataset.name=fmnist", "model.name=mlp", "max_rounds=30", "partition=non_iid",
               "dir_alpha=1"),
}
IN_WORDS = {"digits": "digits, softmax, even", "digits_uneven": "digits, softmax, Dirichlet 0.5",
            "fmnist": "Fashion-MNIST, mlp, Dirichlet 1"}
TIMED = 467818


class Liars(Learner):
    """An honest learner whose bad workers send what the attack says."""

    def __init__(self, learner, attack):
        self._learner, self._attack = learner, attack
        self.layout, self.builtin_model = learner.layout, learner.builtin_model
        self.partition_hash = learner.partition_hash
        self._known, self._lock = {}, threading.Lock()

    def initial(self):
        return self._learner.initial()

    def evaluate(self, params, non_trainable):
        return self._learner.evaluate(params, non_trainable)

    def device(self):
        return self._learner.device()

    def num_samples(self, worker):
        claim = CLAIM if self._attack == "counts" and worker in BAD else 1
        return claim * self._learner.num_samples(worker)

    def local_update(self, params, non_trainable, worker, round_):
        if worker not in BAD or self._attack == "none":
            return self._honest(params, non_trainable, worker, round_)
        if self._attack == "collude":
            others = np.array([
                self._honest(params, non_trainable, other, round_).update
                for other in range(WORKERS) if other not in BAD
            ])
            update = others.mean(axis=0) - DEVIATIONS * others.std(axis=0)
            told = self._honest(params, non_trainable, worker, round_)
        else:
            told = self._honest(params, non_trainable, worker, round_)
            update = -(SCALE if self._attack == "scale" else 1) * told.update
        return told._replace(update=update.astype(np.float32))

    def _honest(self, params, non_trainable, worker, round_):
        """What a worker really computes; a round starts from one model."""
        with self._lock:
            self._known = {key: told for key, told in self._known.items() if key[1] == round_}
            known = self._known.get((worker, round_))
        if known is None:
            known = self._learner.local_update(params, non_trainable, worker, round_)
            with self._lock:
                self._known[worker, round_] = known
        return known


class Flower(object):
    """Flower's functions in a process of their own."""

    def __init__(self, python):
        self._process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / "peers" / "flower_rules.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, rule, vectors, samples, bad):
        """-> (result float32[p], seconds of processor time)."""
        told = {"rule": rule, "bad": bad, "samples": samples, "p": vectors[0].size}
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        for vector in vectors:
            self._process.stdin.write(vector.tobytes())
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("Flower's process ended: see above")
        data = self._process.stdout.read(4 * vectors[0].size)
        return np.frombuffer(data, np.float32), json.loads(line)["seconds"]

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def settings_of(task, seed, rule, more, rounds=None):
    words = [*TASKS[task], f"total_workers={WORKERS}", f"seed={seed}", "quorum=all", *more]
    words += [] if rounds is None else [f"max_rounds={rounds}"]
    loaded = config.load(None, [*words, f"aggregation={rule}", "eval_every=1000"])
    return loaded.config


def play(settings, learner):
    """A run of FLQ -> its accuracy and how many uploads the bounds refused; None where it paused
    because it diverged.
    """
    from flq.simulation.run import simulate
    with tempfile.TemporaryDirectory() as folder:
        try:
            # A signal ends this program, and not one run, whose part would be kept as the whole.
            _, run = simulate(settings, str(Path(folder) / "run"), learner, take_signals=False)
        except FlqError:
            return {"accuracy": None, "refused": None}
    taken = sum(row["state"] == "accepted" for row in run.worker_rounds)
    return {"accuracy": run.summary["accuracy"], "refused": len(run.worker_rounds) - taken}


def play_flower(settings, learner, rule, flower):
    """The same rounds with Flower's function: clients send weights, and what it makes of them is
    the next model.
    """
    params, non_trainable = learner.initial()
    average = Average(params, non_trainable)
    samples = [learner.num_samples(worker) for worker in range(WORKERS)]
    for round_ in range(settings.system.max_rounds):
        weights = []
        for worker in range(WORKERS):
            told = learner.local_update(params, non_trainable, worker, round_)
            steps = local_steps_of(settings, samples[worker])
            weights.append(params - np.float32(settings.model.local_lr * steps) * told.update)
        params, _ = flower(rule, weights, samples, len(BAD))
        average = average_after(average, round_, Average(params, non_trainable),
                                settings.model.averaging)
    return {"accuracy": learner.evaluate(*average).accuracy, "refused": 0}


def planned(wires, flower, attacks):
    """(wire, rule, attack) of all cells of a table."""
    for wire in wires:
        for rule in AGGREGATIONS:
            if WIRES[wire] is None and (not flower or rule == "centered_clipping"):
                continue
            for attack in attacks:
                yield wire, rule, attack


def measure(task, seed, out, build, flower, wires, attacks, rounds=None):
    """Run what is missing of one task and seed; each result is kept at once."""
    file = out / f"{task}-{seed}.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    learner = None
    for wire, rule, attack in planned(wires, flower, attacks):
        name = f"{wire}/{rule}/{attack}"
        if name in found:
            continue
        settings = settings_of(task, seed, rule, WIRES[wire] or (), rounds)
        learner = learner or build(settings)
        lying = Liars(learner, attack)
        found[name] = (play(settings, lying) if WIRES[wire] is not None else
                       play_flower(settings, lying, rule, flower))
        print(f"{task} {seed} {name}: {found[name]['accuracy']}", file=sys.stderr, flush=True)
        fresh = file.with_suffix(".part")
        fresh.write_text(json.dumps(found, indent=1) + "\n")
        os.replace(fresh, file)
    return found


def table(results, task, attacks):
    """The rows of one task, from the results of its seeds."""
    lines = [f"| {IN_WORDS[task]} | rule | {' | '.join(attacks)} |",
             "|---|---|" + "---|" * len(attacks)]
    for wire in WIRES:
        for rule in AGGREGATIONS:
            cells = []
            for attack in attacks:
                values = [found[key]["accuracy"] for found in results
                          for key in [f"{wire}/{rule}/{attack}"] if key in found]
                cells.append("" if not values else "diverged" if None in values else
                             f"{statistics.mean(values):.3f}")
            if any(cells):
                lines.append(f"| {wire} | `{rule}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def of_the_mean(vectors, bad, center):
    """What stands in the place of a rule where there is none: D / N (aggregation.py)."""
    committed = [Committed(worker, 1.0, vector) for worker, vector in enumerate(vectors)]
    parts = [weighted_sum(committed, part) for part in pieces(0, vectors[0].size)]
    return (np.concatenate(parts) / len(vectors)).astype(np.float32)


def times(flower, length, workers, repeats=3):
    """Milliseconds of processor time of each rule, on the same vectors: the fastest of some; a
    fifth of the workers may be bad.
    """
    lines = ["| workers | rule | FLQ, ms | Flower, ms | largest difference |",
             "|---|---|---|---|---|"]
    for number in workers:
        draw = np.random.RandomState(0)
        vectors = [draw.standard_normal(length).astype(np.float32) for _ in range(number)]
        center, bad = np.zeros(length, np.float32), number // 5
        for rule in AGGREGATIONS:
            function = of_the_mean if rule == MEAN else RULES[rule]
            took, others, gap = [], [], ""
            for _ in range(repeats):
                began = time.process_time()
                found = function(vectors, bad, center)
                took.append(time.process_time() - began)
                if flower and rule != "centered_clipping":
                    other, seconds = flower(rule, vectors, [1] * number, bad)
                    others.append(seconds)
                    gap = f"{float(np.abs(found - other).max()):.1e}"
            lines.append(f"| {number} | `{rule}` | {1000 * min(took):,.0f} | "
                         f"{f'{1000 * min(others):,.0f}' if others else ''} | {gap} |")
    return "\n".join(lines)


def build_real(settings):
    from flq.learning.learner import build_learner
    return build_learner(settings, range(WORKERS), evaluate=True, replicas=2)


@contextlib.contextmanager
def errors_alone():
    """The log without what each round of a simulation says."""
    logger = logging.getLogger("flq")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def main(build=build_real):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--wires", nargs="+", choices=tuple(WIRES), default=list(WIRES),
                        help="the groups of rows")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--flower", metavar="PYTHON", help="of an environment with Flower")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 50, 200], help="with --time")
    parser.add_argument("--small", action="store_true", help="3 rounds, vectors of 1,000 weights")
    arguments = parser.parse_args()
    rounds = 3 if arguments.small else arguments.rounds
    with contextlib.ExitStack() as stack:
        stack.enter_context(errors_alone())
        flower = None
        if arguments.flower:
            flower = Flower(arguments.flower)
            stack.callback(flower.close)
        if arguments.time:
            print(times(flower, 1000 if arguments.small else TIMED, arguments.workers))
            return 0
        arguments.out.mkdir(parents=True, exist_ok=True)
        for task in arguments.tasks:
            results = [
                measure(task, seed, arguments.out, build, flower, arguments.wires,
                        arguments.attacks, rounds) for seed in arguments.seeds
            ]
            print(table(results, task, arguments.attacks), flush=True)
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
