#!/usr/bin/env python3
"""What a worker really quantises: proposals of the cnn on Fashion-MNIST, for
benchmarks/rate_distortion.py.

    FLQ_DATA_DIR=... python benchmarks/real_updates.py --out build/real_updates.npz

5 workers, Dirichlet 0.1, 5 local steps of batch 64, mode rd with its reference, seed 0; of worker 0
in rounds 0, 10 and 30: its update u, and its innovation d = u - h, which is what goes to the
quantiser. The file holds float32[p] each, and the sizes of the tensors.
"""

import argparse
import concurrent.futures
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config  # noqa: E402
from flq.algorithm.play import begin, play_round  # noqa: E402

TASK = [
    "dataset.name=fmnist", "total_workers=5", "partition=non_iid", "dir_alpha=0.1",
    "model.name=cnn", "batch_size=64", "local_steps=5", "mode=rd", "radius=tensor", "b_down=4",
    "memory_rate=1"
]
ROUNDS = (0, 10, 30)
WORKER = 0


def rounds(settings, learner):
    """Of each round its number, the update of the worker, its innovation d = u - h, and the model
    after it.
    """
    layout, workers = learner.layout, range(settings.system.total_workers)
    position = begin("real_updates", settings, layout, *learner.initial(),
                     [learner.num_samples(worker) for worker in workers])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        for round_ in range(max(ROUNDS) + 1):
            model, h = position.model, position.uplinks[WORKER].memory
            results = list(
                threads.map(
                    lambda worker, at=model: learner.local_update(at.broadcast, at.non_trainable,
                                                                  worker, at.version), workers))
            position = play_round(position, results, settings, layout,
                                  lambda _: settings.model.local_steps).position
            yield round_, results[WORKER].update, (results[WORKER].update - h).astype(
                np.float32), position.model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="the NPZ file to write")
    arguments = parser.parse_args()
    from flq.learning.learner import build_learner
    settings = config.load(None, TASK).config
    learner = build_learner(settings, range(settings.system.total_workers), evaluate=True,
                            replicas=os.cpu_count() or 1)
    vectors = {"sizes": np.array(learner.layout.sizes)}
    for round_, update, innovation, model in rounds(settings, learner):
        last = model
        if round_ in ROUNDS:
            vectors[f"update_{round_}"] = update
            vectors[f"innovation_{round_}"] = innovation
    accuracy = learner.evaluate(last.broadcast, last.non_trainable).accuracy
    os.makedirs(os.path.dirname(os.path.abspath(arguments.out)), exist_ok=True)
    np.savez(arguments.out, **vectors)
    print(
        f"{arguments.out}: p = {learner.layout.num_params}, rounds {ROUNDS}, accuracy after them "
        f"{accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
