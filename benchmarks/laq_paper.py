#!/usr/bin/env python3
"""LAQ's own table (Sun et al. 2019): regularised logistic regression on MNIST, full batches, bits to a loss residual of 1e-6.

    python benchmarks/laq_paper.py --out build/laq_paper.jsonl          # measure what is not in the file yet
    python benchmarks/laq_paper.py --out build/laq_paper.jsonl --table --plot docs/laq_paper.png

Multinomial logistic regression from theta = 0, 10 workers with 6,000 consecutive samples each, L2 0.01 on all parameters, rate
0.2 on the mean gradient, D = 10, ck = 0.8, C = 100, the model sent in float32. Every run is one of flq.simulation; the loss is
computed beside it in float64. Bits are those of the uplink, as in the paper. One line of the file is one run, so it can be stopped
and continued. --small takes 6,000 of the samples.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config  # noqa: E402

WORKERS, L2, RATE, RESIDUAL = 10, 0.01, 0.2, 1e-6
TASK = ["total_workers={}".format(WORKERS), "partition=natural", "batch_size=0", "local_steps=1", "local_lr=0.2", "model.lr={}".format(RATE),
        "server_optimizer=sgd", "model.name=softmax", "init=zeros", "l2={}".format(L2), "l2_biases=true", "b_down=32", "D=10", "ck=0.8",
        "C=100", "quorum=all", "log_level=ERROR"]

# Coding changes no level, so a coded run also gives the papers' count, b p bits an upload.
METHODS = {
    "GD": "mode=fedavg",
    "QGD": "mode=laq b_up=4 radius=vector entropy_coding=true",
    "LAG": "mode=fedavg memory=reference thr_scale=1 lazy_eps=0",
    "LAQ": "mode=laq b_up=4 radius=vector thr_scale=1 entropy_coding=true",
    "bbit 4 bits, lazy": "mode=bbit b_up=4 memory=reference thr_scale=1 lazy_eps=3 entropy_coding=true",
    "bbit 3 bits, lazy": "mode=bbit b_up=3 memory=reference thr_scale=1 lazy_eps=3 entropy_coding=true",
    "rd 0.5, lazy": "mode=rd rd_step=0.5 thr_scale=1 lazy_eps=3",
    "rd 1.0, lazy": "mode=rd rd_step=1.0 thr_scale=1 lazy_eps=3",
}

# Sun et al. 2019, as docs/algorithm.md 9 quotes it: iterations, uploads, bits.
PUBLISHED = {"GD": (2763, 27630, 6.94e9), "LAQ": (2673, 620, 1.95e7)}


def consecutive(data_dir=None, samples=60000):
    """MNIST as arrays whose training samples belong to WORKERS clients, each a piece of the file."""
    from flq.learning.datasets import load_dataset
    data = load_dataset("mnist", data_dir)
    return {"x_train": data.x_train[:samples], "y_train": data.y_train[:samples], "x_test": data.x_test, "y_test": data.y_test,
            "client_train": np.arange(samples) * WORKERS // samples}


def consecutive_small(data_dir=None):
    return consecutive(data_dir, 6000)


class Objective(object):
    """f(theta) = mean cross-entropy over all training samples + L2/2 ||theta||^2, in float64."""

    def __init__(self, arrays):
        x = arrays["x_train"].reshape(len(arrays["x_train"]), -1)
        self._used = np.flatnonzero(x.any(axis=0))  # a pixel that is always 0 adds nothing
        self._x = x[:, self._used] / 255.0
        self._y = arrays["y_train"].astype(np.int64)
        self._pixels = x.shape[1]

    def _logits(self, theta):
        kernel, bias = theta[:-10].reshape(self._pixels, 10), theta[-10:]
        logits = self._x @ kernel[self._used] + bias
        logits -= logits.max(axis=1, keepdims=True)
        return logits

    def loss(self, theta):
        theta = theta.astype(np.float64)
        logits = self._logits(theta)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(self._y)), self._y]
        return float(losses.mean() + L2 / 2 * (theta @ theta))

    def gradient(self, theta):
        p = np.exp(self._logits(theta))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(self._y)), self._y] -= 1
        p /= len(self._y)
        kernel = np.zeros((self._pixels, 10))
        kernel[self._used] = self._x.T @ p
        return np.concatenate([kernel.ravel(), p.sum(axis=0)]) + L2 * theta

    def minimum(self):
        """f* by Nesterov's method for strongly convex functions, until the gradient bounds the error by 1e-12."""
        theta = previous = np.zeros(self._pixels * 10 + 10)
        root = math.sqrt(RATE * L2)
        beta = (1 - root) / (1 + root)
        while True:
            ahead = theta + beta * (theta - previous)
            gradient = self.gradient(ahead)
            previous, theta = theta, ahead - RATE * gradient
            if gradient @ gradient / (2 * L2) < 1e-12:  # f - f* <= ||grad f||^2 / (2 mu)
                return self.loss(theta)


class Watched(object):
    """A learner that keeps the model of every version, as worker 0 received it."""

    def __init__(self, learner):
        self._learner, self.models = learner, []

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def local_update(self, params, state, worker, round_):
        if worker == 0:
            self.models.append(params.copy())
        return self._learner.local_update(params, state, worker, round_)


def first_below(models, loss, target, low=0):
    """The first version whose loss is at most target, by bisection between the points of a grid; None where there is none."""
    grid = list(range(low, len(models), 50)) + [len(models) - 1]
    high = next((version for version in grid if loss(version) <= target), None)
    if high is None:
        return None
    low = max([version for version in grid if version < high], default=high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loss(middle) <= target else (middle, high)
    return high


def sent(run, versions):
    """What travelled up until a version: uploads, bits as the papers count (b p), payload bits; one triple for each version."""
    total, p = {}, 7850
    for row in run.worker_rounds:
        if row["state"] == "accepted":
            b = 32 if row["b"] == 0 else row["b"]
            before = total.get(row["round"], (0, 0, 0))
            total[row["round"]] = before[0] + 1, before[1] + b * p, before[2] + row["payload_bits"]
    return [[sum(total.get(round_, (0, 0, 0))[k] for round_ in range(version)) for k in range(3)] for version in versions]


def measure(name, overrides, rounds, small, objective, minimum):
    from flq.learning.learner import build_learner
    from flq.simulation.run import simulate
    data = "dataset.name=benchmarks.laq_paper:" + ("consecutive_small" if small else "consecutive")
    settings = config.load(None, TASK + [data, "max_rounds={}".format(rounds), "eval_every={}".format(rounds)] + overrides.split()).config
    started = time.time()
    learner = Watched(build_learner(settings, range(WORKERS), evaluate=True))
    with tempfile.TemporaryDirectory() as folder:
        directory, run = simulate(settings, str(Path(folder) / "run"), learner)
    if run.summary["rounds"] != rounds:
        raise SystemExit("interrupted after {} rounds: this run does not count".format(run.summary["rounds"]))
    losses = {}

    def loss(version):
        if version not in losses:
            losses[version] = objective.loss(learner.models[version])
        return losses[version]

    own = loss(len(learner.models) - 1)
    reached = {}
    for label, floor in (("own", own), ("star", minimum)):
        version = first_below(learner.models, loss, floor + RESIDUAL)
        reached[label] = None if version is None else [version] + sent(run, [version])[0]
    versions = list(range(0, len(learner.models), 50))
    curve = [[version, loss(version) - minimum] + counts for version, counts in zip(versions, sent(run, versions))]
    return {"name": name, "overrides": overrides, "rounds": rounds, "small": small, "minimum": minimum, "own_minimum": own,
            "reached": reached, "curve": curve, "accuracy": run.summary["accuracy"], "seconds": time.time() - started}


def number(value):
    return "{:.2e}".format(value).replace("e+0", "e")


def table(lines):
    """reached: [iterations, uploads, the papers' bits, payload bits]."""
    gd = next((line["reached"]["own"] for line in lines if line["name"] == "GD"), None)
    print("| method | iterations | uploads | bits, b p an upload | GD : this | payload bits | GD : this | to f* + 1e-6: iterations, uploads, "
          "payload bits | published: iterations, uploads, bits |")
    print("|---|---|---|---|---|---|---|---|---|")
    for line in lines:
        own, star, published = line["reached"]["own"], line["reached"]["star"], PUBLISHED.get(line["name"])
        ratios = ["{:.0f}".format(gd[2] / own[k]) if gd and own else "" for k in (2, 3)]
        print("| {} `{}` | {} | {} | {} |".format(
            line["name"], line["overrides"],
            "{} | {} | {} | {} | {} | {}".format(own[0], own[1], number(own[2]), ratios[0], number(own[3]), ratios[1]) if own else "| | | | |",
            "{}, {}, {}".format(star[0], star[1], number(star[3])) if star else "not reached",
            "{:,}, {:,}, {}".format(published[0], published[1], number(published[2])) if published else ""))


def plot(lines, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for line in lines:
        points = [point for point in line["curve"] if point[1] > 0 and point[0]]
        left.semilogy([point[0] for point in points], [point[1] for point in points], label=line["name"])
        right.loglog([point[4] for point in points], [point[1] for point in points], label=line["name"])
    left.set(xlabel="iterations", ylabel="loss minus its minimum")
    right.set(xlabel="payload bits up, all workers")
    for axes in (left, right):
        axes.axhline(RESIDUAL, color="grey", linewidth=0.7)
        axes.grid(True, alpha=0.3)
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--rounds", type=int, default=3500, help="default: %(default)s")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", metavar="FILE")
    arguments = parser.parse_args()
    path = Path(arguments.out)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if arguments.table or arguments.plot:
        lines = sorted((line for line in lines if line["name"] in arguments.methods), key=lambda line: list(METHODS).index(line["name"]))
        if arguments.table:
            table(lines)
        if arguments.plot:
            plot(lines, arguments.plot)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    todo = [name for name in arguments.methods if (name, METHODS[name]) not in {(line["name"], line["overrides"]) for line in lines}]
    if not todo:
        return
    objective = Objective(consecutive_small() if arguments.small else consecutive())
    minimum = lines[0]["minimum"] if lines else objective.minimum()
    for name in todo:
        line = measure(name, METHODS[name], arguments.rounds, arguments.small, objective, minimum)
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
        print("{}: {} in {:.0f} s".format(name, line["reached"], line["seconds"]), flush=True)


if __name__ == "__main__":
    main()
