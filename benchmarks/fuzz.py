#!/usr/bin/env python3
"""Damaged frames and streams of levels: each is refused by name or gives numbers of the right form.

    nice -n 19 python benchmarks/fuzz.py --inputs 1000000 --results build/fuzz.jsonl

Good frames of every quantiser, of drawn widths, with plain levels, coded ones, ones that are coded
beside a history, scales of blocks and keyframes, as broadcasts and as uploads, are flipped, cut,
lengthened, overwritten and glued together. Three kinds of input take turns: `frame` is damaged
anywhere, most of them with a CRC that is right again; `body` only behind a good header, whose
lengths are those of what came; `answer` is a sequence of frames that a worker is to follow from the
model that it holds. Nothing may be raised but a FrameError with one of the documented reasons, and
of an answer a ProtocolError. Prints how many were refused with which, how many were read, the
longest time of one, and by how much the memory of the process grew.

Every 10,000 inputs are drawn from a seed of their own and are a line of the results file; they are
not tried again when the script is started again with it.
"""

import argparse
import collections
import json
import resource
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq.algorithm import downlink  # noqa: E402
from flq.compression import QUANTIZERS, codec, contexts  # noqa: E402
from flq.errors import FrameError, ProtocolError  # noqa: E402
from flq.parameters import Layout, params_hash  # noqa: E402
from flq.protocol import frames  # noqa: E402
from flq.worker.received import Held, receive  # noqa: E402

LAYOUT, BLOCK = Layout(((8, 10), (16,)), ((3,),)), 10000
P = LAYOUT.num_params
KINDS = ("frame", "body", "answer")
REASONS = {
    "frame_short", "frame_long", "bad_magic", "bad_version", "bad_kind", "other_run",
    "other_shapes", "bad_count", "bad_quantizer", "bad_flags", "bad_bits", "bad_length", "bad_crc",
    "bad_terms", "bad_state", "bad_scale", "bad_coding", "bad_level", "bad_value", "dirty_padding",
    "other_history", "body_short", "body_long"
}
TERMS = {frames.BROADCAST_KIND: frames.RoundTerms(0.0, 0.0, 1.0, 0.0, 100, 0),
         frames.UPLOAD_KIND: frames.UploadTerms(1.0, 1.0, 1.0, 0)}


class Good:
    """A frame that both sides accept, and what it was made of."""

    def __init__(self, random):
        self.kind = [frames.BROADCAST_KIND, frames.UPLOAD_KIND][random.randint(2)]
        self.quantizer = QUANTIZERS[sorted(QUANTIZERS)[random.randint(len(QUANTIZERS))]]
        if self.quantizer.by_scale is not None and random.randint(3) == 0:
            self.quantizer = self.quantizer._replace(block_size=16)
        self.bits = random.randint(self.quantizer.min_bits, self.quantizer.max_bits + 1)
        history = self.bits <= 16 and random.randint(2) == 0
        self.activity = random.randint(0, 256, P).astype(np.uint8) if history else None
        vector = (random.standard_t(2, P) * random.choice([1e-3, 1.0, 1e3])).astype(np.float32)
        encoded = codec.encode(self.quantizer, vector, LAYOUT.sizes, self.bits,
                               random.random_sample, self.activity)
        self.body = codec.to_body(encoded, random.randint(2) == 0, self.activity)
        self.expected = frames.Expected("fuzz", LAYOUT, LAYOUT.sizes, activity=self.activity)
        self.params = random.standard_normal(P).astype(np.float32)
        self.state = random.standard_normal(3).astype(np.float32)
        self.held = Held(3, self.params, self.state, params_hash(self.params, self.state),
                         self.activity)
        self.data = self.pack(self.body)

    def pack(self, body):
        content = frames.Content(self.quantizer, self.bits, body, self.state)
        return frames.pack(content, frames.Place(4, 3, self.new_hash()), TERMS[self.kind],
                           self.expected)

    def new_hash(self):
        """Of the model that this frame, as a broadcast, leads to."""
        encoded = codec.from_body(self.body, self.quantizer, self.bits, LAYOUT.sizes, self.activity)
        with np.errstate(over="ignore", invalid="ignore"):
            return params_hash(downlink.apply(self.params, encoded, LAYOUT.sizes), self.state)

    def keyframe(self):
        content = frames.Content(QUANTIZERS["fedavg"], 32,
                                 downlink.keyframe(self.params, LAYOUT.sizes), self.state,
                                 self.activity)
        return frames.pack(content, frames.Place(4, 4, self.held.params_hash, keyframe=True),
                           TERMS[frames.BROADCAST_KIND], self.expected)


def damaged(random, stream, kept):
    """Another stream. kept: bytes at its beginning that most of them keep."""
    data = bytearray(stream)
    for _ in range(random.randint(1, 4)):
        first = min(kept, len(data)) if random.random_sample() < 0.95 else 0
        place = random.randint(first, len(data) + 1)
        how = random.randint(6)
        noise = random.bytes(random.randint(1, 8))
        if how == 0 and place < len(data):
            data[place] ^= 1 << random.randint(8)
        elif how == 1:
            data[place:place] = noise
        elif how == 2:
            del data[place:place + len(noise)]
        elif how == 3:
            data[place:place + len(noise)] = noise
        elif how == 4:
            data[place:place + 4] = struct.pack("<f", random.choice([np.nan, np.inf, -1, 3e38, 0]))
        else:
            data[place:] = stream[random.randint(len(stream)):]
    return bytes(data)


def mended(data, kind):
    """The same bytes with the CRC and the length of what they are."""
    start = frames.header_length(kind)
    if len(data) < start:
        return data
    place = struct.calcsize("<" + "".join(code for _, code, _ in frames.COMMON)) - 8
    head = data[:place] + struct.pack("<Q", len(data) - start) + data[place + 8:start - 4]
    return head + struct.pack("<I", zlib.crc32(data[start:], zlib.crc32(head))) + data[start:]


def try_frame(random, good):
    data = damaged(random, good.keyframe() if random.randint(8) == 0 else good.data, 0)
    if random.random_sample() < 0.9:
        data = mended(data, good.kind)
    frame, _ = frames.unpack_first(data, good.kind, good.expected)
    check_frame(frame)


def try_body(random, good):
    body = good.body
    kept = 4 * codec.num_scales(good.quantizer, LAYOUT.sizes) + 4 * body.beside_history
    data = damaged(random, body.data, kept)
    try:
        frame = frames.unpack(good.pack(body._replace(data=data)), good.kind, good.expected)
    except FrameError as refusal:
        if refusal.reason != "bad_length" or not body.coded:
            raise
        # too long for a frame: the decoders are asked without one
        split = 4 * codec.num_scales(good.quantizer._replace(block_size=0), LAYOUT.sizes)
        top = good.quantizer.max_level(good.bits)
        if body.beside_history:
            levels = contexts.decompress(data[split:], good.bits, top, good.activity)
        else:
            levels = codec.CODERS[good.quantizer.coder].decompress(data[split:], P, good.bits, top)
        assert levels.shape == (P,)
    else:
        check_frame(frame)


def check_frame(frame):
    encoded = frame.encoded
    assert encoded.levels.shape == (P,) and frame.non_trainable.shape == (3,)
    assert encoded.bits == 32 or int(encoded.levels.max()) <= encoded.quantizer.max_level(
        encoded.bits)
    with np.errstate(over="ignore", invalid="ignore"):  # who uses them asks whether they are finite
        values = codec.decode(encoded, LAYOUT.sizes)
    assert values.shape == (P,) and values.dtype == np.float32


def try_answer(random, good):
    parts = [good.keyframe(), good.data][random.randint(2):]
    data = b"".join(parts)
    if random.randint(4):
        data = damaged(random, data, 0)
    held = good.held
    while data:
        held, _, data = receive(data, held, good.expected)
    assert np.isfinite(held.params).all() and held.params.shape == (P,)
    assert params_hash(held.params, held.non_trainable) == held.params_hash


TRY = {"frame": try_frame, "body": try_body, "answer": try_answer}


def block_of(seed, inputs):
    """What became of so many inputs."""
    random, told, longest = np.random.RandomState(seed), collections.Counter(), 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(inputs):
        if index % 50 == 0:
            good = Good(random)
        what = KINDS[index % len(KINDS)]
        start = time.process_time()
        try:
            TRY[what](random, good)
        except FrameError as refusal:
            assert refusal.reason in REASONS, refusal
            told[f"{what} {refusal.reason}"] += 1
        except ProtocolError as refusal:
            assert what == "answer" and refusal.name == "other_base", refusal
            told[f"{what} {refusal.name}"] += 1
        else:
            told[f"{what} read"] += 1
        longest = max(longest, time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seed": seed, "inputs": inputs, "told": told, "ms": 1000 * longest, "kib": grown}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=0, help="of the first 10,000")
    parser.add_argument("--results", help="one line for each 10,000 inputs")
    arguments = parser.parse_args()
    path = Path(arguments.results) if arguments.results else None
    lines = path.read_text().splitlines() if path and path.exists() else []
    known = {(found["seed"], found["inputs"]): found for found in map(json.loads, lines)}
    told, longest, grown = collections.Counter(), 0.0, 0
    for start in range(0, arguments.inputs, BLOCK):
        key = arguments.seed + start // BLOCK, min(BLOCK, arguments.inputs - start)
        found = known.get(key)
        if found is None:
            found = block_of(*key)
            if path:
                with open(path, "a") as file:
                    file.write(json.dumps(found) + "\n")
        told.update(found["told"])
        longest, grown = max(longest, found["ms"]), max(grown, found["kib"])
    print("| outcome | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS))
    for outcome in sorted({name.split()[1] for name in told}):
        print(f"| {outcome} | " + " | ".join(str(told[f"{what} {outcome}"]) for what in KINDS) +
              " |")
    print(f"{arguments.inputs} inputs; the longest took {longest:.1f} ms; memory grew by at most "
          f"{grown} KiB in {BLOCK}")


if __name__ == "__main__":
    main()
