#!/usr/bin/env python3
"""What a worker really quantises: proposals of the cnn on Fashion-MNIST, for benchmarks/rate_distortion.py.

    FLQ_DATA_DIR=... python benchmarks/real_updates.py --out build/real_updates.npz

5 workers, Dirichlet 0.1, 5 local steps of batch 64, mode rd with its reference, seed 0; of worker 0 in rounds 0, 10 and 30: its update
u, and its innovation d = u - h, which is what goes to the quantiser. The file holds float32[p] each, and the sizes of the tensors.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config, rng  # noqa: E402
from flq.algorithm import uplink  # noqa: E402
from flq.algorithm.lazy import LazyTerms  # noqa: E402

TASK = ["dataset.name=fmnist", "total_workers=5", "partition=non_iid", "dir_alpha=0.1", "model.name=cnn", "batch_size=64", "local_steps=5",
        "mode=rd", "radius=tensor", "b_down=4", "quorum=all", "log_level=ERROR", "save_results=false"]
ROUNDS = (0, 10, 30)
WORKER = 0


class Recording(object):
    """A learner that keeps the updates of one worker."""

    def __init__(self, learner):
        self._learner = learner
        self.results = []

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def local_update(self, params, state, worker, round_):
        result = self._learner.local_update(params, state, worker, round_)
        if worker == WORKER:
            self.results.append(result)
        return result


def innovations(settings, layout, results):
    """d = u - h of each round: every upload of this run is selected, so h is the sum of what was proposed."""
    terms = LazyTerms(0.0, 0.0, 100, 1, 0.0, 1.0)
    uplink_settings = uplink.settings_from(settings, layout)
    state = uplink.initial_state(uplink_settings, layout.num_params, settings.flq_algorithm.b_up, bytes(32))
    for round_, result in enumerate(results):
        yield (result.update - state.memory).astype(np.float32)
        draw = rng.Stream(settings.dataset.seed, rng.UPLINK, WORKER, round_).uniform
        state = uplink.settle(uplink.propose(state, result, round_, uplink_settings, terms, draw), True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="the NPZ file to write")
    arguments = parser.parse_args()
    from flq.learning.learner import build_learner
    from flq.simulation.run import simulate
    settings = config.load(None, TASK + ["max_rounds={}".format(max(ROUNDS) + 1), "eval_every=1000000"]).config
    learner = Recording(build_learner(settings, range(settings.system.total_workers), evaluate=True, replicas=os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as folder:
        _, run = simulate(settings, os.path.join(folder, "run"), learner)
    vectors = {"sizes": np.array(learner.layout.sizes)}
    for round_, d in enumerate(innovations(settings, learner.layout, learner.results)):
        if round_ in ROUNDS:
            vectors["update_{}".format(round_)] = learner.results[round_].update
            vectors["innovation_{}".format(round_)] = d
    os.makedirs(os.path.dirname(os.path.abspath(arguments.out)), exist_ok=True)
    np.savez(arguments.out, **vectors)
    print("{}: p = {}, rounds {}, accuracy after them {:.3f}".format(
        arguments.out, learner.layout.num_params, ROUNDS, run.summary["accuracy"]))


if __name__ == "__main__":
    main()
