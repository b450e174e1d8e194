#!/usr/bin/env python3
"""A tree of masters, by simulation: a site's master is a worker to its parent. Its error and its
traffic beside one master with the same 10,000 workers.

    FLQ_DATA_DIR=DIR python benchmarks/tree.py --out tree --seeds 0 1 [--plot docs/scale_tree.png]

Quantisers, memories, rounds and broadcasts are FLQ's own. Softmax on MNIST, whose pixels are
averaged 2 by 2 (1,970 weights, convex); partition non_iid with dir_alpha 0.5 over 100 groups, each
dealt to 100 workers of about 6 samples; five steps over all samples, everybody in each round.

The root's broadcast reaches the workers through their site, byte for byte. They answer their site,
which keeps their references and makes v_s of them, as every master does. That is its update: it is
quantised beside the site's own memory and sent to the root, which makes v of the sites and steps.
With R rounds at a site, the site steps R times by itself and broadcasts in between, and its update
is what became of its model, as a worker's is.

Of each way: the accuracy of the averaged model; how far theta and its outputs for the test images
are from those of the run in float32 after as many worker rounds; the error of v against the mean of
the updates; payload bytes of each hop; and the root's processor time without HTTP. Each run is a
line of --out/runs.jsonl, played once. Prints a Markdown table, means over the seeds.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq import config, rng  # noqa: E402
from flq.algorithm import play, uplink  # noqa: E402
from flq.compression import codec  # noqa: E402
from flq.learning.datasets import load_dataset  # noqa: E402
from flq.learning.initial import initial_params  # noqa: E402
from flq.learning.partition import partition  # noqa: E402
from flq.parameters import Layout  # noqa: E402
from flq.records import LocalResult  # noqa: E402

GROUPS, WORKERS, SIDE, CLASSES = 100, 10000, 14, 10
STEPS, LOCAL_LR = 5, 1.0
LAYOUT = Layout(((SIDE * SIDE, CLASSES), (CLASSES,)))
NOTHING = np.zeros(0, np.float32)
FLOAT32 = ("mode=fedavg", "memory=none", "b_down=32")


class Way(NamedTuple):
    """sites: 0 is one master. workers, above: settings of the workers' uploads and broadcasts, and
    of the sites'. rounds: of a site for each of the root.
    """

    sites: int = 0
    workers: tuple = ("mode=laq",)
    above: tuple = ("mode=laq",)
    rounds: int = 1


WAYS = {
    "one master, float32": Way(workers=FLOAT32),
    "one master, laq": Way(),
    "one master, laq, float32 down": Way(workers=("mode=laq", "b_down=32")),
    "one master, float32 up": Way(workers=("mode=fedavg", "memory=none")),
    "100 sites, laq above": Way(100),
    "100 sites, laq8 above": Way(100, above=("mode=laq8",)),
    "100 sites, float32 above": Way(100, above=("mode=fedavg", "memory=none")),
    "10 sites, laq above": Way(10),
    "100 sites, laq above, 4 rounds at a site": Way(100, rounds=4),
}
REFERENCE = "one master, float32"


class Data:
    """The shards of all workers, group after group; padded, so that a group trains at once."""

    def __init__(self, seed, workers=WORKERS, groups=GROUPS):
        dataset = load_dataset("mnist")
        x, self._test = (_pooled(images, dataset.scale)
                         for images in (dataset.x_train, dataset.x_test))
        self._y_test, self._in_a_group = dataset.y_test, workers // groups
        settings = config.load(None, [f"total_workers={groups}", "partition=non_iid",
                                      "dir_alpha=0.5", f"seed={seed}",
                                      f"batch_size={self._in_a_group}"]).config
        deal = np.random.RandomState(seed)
        self.shards = [piece for shard in partition(dataset.y_train, None, settings)
                       for piece in np.array_split(deal.permutation(shard), self._in_a_group)]
        targets = np.eye(CLASSES, dtype=np.float32)[dataset.y_train]
        self._groups = [_Group(x, targets, self.shards[first:first + self._in_a_group])
                        for first in range(0, workers, self._in_a_group)]

    @property
    def num_samples(self):
        return [len(shard) for shard in self.shards]

    def train(self, params, first, last):
        """The updates of workers first..last-1, whole groups, each float32[p], from one model."""
        return [update for group in self._groups[first // self._in_a_group:
                                                 last // self._in_a_group]
                for update in group.train(params)]

    def accuracy(self, params):
        return float(np.mean(_outputs(self._test, params).argmax(axis=1) == self._y_test))


class _Group:
    """The samples of some workers, as many places for each; a place beyond the end of a shard
    weighs nothing.

    Each gradient is a sum of a worker's few samples, so the logits of its steps follow from the
    products of its samples with each other: the same descent, with fewer products.
    """

    def __init__(self, x, targets, shards):
        longest = max(map(len, shards))
        index = np.array([np.resize(shard, longest) for shard in shards])
        self._x, self._targets = x[index], targets[index]
        self._weights = np.array([np.where(np.arange(longest) < len(shard), 1 / len(shard), 0)
                                  for shard in shards], np.float32)[..., None]
        self._across = self._x.transpose(0, 2, 1)
        self._products = self._x @ self._across + np.float32(1)  # 1: of the biases

    def train(self, params):
        """STEPS steps of every worker; -> the means of its gradients, float32[workers, p]."""
        logits, errors = _outputs(self._x, params), np.zeros_like(self._targets)
        for _ in range(STEPS):
            error = (_softmax(logits) - self._targets) * self._weights
            logits -= np.float32(LOCAL_LR) * (self._products @ error)
            errors += error
        errors /= np.float32(STEPS)
        kernels = (self._across @ errors).reshape(len(errors), -1)
        return np.concatenate([kernels, errors.sum(axis=1)], axis=1)


def _pooled(images, scale):
    """uint8[n, 28, 28, 1] -> float32[n, 196], the means of 2 by 2 pixels."""
    blocks = images.reshape(len(images), SIDE, 2, SIDE, 2).mean(axis=(2, 4), dtype=np.float32)
    return blocks.reshape(len(images), -1) / np.float32(scale)


def _parts(params):
    return params[:-CLASSES].reshape(-1, CLASSES), params[-CLASSES:]


def _outputs(images, params):
    kernel, bias = _parts(params)
    return images @ kernel + bias


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class Level:
    """A master and those below it, which are workers to it, whatever they are."""

    def __init__(self, run, words, num_samples, steps, seed, first=0):
        self._config = config.load(None, [
            f"total_workers={len(num_samples)}", "quorum=all", "cohorts=1",
            f"local_steps={steps}", f"local_lr={LOCAL_LR}", f"seed={seed}", *words]).config
        self._settings = uplink.settings_from(self._config, LAYOUT)
        self._steps, self._first, self._seed = steps, first, seed
        params = initial_params(LAYOUT, self._config.model.init, seed)
        self._position = play.begin(run, self._config, LAYOUT, params, NOTHING, num_samples)

    @property
    def model(self):
        return self._position.model

    def start_from(self, params):
        """The next round starts from a model of the level above, which all below it hold."""
        self._position = self._position._replace(
            model=self.model._replace(params=params, broadcast=params))

    def close(self, updates):
        """A round with the update of each; -> (bytes up of all, bytes of the broadcast, v)."""
        model, settings = self.model, self._settings
        terms = play.lazy_terms(self._config, model, 0)  # nobody is lazy
        proposals = []
        for number, update in enumerate(updates):
            draw = rng.Stream(self._seed, rng.UPLINK, self._first + number,
                              model.version).uniform
            proposals.append(uplink.propose(
                self._position.uplinks[number], LocalResult(update, NOTHING, 1.0, self._steps),
                model.version, settings, terms, draw))
        answers = [(proposal, play.ACCEPTED) for proposal in proposals]
        started = time.process_time()
        self._position, closed = play.close(self._position, answers, self._config, LAYOUT,
                                            settings, lambda _: self._steps)
        self.closing_s = time.process_time() - started
        body = codec.to_body(closed.encoded, bool(self._config.flq_algorithm.entropy_coding_down),
                             closed.history)
        return (sum(len(proposal.body.data) for proposal in proposals), len(body.data),
                (model.params - self.model.params) / np.float32(closed.server_lr))


class Tree:
    """All levels. One master: the root's workers are the workers themselves."""

    def __init__(self, way, data, seed):
        self._way, self._data = way, data
        samples = data.num_samples
        if not way.sites:
            self.root, self._sites = Level("root", way.workers, samples, STEPS, seed), []
            return
        self._ranges = [(part[0], part[-1] + 1)
                        for part in np.array_split(np.arange(len(samples)), way.sites)]
        # A site's model is the root's again after each round, so an average would follow nothing.
        self._sites = [Level(f"site-{first}", (*way.workers, "averaging=0"), samples[first:last],
                             STEPS, seed, first) for first, last in self._ranges]
        self.root = Level("root", way.above,
                          [sum(samples[first:last]) for first, last in self._ranges],
                          STEPS * way.rounds, seed)

    def play(self):
        """A round of the root -> what travelled, and the error of v."""
        if not self._sites:
            updates = self._data.train(self.root.model.broadcast, 0, len(self._data.num_samples))
            up, down, v = self.root.close(updates)
            return {"worker_up": up / len(updates), "worker_down": down, "root_up": up,
                    "root_down": down * len(updates),
                    "error": _error(v, updates, self._data.num_samples)}
        start, all_updates, ups = self.root.model.broadcast, [], []
        sent = got = 0.0
        for site, (first, last) in zip(self._sites, self._ranges):
            site.start_from(start)
            for number in range(self._way.rounds):
                updates = self._data.train(site.model.broadcast, first, last)
                up, down, _ = site.close(updates)
                sent += up / len(self._data.num_samples)
                # What follows the last round is the root's broadcast, not the site's.
                got += (number < self._way.rounds - 1) * down / len(self._sites)
            all_updates.extend(updates)
            ups.append((start - site.model.params)
                       / np.float32(LOCAL_LR * STEPS * self._way.rounds))
        up, down, v = self.root.close(ups)
        error = _error(v, all_updates, self._data.num_samples) if self._way.rounds == 1 else None
        return {"worker_up": sent, "worker_down": got + down, "root_up": up,
                "root_down": down * len(ups), "error": error}


def _error(v, updates, weights):
    """||v - mean|| / ||mean||, the mean of the updates by their samples."""
    mean = np.average(np.array(updates, np.float64), axis=0, weights=weights)
    return float(np.linalg.norm(v - mean) / np.linalg.norm(mean))


def measure(name, seed, arguments):
    """The line of one run; its model is a file beside it."""
    way, data = WAYS[name], Data(seed, arguments.workers, arguments.groups)
    tree, played, curve, closing = Tree(way, data, seed), [], [], []
    for _ in range(arguments.rounds // way.rounds):
        played.append(tree.play())
        closing.append(tree.root.closing_s)
        curve.append(data.accuracy(tree.root.model.result.params))
    np.save(model_file(arguments.out, name, seed), tree.root.model.params)
    # The first rounds fill the references.
    later = [round_["error"] for round_ in played[len(played) // 2:]]
    return {"way": name, "seed": seed, "rounds": len(played), "accuracy": curve,
            "closing_ms": 1e3 * statistics.median(closing),
            "error": None if None in later else statistics.mean(later),
            **{what: statistics.mean(round_[what] for round_ in played)
               for what in ("worker_up", "worker_down", "root_up", "root_down")}}


def model_file(out, name, seed):
    return out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}.npy"


def row(name, lines, out, images):
    """A line of the table, means over the seeds of a way. images: float32[n, 196], of the test."""
    def mean(value, form):
        values = [value(line) for line in lines]
        return "" if None in values else form.format(statistics.mean(values))

    def distance(line, of=lambda params: params):
        own, other = (of(np.load(model_file(out, which, line["seed"])))
                      for which in (name, REFERENCE))
        return float(np.linalg.norm(own - other) / np.linalg.norm(other))

    last = [line["accuracy"][-1] for line in lines]
    return (f"| {name} | {statistics.mean(last):.4f} ({min(last):.4f} to {max(last):.4f}) | "
            f"{mean(distance, '{:.1e}')} | "
            f"{mean(lambda line: distance(line, lambda w: _outputs(images, w)), '{:.1e}')} | "
            f"{mean(lambda line: line['error'], '{:.1e}')} | "
            f"{mean(lambda line: line['worker_up'], '{:,.0f}')} | "
            f"{mean(lambda line: line['worker_down'], '{:,.0f}')} | "
            f"{mean(lambda line: line['root_up'] / 1e3, '{:,.1f}')} | "
            f"{mean(lambda line: line['root_down'] / 1e3, '{:,.1f}')} | "
            f"{mean(lambda line: line['closing_ms'], '{:,.1f}')} |")


def plot(lines, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name in WAYS:
        found = [line for line in lines if line["way"] == name]
        if found:
            curve = np.mean([line["accuracy"] for line in found], axis=0)
            a_round = statistics.mean(line["root_up"] + line["root_down"] for line in found)
            axes.semilogx(a_round * np.arange(1, len(curve) + 1) / 1e6, curve, label=name)
    axes.set_xlabel("payload through the root's link, MB")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=120)


def main(given=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of what was measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, default=20, help="of each worker")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--groups", type=int, default=GROUPS, help="of workers with like data")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args(given)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in arguments.seeds:
        for name in dict.fromkeys([REFERENCE, *arguments.ways]):
            if not any((line["way"], line["seed"]) == (name, seed) for line in lines):
                lines.append(measure(name, seed, arguments))
                with open(file, "a") as out:
                    out.write(json.dumps(lines[-1]) + "\n")
                print(f"{name}, seed {seed}: {lines[-1]['accuracy'][-1]:.4f}", file=sys.stderr,
                      flush=True)
    dataset = load_dataset("mnist")
    images = _pooled(dataset.x_test, dataset.scale)
    print("| way | accuracy (seeds) | theta beside float32 | its outputs | error of v "
          "| a worker up, B | down, B | the root in, kB | out, kB | its processor ms |\n"
          + "|---" * 10 + "|")
    for name in WAYS:
        found = [line for line in lines if line["way"] == name and line["seed"] in arguments.seeds]
        if found:
            print(row(name, found, arguments.out, images))
    if arguments.plot:
        plot(lines, arguments.plot)


if __name__ == "__main__":
    main()
