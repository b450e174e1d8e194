#!/usr/bin/env python3
"""What decision 43 rests on: one malloc arena against one for each thread, and what it costs to
draw the order of a round's samples and to gather a batch.

    python benchmarks/worker_costs.py [--data_dir D] [--turns 2]

Each arena setting is a process of its own, in turn: the cnn's local update and its quantising on a
quarter of Fashion-MNIST, medians of processor time over seven rounds, and the largest resident
size. Also on Python 3.6.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

SETTINGS = ["dataset.name=fmnist", "model.name=cnn", "mode=laq8", "total_workers=4"]
ROUNDS, WARM = 7, 2


def median_ms(times):
    return 1e3 * sorted(times)[len(times) // 2]


def rounds(how):
    """One row: a worker's rounds without its master."""
    from flq.host import heap
    heap.keep_freed_memory(one_arena=how == "one")
    from flq import config, rng
    from flq.algorithm import uplink
    from flq.algorithm.lazy import LazyTerms
    from flq.learning.learner import build_learner
    settings = config.load(None, SETTINGS).config
    learner = build_learner(settings, [0], evaluate=False)
    heap.give_back_free_memory()
    terms = LazyTerms(**dict.fromkeys(LazyTerms._fields, 0))
    own = uplink.settings_from(settings, learner.layout)
    held = uplink.initial_state(own, learner.layout.num_params, settings.flq_algorithm.b_up,
                                bytes(32))
    params, non_trainable = learner.initial()
    training, quantising = [], []
    for round_ in range(WARM + ROUNDS):
        started = time.process_time()
        result = learner.local_update(params, non_trainable, 0, round_)
        trained = time.process_time()
        proposal = uplink.propose(held, result, round_, own, terms,
                                  rng.Stream(0, rng.UPLINK, 0, round_).uniform)
        held = uplink.settle(proposal, True)
        training.append(trained - started)
        quantising.append(time.process_time() - trained)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(f"| {sys.version.split()[0]} | {how} | {median_ms(training[WARM:]):.0f} | "
          f"{median_ms(quantising[WARM:]):.1f} | {peak:.0f} |")


def orders():
    import numpy as np
    import tensorflow as tf

    from flq.learning.batches import batch_orders
    print("\n| drawn | processor ms |\n|---|---|")
    for samples, epochs, steps in ((15000, None, 5), (60000, None, 5), (60000, 5, None)):
        rows, times = np.arange(samples, dtype=np.int32), []
        for round_ in range(41):
            started = time.process_time()
            rows[batch_orders(samples, 32, epochs, steps, 0, 1, round_)[0]]
            times.append(time.process_time() - started)
        what = f"{steps} steps" if epochs is None else f"{epochs} epochs"
        print(f"| order of {samples} samples, {what} | {median_ms(times):.2f} |")
    images = tf.identity(np.zeros((15000, 28, 28, 1), np.uint8))

    def gather(places):
        return tf.cast(tf.gather(images, places), tf.float32) / 255.0

    for what, function in (("32 images gathered, float32", gather), ("an empty call", lambda x: x)):
        compiled, times = tf.function(function), []
        for _ in range(201):
            places = tf.constant(np.random.randint(0, 15000, 32).astype(np.int32))
            started = time.process_time()
            compiled(places)
            times.append(time.process_time() - started)
        print(f"| {what} | {median_ms(times):.2f} |")


def main():
    parser = argparse.ArgumentParser(description="what decision 43 rests on")
    parser.add_argument("--data_dir", help="where fmnist.npz lies (default: FLQ_DATA_DIR)")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--how", choices=("one", "many"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    if arguments.data_dir:
        os.environ["FLQ_DATA_DIR"] = arguments.data_dir
    if arguments.how:
        rounds(arguments.how)
        return
    print("| Python | arenas | local update, processor ms | quantise, processor ms | largest MB |")
    print("|---|---|---|---|---|", flush=True)
    for how in ("one", "many") * arguments.turns:
        subprocess.run([sys.executable, "-W", "ignore", __file__, "--how", how],
                       stderr=subprocess.DEVNULL, check=True)
    orders()


if __name__ == "__main__":
    main()
