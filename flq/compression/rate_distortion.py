"""rd: a coarse mid-tread grid whose levels are entropy coded (entropy-coded scalar quantisation).

    L = 2^(b-1) - 1, R = max|d|, rms = ||d|| / sqrt(n)
    step = max(min(rd_step rms, R), R / L), level = floor(d / step + L + 1/2)
    c = s (level - L),  s = <level - L, d> / ||level - L||^2

The step follows the typical entry, not the largest one, so that most levels are zero and cost
little. It is at most R, so that the largest entry is never lost. s is the least-squares scale: ||d
- c||^2 = ||d||^2 - ||c||^2.

Where bits a weight are asked for (rd_target_bits), rd_step is the one at which the coded levels of
the whole vector take so many, coded as they will be: found anew for each vector. Only the encoder
knows it.
"""

import functools
import math
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.compression import bbit, contexts, escape, plane_bits
from flq.compression.quantizer import (
    FLOAT32_MAX,
    SMALLEST_SCALE,
    Draw,
    Grid,
    Quantizer,
    decode_grid,
    floor_levels,
    level_dtype,
    radius,
)
from flq.kernels import products_with_levels, squared_norm, sum_f64
from flq.modes import MODES


def _encode(rd_step: float, values: np.ndarray, bits: int,
            draw: Draw) -> Tuple[np.float32, np.ndarray]:
    half = 2 ** (bits - 1) - 1
    zeros: np.ndarray = np.full(values.size, half, level_dtype(bits))
    largest = float(radius(values))
    if largest == 0:
        return np.float32(0), zeros
    rms = math.sqrt(squared_norm(values) / values.size)
    step = _step(rd_step, rms, largest, half)

    def in_float64(part: np.ndarray) -> np.ndarray:
        return _levels(part.astype(np.float64), step, bits, np.empty(part.size))

    levels = floor_levels(values, 1.0 / step, half + 0.5, bits, in_float64)
    products, squares = products_with_levels(values, levels, half)
    scale = products / squares  # least squares
    if scale < SMALLEST_SCALE:
        return np.float32(0), zeros
    top = max(int(levels.max()) - half, half - int(levels.min()))
    scale = min(scale, FLOAT32_MAX / top)
    rounded = np.float32(scale)
    if float(rounded) * top > FLOAT32_MAX:
        rounded = np.nextafter(rounded, np.float32(0))
    return rounded, levels


def _step(rd_step: float, rms: float, largest: float, half: int) -> float:
    return max(min(rd_step * rms, largest), largest / half)


def _levels(exact: np.ndarray, step: float, bits: int, work: np.ndarray) -> np.ndarray:
    """Levels of float64[n]. work: float64[n], overwritten."""
    np.multiply(exact, 1.0 / step, out=work)
    work += 2 ** (bits - 1) - 0.5  # L + 1/2
    # R / step <= L up to a unit of float64, far from the next level
    levels: np.ndarray = work.astype(level_dtype(bits))
    return levels


def _fitted(target: float, vector: np.ndarray, sizes: Sequence[int], bits: int,
            activity: Optional[np.ndarray]) -> Quantizer:
    """rd with the rd_step at which this vector takes `target` bits a weight; where no step does,
    with the one at that end of the range.

    Of a long vector a sample says where, and a count of the whole one how far that was off: it is
    counted again only where that was far.
    """
    half = 2 ** (bits - 1) - 1
    exact = vector.astype(np.float64)
    work = np.empty_like(exact)
    parts = []
    for begin, end in zip(np.cumsum([0, *sizes]), np.cumsum(sizes)):
        largest = float(radius(vector[begin:end])) if end > begin else 0.0
        if largest > 0:
            part = slice(begin, end)
            rms = math.sqrt(sum_f64(np.square(exact[part], out=work[part])) / (end - begin))
            parts.append(_Part(part, rms, largest))
    if not parts:
        return RD
    classes = None if activity is None else plane_bits.classes_of(activity)
    levels: np.ndarray = np.full(vector.size, half, level_dtype(bits))

    def counted(rd_step: float) -> float:
        for part, rms, largest in parts:
            step = _step(rd_step, rms, largest, half)
            levels[part] = _levels(exact[part], step, bits, work[part])
        return _coded_bits(levels, bits, 2 * half, classes) / vector.size

    if vector.size <= _SHORT:
        return with_step(_search(counted, target))
    sample = _sampled(exact, parts, bits, classes)
    rd_step = _search(sample, target)
    for _ in range(_COUNTS):
        before, taken = rd_step, counted(rd_step)
        rd_step = _search(sample, target * sample(rd_step) / taken)
        if rd_step == before or abs(taken - target) <= _FAR * target:  # the same: an end
            break
    return with_step(rd_step)


class _Part(NamedTuple):
    """A tensor that is not zero."""

    place: slice
    rms: float
    largest: float


def _sampled(exact: np.ndarray, parts: Sequence[_Part], bits: int,
             classes: Optional[np.ndarray]) -> Callable[[float], float]:
    """rd_step -> about how many bits a weight, from a sample of the weights."""
    # An odd distance goes through all channels of a layer.
    places = np.arange(0, exact.size, exact.size // _SAMPLE | 1)
    few = np.abs(exact.take(places))
    kinds = np.zeros(places.size, np.uint8) if classes is None else classes.take(places)
    half = 2 ** (bits - 1) - 1
    ends = [int(np.searchsorted(places, bound)) for part in parts
            for bound in (part.place.start, part.place.stop)]
    within = list(zip(parts, ends[::2], ends[1::2]))

    def bits_of(rd_step: float) -> float:
        scaled = np.zeros(few.size)
        for part, begin, end in within:
            step = _step(rd_step, part.rms, part.largest, half)
            np.multiply(few[begin:end], 1.0 / step, out=scaled[begin:end])
        scaled += 0.5
        np.minimum(scaled, contexts.PLANES, out=scaled)
        return plane_bits.entropy_bits(plane_bits.reaching(scaled, kinds), bits) / few.size

    return bits_of


def _coded_bits(levels: np.ndarray, bits: int, max_level: int,
                classes: Optional[np.ndarray]) -> float:
    """About how many bits the levels take, beside a history where their classes are given."""
    if classes is not None:
        distances, total = plane_bits.clipped(levels, max_level)
        if total <= contexts.MEAN_DISTANCE * levels.size:
            return plane_bits.coded_bits(plane_bits.reaching(distances, classes), bits)
    return escape.coded_bits(levels, max_level)


def _search(bits_of: Callable[[float], float], target: float) -> float:
    """The rd_step that takes target bits a weight, by bisection."""
    low, high = _RANGE
    for _ in range(_HALVINGS):
        rd_step = math.sqrt(low * high)
        taken = bits_of(rd_step)
        if abs(taken - target) <= _CLOSE * target:
            break
        low, high = (rd_step, high) if taken > target else (low, rd_step)
    return rd_step


def with_step(rd_step: float) -> Quantizer:
    """rd with another step, in units of each tensor's root mean square; what it writes is read by
    any rd.
    """
    return RD._replace(encode=functools.partial(_encode, rd_step))


def with_parameters(rd_step: float, target: Optional[float]) -> Quantizer:
    """rd with this step, or with those that take `target` bits a weight."""
    if target is None:
        return with_step(rd_step)
    return RD._replace(fitted=functools.partial(_fitted, target))


def _grid(scale: np.float32, bits: int) -> Grid:
    return Grid(1, bbit.middle(bits), scale)


_STEP = MODES["rd"].parameters[0]
_RANGE, _HALVINGS, _CLOSE = (_STEP.low, _STEP.high), 20, 0.002
"""Of the search for a step: where, how often at most, and how near is near enough."""
_SAMPLE, _SHORT = 16384, 4096
"""Weights: of a sample at least, and of a vector that is counted for each step at most."""
_COUNTS, _FAR = 4, 0.1
"""Of a long vector, at most, and how far off a count is still corrected without another one."""
RD = Quantizer(MODES["rd"], has_scale=True, max_level=bbit.max_level, encode=functools.partial(
    _encode, _STEP.default), decode=functools.partial(decode_grid, _grid), coder="escape",
               with_parameters=with_parameters, grid=_grid)
