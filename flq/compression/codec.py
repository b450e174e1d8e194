"""A whole vector <-> the body of a frame: scales of all tensors, then the levels of all tensors.

    body = T float32 scales, then the packed (or entropy coded) levels

With scales of blocks (blocks.py) their codes come between the two.

Everything that quantisers share is here, so that a quantiser is two functions of one tensor.
"""

import math
from typing import Any, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq import kernels
from flq.compression import blocks, contexts, entropy, escape, packing
from flq.compression.quantizer import Draw, Quantizer, level_dtype, not_finite
from flq.errors import ConfigError, DataError, FrameError

CODERS: Any = {"base_n": entropy, "escape": escape}


class Encoded(NamedTuple):
    """A quantised vector: scales float32[T] (of blocks: the largest of each tensor), levels uint8,
    uint16 or uint32[p], bits per level. codes: of the blocks' scales, uint8[S], None without
    blocks.
    """

    quantizer: Quantizer
    bits: int
    scales: np.ndarray
    levels: np.ndarray
    codes: Optional[np.ndarray] = None


class Body(NamedTuple):
    """An Encoded as bytes. coded: the levels are entropy coded; beside_history: by contexts.py."""

    data: bytes
    coded: bool
    beside_history: bool = False


def num_scales(quantizer: Quantizer, sizes: Sequence[int]) -> int:
    """S: one scale a block, or a tensor, or none."""
    if quantizer.block_size:
        return sum(blocks.counts(sizes, quantizer.block_size))
    return _num_float32(quantizer, sizes)


def nominal_bits(quantizer: Quantizer, bits: int, sizes: Sequence[int]) -> int:
    """32 S + b p, the papers' count, and 32 T + 8 S + b p with blocks (algorithm.md 2)."""
    scales = blocks.nominal_bits(
        sizes, quantizer.block_size) if quantizer.block_size else 32 * num_scales(quantizer, sizes)
    return scales + bits * sum(sizes)


def encode(quantizer: Quantizer, vector: np.ndarray, sizes: Sequence[int], bits: int,
           draw: Draw, activity: Optional[np.ndarray] = None) -> Encoded:
    """Quantise a float32[p] vector, tensor by tensor.

    sizes: entries of each tensor, in order (one entry, p, for a radius of the whole vector).
    activity: what to_body will be given, for a quantiser whose step follows from the bits.
    Raises DataError for a value that is not finite and a vector of another length, ConfigError for
    a width that the quantiser lacks.
    """
    _check(quantizer, bits, sizes, vector.shape)
    if vector.dtype != np.float32:
        raise DataError("cannot quantise this vector", "float32", vector.dtype)
    # else the scale of a tensor shows it
    if (quantizer.by_scale is None or quantizer.block_size) and not math.isfinite(
            kernels.largest_magnitude(vector)):
        raise not_finite()
    if quantizer.block_size:
        found = blocks.encode(quantizer, vector, sizes, bits, draw)
        return Encoded(quantizer, bits, found.largest, found.levels, found.codes)
    fitted = quantizer.fitted(vector, sizes, bits, activity) if quantizer.fitted else quantizer
    scales = np.zeros(num_scales(quantizer, sizes), np.float32)
    levels: np.ndarray = np.empty(vector.size, level_dtype(bits))
    start = 0
    for index, size in enumerate(sizes):
        part = vector[start:start + size]
        if size:
            scale, levels[start:start + size] = fitted.encode(part, bits, draw)
            if scale is not None:
                scales[index] = scale
        start += size
    return Encoded(quantizer, bits, scales, levels)


def decode(encoded: Encoded, sizes: Sequence[int],
           base: Optional[np.ndarray] = None) -> np.ndarray:
    """The vector that the levels stand for, float32[p], the same bits on every machine. base:
    another one, added to it in float32.

    Raises DataError for levels or scales of another number than the sizes say, ConfigError for a
    width that the quantiser lacks.
    """
    _check(encoded.quantizer, encoded.bits, sizes, encoded.levels.shape)
    quantizer = encoded.quantizer
    if encoded.scales.shape != (_num_float32(quantizer, sizes),):
        raise DataError("the scales do not belong to these tensors",
                        _num_float32(quantizer, sizes), encoded.scales.shape)
    if quantizer.block_size:
        found = _of_blocks(encoded)
        if found.codes.shape != (num_scales(quantizer, sizes),):
            raise DataError("the codes of the scales do not belong to these blocks",
                            (num_scales(quantizer, sizes),), found.codes.shape)
        return _added(blocks.decode(quantizer, found, sizes, encoded.bits), base)
    vector = np.empty(encoded.levels.size, np.float32)
    start = 0
    for index, size in enumerate(sizes):
        scale = encoded.scales[index] if quantizer.has_scale else None
        part = slice(start, start + size)
        levels, values = encoded.levels[part], vector[part]
        under = None if base is None else base[part]
        if quantizer.grid is not None:
            grid = quantizer.grid(scale, encoded.bits)
            kernels.on_grid(levels, *grid, encoded.bits, under, values)
        elif size:
            values[:] = _added(quantizer.decode(scale, levels, encoded.bits), under)
        start += size
    return vector


def _added(values: np.ndarray, base: Optional[np.ndarray]) -> np.ndarray:
    return values if base is None else values + base


def to_body(encoded: Encoded, entropy_coding: bool,
            activity: Optional[np.ndarray] = None) -> Body:
    """Bytes of the scales and levels; entropy coded where that was asked for and is smaller.

    activity: what sender and receiver know of the weights, uint8[p] (contexts.py), None where they
    keep nothing. With it the levels are coded both ways, and the shorter one counts; the way
    without it is not taken to the end where a sample of the levels says that it is the longer one.
    """
    if encoded.quantizer.block_size:
        scales = blocks.to_bytes(_of_blocks(encoded), entropy_coding)
    else:
        scales = encoded.scales.astype("<f4").tobytes()
    length = packing.packed_length(encoded.levels.size, encoded.bits)
    best = None
    if encoded.bits <= 16:
        top = encoded.quantizer.max_level(encoded.bits)
        if activity is not None:
            beside = contexts.compress(encoded.levels, encoded.bits, top, activity)
            if beside is not None and len(beside) < length:
                best, length = Body(scales + beside, True, True), len(beside)
        if entropy_coding and (best is None or _may_be_shorter(encoded, top, length)):
            coded = CODERS[encoded.quantizer.coder].compress(encoded.levels, top)
            if len(coded) < length:
                best = Body(scales + coded, True)
    return best or Body(scales + packing.pack(encoded.levels, encoded.bits), False)


def _may_be_shorter(encoded: Encoded, top: int, length: int) -> bool:
    """Whether coding the levels without a history could take less than so many bytes."""
    few = entropy.sample(encoded.levels)
    coded = CODERS[encoded.quantizer.coder].compress(few, top)
    return len(coded) * encoded.levels.size < length * few.size


def from_body(body: Body, quantizer: Quantizer, bits: int, sizes: Sequence[int],
              activity: Optional[np.ndarray] = None) -> Encoded:
    """Bytes -> scales and levels, everything checked. activity: what to_body was given.

    Raises FrameError with the one thing that is wrong.
    """
    if not quantizer.min_bits <= bits <= quantizer.max_bits:
        raise FrameError("bad_bits", f"quantiser {quantizer.name} has no such width",
                         f"{quantizer.min_bits} to {quantizer.max_bits}", bits)
    _check_length(len(body.data), body_length_range(quantizer, bits, sizes, body.coded))
    codes = None
    if quantizer.block_size:
        data, codes, stream = blocks.split(body.data, sizes, quantizer.block_size)
        # what the codes took is known now
        _check_length(len(stream), _levels_range(bits, sizes, body.coded))
    else:
        split = 4 * num_scales(quantizer, sizes)
        data, stream = body.data[:split], body.data[split:]
    scales = np.frombuffer(data, "<f4").astype(np.float32)
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise FrameError("bad_scale", "a scale is negative or not finite", "finite and at least 0",
                         str(scales[~(np.isfinite(scales) & (scales >= 0))][0]))
    count = sum(sizes)
    top = quantizer.max_level(bits)
    if body.coded:
        if bits > 16:
            raise FrameError("bad_coding", "float32 is never entropy coded", "plain levels",
                             "coded ones")
        if not body.beside_history:
            levels = CODERS[quantizer.coder].decompress(stream, count, bits, top)
        elif activity is None:
            raise FrameError("other_history", "the levels were coded beside a history", "none",
                             "a coding that needs one")
        else:
            levels = contexts.decompress(stream, bits, top, activity)
    else:
        levels = packing.unpack(stream, count, bits)
    if bits == 32:
        if not np.isfinite(levels.view(np.float32)).all():
            raise FrameError("bad_value", "a value is not finite", "finite float32 values",
                             "inf or nan")
    elif (body.coded or top < 2 ** bits - 1) and levels.size and levels.max() > top:
        raise FrameError("bad_level", "a level is above the grid", f"at most {top}",
                         int(levels.max()))
    return Encoded(quantizer, bits, scales, levels, codes)


def next_activity(activity: Optional[np.ndarray], encoded: Encoded) -> Optional[np.ndarray]:
    """That of a stream after one more of its vectors, uint8[p], None where none is kept."""
    if activity is None:
        return None
    return contexts.next_activity(activity, encoded.levels,
                                  encoded.quantizer.max_level(encoded.bits))


def _num_float32(quantizer: Quantizer, sizes: Sequence[int]) -> int:
    """T: one scale a tensor travels as float32, or none."""
    return len(sizes) if quantizer.has_scale else 0


def _of_blocks(encoded: Encoded) -> blocks.Quantized:
    assert encoded.codes is not None, "there are blocks"
    return blocks.Quantized(encoded.scales, encoded.codes, encoded.levels)


def _check_length(length: int, allowed: Tuple[int, int]) -> None:
    low, high = allowed
    if not low <= length <= high:
        reason = "body_short" if length < low else "body_long"
        raise FrameError(reason, "the body has another length than its header implies",
                         str(high) if low == high else f"{low} to {high}", length)


def _check(quantizer: Quantizer, bits: int, sizes: Sequence[int], shape: Tuple[int, ...]) -> None:
    """Where the sizes did not add up, entries would be left as they were in memory; a grid of no
    width divides by zero.
    """
    if not quantizer.min_bits <= bits <= quantizer.max_bits:
        raise ConfigError(f"quantiser {quantizer.name} has no such width",
                          f"{quantizer.min_bits} to {quantizer.max_bits} bits", bits)
    if min(sizes, default=0) < 0 or shape != (sum(sizes),):
        raise DataError("the sizes of the tensors do not add up to the vector", shape, list(sizes))


def body_length_range(quantizer: Quantizer, bits: int, sizes: Sequence[int],
                      coded: bool) -> Tuple[int, int]:
    """Smallest and largest number of bytes that a body of this kind can have."""
    low, high = _levels_range(bits, sizes, coded)
    if quantizer.block_size:
        scales = blocks.length_range(sizes, quantizer.block_size)
    else:
        scales = (4 * num_scales(quantizer, sizes),) * 2
    return scales[0] + low, scales[1] + high


def _levels_range(bits: int, sizes: Sequence[int], coded: bool) -> Tuple[int, int]:
    plain = packing.packed_length(sum(sizes), bits)
    return (1, plain) if coded else (plain, plain)
