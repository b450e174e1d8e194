#!/usr/bin/env python3
"""Damaged streams of levels beside a history: each is refused by name or gives levels of the grid.

    python benchmarks/fuzz_history.py --inputs 1000000 --results build/fuzz.jsonl

Good streams of drawn levels, of every kind of grid, are flipped, cut, lengthened, overwritten and
glued together; some keep the check in front, so that what is behind it is reached. They come in
frames whose CRC is right, as broadcasts and as uploads in turn; those that are too long for a frame
go to the decoder without one. Nothing may be raised but a
FrameError with one of the documented reasons. Prints how many were refused with which, how many
were read, and the longest time of one.

Every 10,000 inputs are drawn from a seed of their own and are a line of the results file; they are
not tried again when the script is started again with it.
"""

import argparse
import collections
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq.compression import QUANTIZERS, contexts  # noqa: E402
from flq.compression.codec import Body  # noqa: E402
from flq.errors import FrameError  # noqa: E402
from flq.parameters import Layout  # noqa: E402
from flq.protocol import frames  # noqa: E402

GRIDS = [("bin", 1, 1), ("bbit", 2, 2), ("bbit", 3, 6), ("laq", 4, 15), ("rd", 8, 254),
         ("bbit", 16, 65534)]
COUNT, BLOCK = 96, 10000
LAYOUT = Layout(((COUNT,),))
REASONS = {"bad_coding", "bad_level", "dirty_padding", "other_history"}
TERMS = {frames.BROADCAST_KIND: frames.RoundTerms(0.0, 0.0, 1.0, 0.0, 100, 0),
         frames.UPLOAD_KIND: frames.UploadTerms(1.0, 1.0, 1.0, 0)}


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


def block_of(seed, inputs):
    """What became of so many inputs."""
    random, told, longest = np.random.RandomState(seed), collections.Counter(), 0.0
    for index in range(inputs):
        if index % 50 == 0:
            name, bits, top = GRIDS[index // 50 % len(GRIDS)]
            activity, stream = good(random, bits, top)
            expected = frames.Expected("fuzz", LAYOUT, LAYOUT.sizes, activity=activity)
        kind = frames.UPLOAD_KIND if index % 2 else frames.BROADCAST_KIND
        coded = damaged(random, stream)
        body = Body(np.float32(1).tobytes() + coded, True, True)
        data = frames.pack(frames.Content(QUANTIZERS[name], bits, body, np.zeros(0, np.float32)),
                           frames.Place(1, 0, bytes(8)), TERMS[kind], expected)
        start = time.process_time()
        try:
            try:
                levels = frames.unpack(data, kind, expected).encoded.levels
            except FrameError as refusal:
                if refusal.reason != "bad_length":
                    raise
                levels = contexts.decompress(coded, bits, top, activity)
        except FrameError as refusal:
            assert refusal.reason in REASONS, refusal
            told[refusal.reason] += 1
        else:
            assert levels.shape == (COUNT,) and int(levels.max()) <= top, data.hex()
            told["read"] += 1
        longest = max(longest, time.process_time() - start)
    return {"seed": seed, "inputs": inputs, "told": told, "ms": 1000 * longest}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=0, help="of the first 10,000")
    parser.add_argument("--results", help="one line for each 10,000 inputs")
    arguments = parser.parse_args()
    path = Path(arguments.results) if arguments.results else None
    lines = path.read_text().splitlines() if path and path.exists() else []
    known = {(found["seed"], found["inputs"]): found for found in map(json.loads, lines)}
    told, longest = collections.Counter(), 0.0
    for start in range(0, arguments.inputs, BLOCK):
        key = arguments.seed + start // BLOCK, min(BLOCK, arguments.inputs - start)
        found = known.get(key)
        if found is None:
            found = block_of(*key)
            if path:
                with open(path, "a") as file:
                    file.write(json.dumps(found) + "\n")
        told.update(found["told"])
        longest = max(longest, found["ms"])
    print(f"{arguments.inputs} inputs: {dict(told)}; the longest took {longest:.1f} ms")


if __name__ == "__main__":
    main()
