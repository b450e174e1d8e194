"""What a quantiser is: two functions of one tensor, and its mode's row (flq/modes.py).

The rest is done once, in codec.py.
"""

import math
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq import kernels
from flq.errors import DataError
from flq.modes import Mode
from flq.pieces import pieces

Draw = Callable[[int], np.ndarray]
"""draw(n) -> n uniforms of [0, 1), float64[n]: the only randomness that an encoder sees."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
SMALLEST_SCALE = 1.2e-38
"""A scale below this is sent as 0 and its tensor becomes zero: float32 arithmetic is denormal
there.
"""


class ByScale(NamedTuple):
    """A quantiser whose scale is known before its levels, so that many blocks are one pass.

    scale(values float32[..., n]) -> float32[...], over the last axis, 0 where float32 could not
    scale by it, and not finite where a value is not. levels(values, scale, bits, draw) -> levels of
    the values' shape; scale: positive, a float or float64[..., 1]. zero_level(bits): the levels
    where the scale is 0. covers: no value may be beyond the scale, so that a scale that is coded is
    rounded up.
    """

    scale: Callable[[np.ndarray], Any]
    levels: Callable[[np.ndarray, Any, int, Draw], np.ndarray]
    zero_level: Callable[[int], int]
    covers: bool = True

    def encode(self, values: np.ndarray, bits: int, draw: Draw) -> Tuple[np.float32, np.ndarray]:
        """One tensor, as Quantizer.encode. Raises DataError where a value is not finite."""
        scale = self.scale(values)
        if not math.isfinite(scale):
            raise not_finite()
        if scale == 0:
            return scale, np.full(values.size, self.zero_level(bits), level_dtype(bits))
        return scale, self.levels(values, float(scale), bits, draw)


class Grid(NamedTuple):
    """Levels at equal distances: one stands for (times level - middle) step in float32, exact but
    for the product. times: 1 or 2; middle: below 2^bits. step: float32, one or of the scale's
    shape.
    """

    times: int
    middle: int
    step: Any


class Quantizer(NamedTuple):
    """One way to write a float32 tensor with a few bits per entry.

    encode(values float32[n], bits, draw) -> (scale, levels uint8/16/32[n]): n >= 1, all values
    finite. decode(scale, levels, bits) -> float32[n], elementwise in float32, so that it gives the
    same bits on every machine. scale is a non-negative np.float32, or None for a quantiser without
    scales.
    levels run from 0 to max_level(bits), each `bits` wide on the wire. coder: how its levels are
    entropy coded, a key of codec.CODERS. with_parameters: of values for the row's parameters -> the
    quantiser that uses them. fitted(vector, sizes of its tensors, bits, activity) -> the one
    that encodes this vector, where its step depends on the whole of it; activity: beside which its
    levels will be coded, uint8[p] or None. by_scale: what encode is made of, where
    it can have scales of blocks; decode then takes levels[B, n] with scale float32[B, 1] too.
    block_size: weights of a tensor that share a scale (blocks.py); 0: all of them.
    grid(scale, bits) -> Grid, where the levels are one: decode is then decode_grid of it.
    """

    mode: Mode
    has_scale: bool
    max_level: Callable[[int], int]
    encode: Callable[[np.ndarray, int, Draw], Tuple[Optional[np.float32], np.ndarray]]
    decode: Callable[[Any, np.ndarray, int], np.ndarray]
    coder: str = "base_n"
    with_parameters: Optional[Callable[..., Any]] = None
    fitted: Optional[Callable[[np.ndarray, Sequence[int], int, Optional[np.ndarray]], Any]] = None
    by_scale: Optional[ByScale] = None
    block_size: int = 0
    grid: Optional[Callable[[Any, int], Grid]] = None

    @property
    def name(self) -> str:
        return self.mode.name

    @property
    def wire_id(self) -> int:
        return self.mode.wire_id

    @property
    def min_bits(self) -> int:
        return self.mode.min_bits

    @property
    def max_bits(self) -> int:
        return self.mode.max_bits


def radius(values: np.ndarray) -> Any:
    """R = max|d| over the last axis as float32, 0 where float32 could not scale by it, and not
    finite where a value is not.
    """
    # as float64: NumPy 1 and 2 compare float32 differently
    if values.ndim == 1:  # in Python's floats, which is faster for one number
        only = kernels.largest_magnitude(values)
        return np.float32(0) if only < SMALLEST_SCALE else np.float32(only)
    largest = np.maximum(values.max(axis=-1), -values.min(axis=-1))
    return np.where(largest.astype(np.float64) < SMALLEST_SCALE, np.float32(0), largest)[()]


def not_finite() -> DataError:
    return DataError("cannot quantise this vector", "finite values", "inf or nan")


def grid_step(scale: Any, steps: int) -> Any:
    """float32(scale / steps), rounded so that `steps` times it does not overflow. scale: float32,
    one or an array.
    """
    if np.ndim(scale) == 0:  # in Python's floats, which is faster for one number
        one = np.float32(float(scale) / steps)
        return one if float(one) * steps <= FLOAT32_MAX else np.nextafter(one, np.float32(0))
    step = (np.asarray(scale, np.float64) / steps).astype(np.float32)
    over = step.astype(np.float64) * steps > FLOAT32_MAX
    return np.where(over, np.nextafter(step, np.float32(0)), step)[()]


def floor_levels(values: np.ndarray, slope: float, offset: float, bits: int,
                 exact: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """exact(values): the levels floor(slope value + offset), computed in float64, of float32[n].

    Most of them are the same in float32, which takes a third of the time. Its error is at most
    2.5 2^(bits - 24): where a level would be another one within 16 2^(bits - 24), and only there,
    float64 decides.
    """
    if bits <= 8 and 1e-30 < slope < 1e30:
        margin = 2.0 ** (bits - 20)
        levels, unsure = kernels.near_levels(values, slope, offset - margin, offset + margin)
        if unsure.size <= values.size // 8:
            if unsure.size:
                levels[unsure] = exact(values[unsure])
            return levels
    return np.concatenate([exact(values[part]) for part in pieces(0, values.size)])


def decode_grid(grid: Callable[[Any, int], Grid], scale: Any, levels: np.ndarray,
                bits: int) -> np.ndarray:
    """The decode of a quantiser with such a grid, of the levels' shape."""
    return kernels.on_grid(levels, *grid(scale, bits), bits)


def level_dtype(bits: int) -> type:
    """The smallest unsigned type that holds levels of that many bits."""
    return np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
