"""Scales of blocks: every block_size consecutive weights of a tensor share one (`radius: block`).

A block does not cross tensors; the last one of a tensor may be shorter. R is the largest scale of a
tensor's blocks and travels as float32; a block's own scale is R times one of 256 ratios:

    ratio(k) = (32 - k mod 16) / 2^(5 + k div 16)  for k < 255,  ratio(255) = 0

Neighbours differ by 3 to 6 %, and the smallest is 9/16 2^-15. The ratios are exact in float32 and
the product is rounded once, so that scales are the same on every machine.
"""

from typing import Iterator, NamedTuple, Sequence, Tuple

import numpy as np

from flq.compression import entropy
from flq.compression.quantizer import SMALLEST_SCALE, Draw, Quantizer, level_dtype
from flq.errors import FrameError

ZERO = 255
"""The code of a block whose scale is 0."""

RATIOS: np.ndarray = np.array(
    [(32 - code % 16) / 2.0**(5 + code // 16) for code in range(ZERO)] + [0.0], np.float32)
_LENGTH_BYTES = 4


class Quantized(NamedTuple):
    """A vector: R float32[T], the blocks' codes uint8[S], levels uint8 or uint16[p]."""

    largest: np.ndarray
    codes: np.ndarray
    levels: np.ndarray


def counts(sizes: Sequence[int], block_size: int) -> Tuple[int, ...]:
    """The number of blocks of each tensor."""
    return tuple(-(-size // block_size) for size in sizes)


def encode(quantizer: Quantizer, vector: np.ndarray, sizes: Sequence[int], bits: int,
           draw: Draw) -> Quantized:
    """Quantise a float32[p] vector, finite, with a scale for each block.

    The scales come first and are coded; the levels belong to what the codes stand for.
    """
    rule, number = quantizer.by_scale, counts(sizes, quantizer.block_size)
    assert rule is not None, "the configuration and the frames ask before"
    scales = np.empty(sum(number), np.float32)
    for rows, blocks in _pieces(vector, sizes, quantizer.block_size):
        scales[blocks] = rule.scale(rows)
    largest, codes = _coded(scales, number, rule.covers)
    scales = decoded_scales(largest, codes, number)
    levels: np.ndarray = np.empty(vector.size, level_dtype(bits))
    targets = _pieces(levels, sizes, quantizer.block_size)
    for (rows, blocks), (target, _) in zip(_pieces(vector, sizes, quantizer.block_size), targets):
        own = scales[blocks, np.newaxis].astype(np.float64)
        nothing = own[:, 0] == 0
        own[nothing] = 1.0  # nothing divides by it
        target[...] = rule.levels(rows, own, bits, draw)
        target[nothing] = rule.zero_level(bits)
    return Quantized(largest, codes, levels)


def decode(quantizer: Quantizer, quantized: Quantized, sizes: Sequence[int],
           bits: int) -> np.ndarray:
    """The vector that the levels stand for, float32[p]."""
    scales = decoded_scales(quantized.largest, quantized.codes,
                            counts(sizes, quantizer.block_size))
    vector = np.empty(quantized.levels.size, np.float32)
    sources = _pieces(quantized.levels, sizes, quantizer.block_size)
    for (rows, blocks), (source, _) in zip(_pieces(vector, sizes, quantizer.block_size), sources):
        rows[...] = quantizer.decode(scales[blocks, np.newaxis], source, bits)
    return vector


def decoded_scales(largest: np.ndarray, codes: np.ndarray, number: Sequence[int]) -> np.ndarray:
    """The scales that codes stand for, float32[S]; 0 where float32 could not scale by it."""
    scales = np.repeat(largest, number)
    scales *= RATIOS[codes]
    scales[scales.astype(np.float64) < SMALLEST_SCALE] = 0
    return scales


def _coded(scales: np.ndarray, number: Sequence[int],
           covers: bool) -> Tuple[np.ndarray, np.ndarray]:
    """R float32[T] and codes uint8[S] of the scales. covers: no scale may become smaller; else the
    nearest is taken.
    """
    largest = np.zeros(len(number), np.float32)
    codes: np.ndarray = np.full(scales.size, ZERO, np.uint8)
    start = 0
    for tensor, count in enumerate(number):
        part = scales[start:start + count]
        if part.any():
            largest[tensor] = part.max()
            steps = (largest[tensor] * RATIOS[:ZERO]).astype(np.float64)  # falling
            if not covers:
                steps[1:] = (steps[:-1] + steps[1:]) / 2
            found = np.searchsorted(-steps, -part.astype(np.float64), side="right") - 1
            codes[start:start + count] = np.where(part > 0, found, ZERO)
        start += count
    return largest, codes


def _pieces(vector: np.ndarray, sizes: Sequence[int],
            block_size: int) -> Iterator[Tuple[np.ndarray, slice]]:
    """Views of the vector as rows, a block each, and which blocks they are: of each tensor the
    whole blocks, then the one that is shorter.
    """
    start = block = 0
    for size in sizes:
        whole, rest = divmod(size, block_size)
        for count, width in ((whole, block_size), (1, rest)):
            if count and width:
                stop = start + count * width
                yield vector[start:stop].reshape(count, width), slice(block, block + count)
                start, block = stop, block + count


# --- as bytes: R of all tensors, the length n of the codes, the codes


def nominal_bits(sizes: Sequence[int], block_size: int) -> int:
    """32 T + 8 S."""
    return 32 * len(sizes) + 8 * sum(counts(sizes, block_size))


def length_range(sizes: Sequence[int], block_size: int) -> Tuple[int, int]:
    """Smallest and largest number of bytes of the scales."""
    head, number = 4 * len(sizes) + _LENGTH_BYTES, sum(counts(sizes, block_size))
    return head + min(1, number), head + number


def to_bytes(quantized: Quantized, entropy_coding: bool) -> bytes:
    """The scales' bytes; the codes entropy coded where that was asked for and is smaller."""
    codes: bytes = quantized.codes.tobytes()
    if entropy_coding:
        codes = min(codes, entropy.compress(quantized.codes, ZERO), key=len)
    return (quantized.largest.astype("<f4").tobytes()
            + len(codes).to_bytes(_LENGTH_BYTES, "little") + codes)


def split(data: bytes, sizes: Sequence[int], block_size: int) -> Tuple[bytes, np.ndarray, bytes]:
    """A body of at least length_range's smallest length -> R's bytes, the codes uint8[S], and what
    follows.

    Raises FrameError for codes of an impossible length and a stream that is not theirs.
    """
    number = sum(counts(sizes, block_size))
    head = 4 * len(sizes) + _LENGTH_BYTES
    length = int.from_bytes(data[head - _LENGTH_BYTES:head], "little")
    if not min(1, number) <= length <= number:
        raise FrameError("bad_coding", "the scales' codes have an impossible length",
                         f"{min(1, number)} to {number} bytes", length)
    stream, rest = data[head:head + length], data[head + length:]
    if length == number:
        codes: np.ndarray = np.frombuffer(stream, np.uint8)
    else:
        codes = entropy.decompress(stream, number, 8, ZERO)
    return data[:4 * len(sizes)], codes, rest
