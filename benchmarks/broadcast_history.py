#!/usr/bin/env python3
"""What coding beside a history saves: bits a weight of a run's own broadcasts or uploads, each
coded in every way, and the milliseconds of it.

    FLQ_DATA_DIR=... python benchmarks/broadcast_history.py --out build/history.jsonl
    python benchmarks/broadcast_history.py --out build/history.jsonl --table
    FLQ_DATA_DIR=... python benchmarks/broadcast_history.py --up --out build/up.jsonl
    OMP_NUM_THREADS=1 python benchmarks/broadcast_history.py --times

Task: Fashion-MNIST, 20 workers, Dirichlet 0.1, 5 local steps of 0.1 with batches of 64, mode rd;
rounds by flq/algorithm/play.py, which are those of a simulation. Every broadcast is coded by
codec.to_body as with entropy_coding_down: true and beside its history alone (context sends the
shorter one), read back, and compared with two entropies: of the levels (order 0), and of the levels
in each of the 16 classes that the coder makes. --up: the uploads of all workers instead, each
beside what that worker committed before (entropy_coding: context). More settings with --set; a run
is one line of the file.

--times: of 467,818 levels of three bits whose weights move more and less, as the broadcasts' do;
processor time, the smallest and the median of --repeats, after a history of 12 rounds.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config  # noqa: E402
from flq.algorithm import play, uplink  # noqa: E402
from flq.compression import QUANTIZERS, codec, contexts, entropy  # noqa: E402
from flq.compression.codec import Encoded  # noqa: E402
from flq.host import heap  # noqa: E402

P = 467818
TASK = [
    "dataset.name=fmnist", "total_workers=20", "partition=non_iid", "dir_alpha=0.1",
    "batch_size=64", "local_steps=5", "local_lr=0.1", "mode=rd", "quorum=all",
    "cohorts=1", "memory_rate=1", "averaging=0",
    "entropy_coding_down=context", "entropy_coding=context"
]
COLUMNS = ("true", "history", "sent", "order 0", "classes")


def order_0(levels):
    """The bits of the levels at their entropy."""
    counts = np.unique(levels, return_counts=True)[1]
    return float(-(counts * np.log2(counts / levels.size)).sum())


def of_classes(levels, activity):
    """The same, class by class, as contexts.py makes them."""
    in_order, start, bits = levels[np.argsort(activity, kind="stable")], 0, 0.0
    classes = max(1, min(contexts.CLASSES, levels.size // contexts.SMALLEST_CLASS))
    for index in range(classes):
        end = levels.size * (index + 1) // classes
        bits += order_0(in_order[start:end])
        start = end
    return bits


def measure(encoded, activity, sizes):
    """Bits a weight of one broadcast, by column."""
    bodies = codec.to_body(encoded, True), codec.to_body(encoded, False, activity)
    for body in bodies:
        back = codec.from_body(body, encoded.quantizer, encoded.bits, sizes, activity)
        assert back.levels.tolist() == encoded.levels.tolist(), "what was coded comes back"
    bits = [8 * len(body.data) for body in bodies]
    bits.append(min(bits))
    bits += [order_0(encoded.levels), of_classes(encoded.levels, activity)]
    return dict(zip(COLUMNS, [count / encoded.levels.size for count in bits]))


def measure_uploads(position, played, up):
    """The mean over the uploads of a round; up: UplinkSettings."""
    found = []
    for before, proposal in zip(position.uplinks, played.proposals):
        encoded = codec.from_body(proposal.body, up.quantizer, proposal.bits, up.sizes,
                                  before.activity)
        found.append(measure(encoded, before.activity, up.sizes))
    return {name: statistics.mean(one[name] for one in found) for name in COLUMNS}


def train(settings, learner, every, uploads):
    """The run's measured rounds, each a dictionary, with the accuracy after it."""
    up = uplink.settings_from(settings, learner.layout)
    layout, workers = learner.layout, range(settings.system.total_workers)
    position = play.begin("broadcast_history", settings, layout, *learner.initial(),
                          [learner.num_samples(worker) for worker in workers])
    measured = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        for round_ in range(settings.system.max_rounds):
            model = position.model
            results = list(threads.map(
                lambda worker, at=model: learner.local_update(at.broadcast, at.non_trainable,
                                                              worker, at.version), workers))
            played = play.play_round(position, results, settings, layout,
                                     lambda _: settings.model.local_steps)
            found = measure_uploads(position, played, up) if uploads else measure(
                played.closed.encoded, played.closed.history, layout.sizes)
            position, line = played.position, dict(found, round=round_ + 1, accuracy=None)
            if (round_ + 1) % every == 0:
                after = position.model
                line["accuracy"] = learner.evaluate(after.broadcast, after.non_trainable).accuracy
                print(line, flush=True)
            measured.append(line)
    return measured


def table(lines, every):
    print("| run | rounds | true | beside the history | saved | context | order 0 | by class | "
          "accuracy |\n|---|---|---|---|---|---|---|---|---|")
    for line in lines:
        for start in range(0, len(line["measured"]), every):
            part = line["measured"][start:start + every]
            mean = {name: statistics.mean(row[name] for row in part) for name in COLUMNS}
            cells = [f"{mean[name]:.3f}" for name in COLUMNS]
            cells.insert(2, f"{100 * (1 - mean['sent'] / mean['true']):.0f} %")
            accuracy = part[-1]["accuracy"]
            print(f"| `{' '.join(line['settings'])}` | {start + 1} to {start + len(part)} | " +
                  " | ".join(cells) + (f" | {accuracy:.3f} |" if accuracy is not None else " | |"))


def times(repeats):
    """Milliseconds of the coder and of today's, on levels of three bits."""
    heap.keep_freed_memory()
    random = np.random.RandomState(0)
    spread = 0.2 * np.exp(random.standard_normal(P))
    activity, quantizer = contexts.initial_activity(P), QUANTIZERS["bbit"]

    def draw_levels():
        steps = np.rint(random.laplace(size=P) * spread)
        return (np.clip(steps, -3, 3) + 3).astype(np.uint8)

    for _ in range(12):
        activity = contexts.next_activity(activity, draw_levels(), 6)
    encoded = Encoded(quantizer, 3, np.ones(1, np.float32), draw_levels())
    print(measure(encoded, activity, (P,)))
    streams = contexts.compress(encoded.levels, 3, 6, activity), entropy.compress(encoded.levels, 6)
    for name, act in (
            ("encode", lambda: contexts.compress(encoded.levels, 3, 6, activity)),
            ("decode", lambda: contexts.decompress(streams[0], 3, 6, activity)),
            ("next activity", lambda: contexts.next_activity(activity, encoded.levels, 6)),
            ("today's encode", lambda: entropy.compress(encoded.levels, 6)),
            ("today's decode", lambda: entropy.decompress(streams[1], P, 3, 6))):
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            act()
            spent.append(1000 * (time.process_time() - start))
        print(f"{name}: {min(spent):.1f} ms, median {statistics.median(spent):.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--up", action="store_true", help="uploads instead of broadcasts")
    parser.add_argument("--every", type=int, default=10, help="rounds of a row of the table")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--times", action="store_true")
    arguments = parser.parse_args()
    if arguments.times:
        times(arguments.repeats)
        return
    if not arguments.out:
        parser.error("--out FILE, or --times")
    path = Path(arguments.out)
    if arguments.table:
        table([json.loads(line) for line in path.read_text().splitlines()], arguments.every)
        return
    from flq.learning.learner import build_learner
    settings = config.load(None, TASK + arguments.settings).config
    learner = build_learner(settings, range(settings.system.total_workers), evaluate=True,
                            replicas=os.cpu_count() or 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"settings": arguments.settings,
            "measured": train(settings, learner, arguments.every, arguments.up)}
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
