#!/usr/bin/env python3
"""LAQ's own table (Sun et al. 2019): regularised logistic regression on MNIST, full batches, bits
to a loss residual of 1e-6.

    # measures what is not in the file yet, then prints the table
    python benchmarks/laq_paper.py --out build/laq_paper.jsonl
    python benchmarks/laq_paper.py --out build/laq_paper.jsonl --table --plot docs/laq_paper.png

Multinomial logistic regression from a drawn theta (docs/decisions/0017), 10 workers with 6,000
consecutive samples each, L2 0.01 on all parameters, rate 0.2 on the mean gradient, D = 10, ck =
0.8, C = 100, the model sent in float32. Every worker and the master are flq.algorithm's own
functions, called in turn without threads, frames and a store (a test shows that a simulation gives
the same models); gradients are float32, the loss beside them float64. Bits are those of the uplink,
as in the paper. One line of the file is one run, so it can be stopped and continued. --small takes
6,000 of the samples.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config  # noqa: E402
from flq.algorithm.play import begin, play_round  # noqa: E402
from flq.host.durable import replace_file  # noqa: E402
from flq.learning.datasets import load_dataset  # noqa: E402
from flq.learning.initial import initial_params  # noqa: E402
from flq.learning.interface import Learner  # noqa: E402
from flq.parameters import Layout  # noqa: E402
from flq.records import Evaluation, LocalResult  # noqa: E402

WORKERS, L2, RATE, RESIDUAL, SEED = 10, 0.01, 0.2, 1e-6, 0
PIECE = 1000
TASK = [f"total_workers={WORKERS}", "batch_size=0", "local_steps=1", f"local_lr={RATE}",
        "server_optimizer=sgd", "model.name=softmax", f"l2={L2}", "l2_biases=true", "b_down=32",
        "D=10", "ck=0.8", "C=100", "quorum=all", "log_level=ERROR"]

# Coding changes no level, so a coded run also gives the papers' count, b p bits an upload.
METHODS = {
    "GD": "mode=fedavg", "QGD": "mode=laq b_up=4 radius=vector entropy_coding=true",
    "LAG": "mode=fedavg memory=reference thr_scale=1 lazy_eps=0",
    "LAQ": "mode=laq b_up=4 radius=vector thr_scale=1 entropy_coding=true",
    "bbit 4 bits, lazy": "mode=bbit b_up=4 memory=reference thr_scale=1 lazy_eps=3 "
                         "entropy_coding=true",
    "bbit 3 bits, lazy": "mode=bbit b_up=3 memory=reference thr_scale=1 lazy_eps=3 "
                         "entropy_coding=true",
    "rd 0.5, lazy": "mode=rd rd_step=0.5 thr_scale=1 lazy_eps=3",
    "rd 1.0, lazy": "mode=rd rd_step=1.0 thr_scale=1 lazy_eps=3",
}

# Sun et al. 2019, as docs/algorithm.md 9 quotes it: iterations, uploads, bits.
PUBLISHED = {"GD": (2763, 27630, 6.94e9), "LAQ": (2673, 620, 1.95e7)}


class Regression(Learner):
    """Logistic regression in NumPy on consecutive pieces of the data: full gradients of

        f_m(theta) = mean cross-entropy over the samples of worker m + L2/2 ||theta||^2

    x: uint8[n, pixels], y: labels 0..9. theta: the kernel [pixels, 10], then 10 biases.
    """

    builtin_model, partition_hash = True, ""

    def __init__(self, x, y, workers=WORKERS, init="glorot_uniform"):
        self._init = init
        pixels = x.shape[1]
        self.layout = Layout(((pixels, 10), (10,)))
        self._used = np.flatnonzero(x.any(axis=0))  # a pixel that is always 0 adds nothing
        self._samples, self._pixels = len(y) // workers, pixels
        # Pieces of one worker each, small enough for a processor's cache, with a sample a column:
        # BLAS is faster on these.
        self._pieces = []
        for start in range(0, workers * self._samples, self._samples):
            bounds = list(range(start, start + self._samples, PIECE)) + [start + self._samples]
            self._pieces.append([(np.ascontiguousarray((x[first:last, self._used] / 255.0).astype(
                np.float32).T), y[first:last].astype(np.int64))
                                 for first, last in zip(bounds, bounds[1:])])

    def num_samples(self, worker):
        return self._samples

    def device(self):
        return {}

    def initial(self):
        return initial_params(self.layout, self._init, SEED), np.zeros(0, np.float32)

    def local_update(self, params, non_trainable, worker, round_):
        loss, update = self._sums(params, worker)
        return LocalResult(update / np.float32(self._samples) + np.float32(L2) * params,
                           non_trainable, loss / self._samples, 1)

    def evaluate(self, params, non_trainable):
        return Evaluation(0.0, self.loss(params), self._samples * len(self._pieces))

    def loss(self, params):
        """The mean over all workers, in float64."""
        theta = params.astype(np.float64)
        losses = [
            self._sums(theta, worker, gradient=False)[0] / self._samples
            for worker in range(len(self._pieces))
        ]
        return math.fsum(losses) / len(losses) + L2 / 2 * float(theta @ theta)

    def _sums(self, theta, worker, gradient=True):
        """Sum of the cross-entropies of a worker's samples and of their gradients, in the precision
        of theta.
        """
        kernel, bias = theta[:-10].reshape(self._pixels, 10)[self._used], theta[-10:, np.newaxis]
        loss, kernel_sum, bias_sum = 0.0, np.zeros(kernel.shape,
                                                   theta.dtype), np.zeros(10, theta.dtype)
        for x, y in self._pieces[worker]:
            x, columns = x.astype(theta.dtype, copy=False), np.arange(len(y))
            logits = kernel.T @ x + bias
            logits -= logits.max(axis=0)
            p = np.exp(logits)
            total = p.sum(axis=0)
            loss += float((np.log(total) - logits[y, columns]).sum(dtype=np.float64))
            if gradient:
                p /= total
                p[y, columns] -= 1
                kernel_sum += x @ p.T
                bias_sum += p.sum(axis=1)
        whole = np.zeros((self._pixels, 10), theta.dtype)
        whole[self._used] = kernel_sum
        return loss, np.concatenate([whole.ravel(), bias_sum])

    def minimum(self):
        """f* by Nesterov's method for strongly convex functions, until the gradient bounds the
        error by 1e-9.
        """
        theta = previous = np.zeros(self.layout.num_params)
        root = math.sqrt(RATE * L2)
        beta = (1 - root) / (1 + root)
        while True:
            ahead = theta + beta * (theta - previous)
            updates = [
                self.local_update(ahead.astype(np.float32), None, worker, 0).update
                for worker in range(len(self._pieces))
            ]
            gradient = np.mean(np.array(updates, np.float64), axis=0)
            previous, theta = theta, ahead - RATE * gradient
            if gradient @ gradient / (2 * L2) < 1e-9:  # f - f* <= ||grad f||^2 / (2 mu)
                return self.loss(theta)


def start(settings, learner):
    workers = range(settings.system.total_workers)
    return begin("laq_paper", settings, learner.layout, *learner.initial(),
                 [learner.num_samples(worker) for worker in workers])


_threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count())


def play(position, settings, learner):
    """One round by FLQ's own functions -> the next position and what was uploaded, (b, payload
    bits) each.
    """
    model, workers = position.model, range(len(position.uplinks))
    results = list(
        _threads.map(
            lambda worker: learner.local_update(model.broadcast, model.non_trainable, worker,
                                                model.version), workers))
    played = play_round(position, results, settings, learner.layout, lambda samples: 1)
    return played.position, [(proposal.bits, 8 * len(proposal.body.data))
                             for proposal in played.proposals if not proposal.skip]


def play_all(settings, learner, rounds, kept):
    """The model of every version, and what was sent until then: uploads, bits as the papers count
    (b p), payload bits.

    kept: a file that holds the way so far, written every 100 rounds and read where it is there.
    """
    position = start(settings, learner)
    models, counts = [position.model.broadcast], [(0, 0, 0)]
    if kept.exists():
        position, models, counts = pickle.loads(kept.read_bytes())
    while position.model.version < rounds:
        position, sent = play(position, settings, learner)
        before = counts[-1]
        models.append(position.model.broadcast)
        counts.append(
            (before[0] + len(sent), before[1] + sum(b for b, _ in sent) * learner.layout.num_params,
             before[2] + sum(bits for _, bits in sent)))
        if position.model.version % 100 == 0:
            replace_file(str(kept), [pickle.dumps((position, models, counts))], "state")
    return models, counts


def first_below(count, loss, target, every=100):
    """The first of `count` versions whose loss is at most target, by bisection between the points
    of a grid; None where there is none.
    """
    grid = list(range(0, count - 1, every)) + [count - 1]
    high = next((version for version in grid if loss(version) <= target), None)
    if high is None:
        return None
    low = max([version for version in grid if version < high], default=high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loss(middle) <= target else (middle, high)
    return high


def minimum_of(learner, path):
    """f*, computed once for all methods."""
    if not path.exists():
        path.write_text(json.dumps(learner.minimum()))
    return json.loads(path.read_text())


def measure(name, overrides, init, rounds, small, learner, kept):
    settings = config.load(None, TASK + overrides.split()).config
    started = time.time()
    models, counts = play_all(settings, learner, rounds, kept)
    minimum = minimum_of(learner,
                         kept.with_name(f"laq_paper_minimum_{'small' if small else 'full'}.json"))
    losses = {}

    def loss(version):
        if version not in losses:
            losses[version] = learner.loss(models[version])
        return losses[version]

    own, reached = loss(rounds), {}
    for label, floor in (("own", own), ("star", minimum)):
        version = first_below(rounds + 1, loss, floor + RESIDUAL)
        reached[label] = None if version is None else [version, *counts[version]]
    curve = [[version, loss(version) - minimum, *counts[version]]
             for version in range(0, rounds + 1, 100)]
    return {
        "name": name, "overrides": overrides, "init": init, "rounds": rounds, "small": small,
        "minimum": minimum, "own_minimum": own, "reached": reached, "curve": curve,
        "seconds": time.time() - started
    }


def number(value):
    return f"{value:.2e}".replace("e+0", "e")


def table(lines):
    """reached: [iterations, uploads, the papers' bits, payload bits]."""
    gd = next((line["reached"]["own"] for line in lines if line["name"] == "GD"), None)
    print(
        "| method | iterations | uploads | bits, b p an upload | GD : this | payload bits | GD : "
        "this "
        "| to f* + 1e-6: iterations, uploads, payload bits | published: iterations, uploads, bits |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for line in lines:
        own, star, published = line["reached"]["own"], line["reached"]["star"], PUBLISHED.get(
            line["name"])
        ratios = [f"{gd[2] / own[k]:.0f}" if gd and own else "" for k in (2, 3)]
        cells = (own[0], own[1], number(own[2]), ratios[0], number(own[3]),
                 ratios[1]) if own else ("",) * 6
        print(
            f"| {line['name']} `{line['overrides']}` | {' | '.join((str(cell) for cell in cells))} "
            f"| {(f'{star[0]}, {star[1]}, {number(star[3])}' if star else 'not reached')} | "
            f"{(papers_line(published) if published else '')} |"
        )


def papers_line(published):
    return f"{published[0]:,}, {published[1]:,}, {number(published[2])}"


def plot(lines, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for line in lines:
        points = [point for point in line["curve"] if point[1] > 0 and point[0]]
        left.semilogy([point[0] for point in points], [point[1] for point in points],
                      label=line["name"])
        right.loglog([point[4] for point in points], [point[1] for point in points],
                     label=line["name"])
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
    parser.add_argument("--rounds", type=int, default=4000,
                        help="as many as in the authors' code; default: %(default)s")
    parser.add_argument("--init", default="glorot_uniform", choices=["glorot_uniform", "zeros"],
                        help="theta_0: as the authors' code draws it, or 0; default: %(default)s")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", metavar="FILE")
    arguments = parser.parse_args()
    path = Path(arguments.out)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if arguments.table or arguments.plot:
        lines = sorted((line for line in lines if line["name"] in arguments.methods),
                       key=lambda line: list(METHODS).index(line["name"]))
        if arguments.table:
            table(lines)
        if arguments.plot:
            plot(lines, arguments.plot)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {(line["name"], line["overrides"], line["init"]) for line in lines}
    todo = [name for name in arguments.methods if (name, METHODS[name], arguments.init) not in done]
    if not todo:
        return
    samples = 6000 if arguments.small else 60000
    data = load_dataset("mnist")
    learner = Regression(data.x_train[:samples].reshape(samples, -1), data.y_train[:samples],
                         init=arguments.init)
    for name in todo:
        letters = "".join(letter for letter in name if letter.isalnum() or letter == ".")
        kept = path.with_name(f"{path.name}.{letters}.{arguments.init}.part")
        line = measure(name, METHODS[name], arguments.init, arguments.rounds, arguments.small,
                       learner, kept)
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
        kept.unlink()
        print(f"{name}: {line['reached']} in {line['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
