#!/usr/bin/env python3
"""Damaged streams of levels beside a history: each is refused by name or gives levels of the grid.

    python benchmarks/fuzz_history.py --inputs 1000000

Good streams of drawn levels, of every kind of grid, are flipped, cut, lengthened, overwritten and
glued together; some keep the check in front, so that what is behind it is reached. Nothing may be
raised but a FrameError with one of the documented reasons. Prints how many were refused with which,
how many were read, and the longest time of one.
"""

import argparse
import collections
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq.compression import contexts  # noqa: E402
from flq.errors import FrameError  # noqa: E402

GRIDS = [(1, 1), (2, 2), (3, 6), (4, 15), (8, 254), (16, 65534)]
COUNT = 96
REASONS = {"bad_coding", "bad_level", "dirty_padding", "other_history"}


def good(random, bits, top):
    """An activity, and a stream that was coded beside it."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    activity = random.randint(0, 256, COUNT).astype(np.uint8)
    while True:
        steps = random.laplace(size=COUNT) * random.choice([0.1, 1.0, 3.0])
        levels = np.clip(np.floor(steps + top / 2 + 0.5), 0, top).astype(dtype)
        stream = contexts.compress(levels, bits, top, activity)
        if stream is not None:
            return activity, stream


def damaged(random, stream):
    """Another stream, most of them with the same check in front."""
    data = bytearray(stream)
    for _ in range(random.randint(1, 4)):
        kept = min(4, len(data)) if random.random_sample() < 0.95 else 0
        place = random.randint(kept, len(data) + 1)
        how = random.randint(5)
        noise = random.bytes(random.randint(1, 8))
        if how == 0 and place < len(data):
            data[place] ^= 1 << random.randint(8)
        elif how == 1:
            data[place:place] = noise
        elif how == 2:
            del data[place:place + len(noise)]
        elif how == 3:
            data[place:place + len(noise)] = noise
        else:
            data[place:] = stream[random.randint(len(stream)):]
    return bytes(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random, told, longest = np.random.RandomState(arguments.seed), collections.Counter(), 0.0
    for index in range(arguments.inputs):
        if index % 50 == 0:
            bits, top = GRIDS[index // 50 % len(GRIDS)]
            activity, stream = good(random, bits, top)
        data = damaged(random, stream)
        start = time.process_time()
        try:
            levels = contexts.decompress(data, bits, top, activity)
        except FrameError as refusal:
            assert refusal.reason in REASONS, refusal
            told[refusal.reason] += 1
        else:
            assert levels.shape == (COUNT,) and int(levels.max()) <= top, data.hex()
            told["read"] += 1
        longest = max(longest, time.process_time() - start)
    print(f"{arguments.inputs} inputs: {dict(told)}; the longest took {1000 * longest:.1f} ms")


if __name__ == "__main__":
    main()
