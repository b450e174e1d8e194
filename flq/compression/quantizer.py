"""What a quantiser is: two functions of one tensor, and its mode's row (flq/modes.py).

The rest is done once, in codec.py.
"""

from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.modes import Mode

Draw = Callable[[int], np.ndarray]
"""draw(n) -> n uniforms of [0, 1), float64[n]: the only randomness that an encoder sees."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
SMALLEST_SCALE = 1.2e-38
"""A scale below this is sent as 0 and its tensor becomes zero: float32 arithmetic is denormal
there.
"""


class Quantizer(NamedTuple):
    """One way to write a float32 tensor with a few bits per entry.

    encode(values float32[n], bits, draw) -> (scale, levels uint8/16/32[n]): n >= 1, all values
    finite. decode(scale, levels, bits) -> float32[n], elementwise in float32, so that it gives the
    same bits on every machine. scale is a non-negative np.float32, or None for a quantiser without
    scales.
    levels run from 0 to max_level(bits), each `bits` wide on the wire. coder: how its levels are
    entropy coded, a key of codec.CODERS. with_parameters: of values for the row's parameters -> the
    quantiser that uses them. fitted(vector, sizes of its tensors, bits) -> the one that encodes
    this vector, where its step depends on the whole of it.
    """

    mode: Mode
    has_scale: bool
    max_level: Callable[[int], int]
    encode: Callable[[np.ndarray, int, Draw], Tuple[Optional[np.float32], np.ndarray]]
    decode: Callable[[Any, np.ndarray, int], np.ndarray]
    coder: str = "base_n"
    with_parameters: Optional[Callable[..., Any]] = None
    fitted: Optional[Callable[[np.ndarray, Sequence[int], int], Any]] = None

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


def radius(values: np.ndarray) -> np.float32:
    """R = max|d| as float32, 0 where float32 could not scale by it."""
    # a Python float: NumPy 1 and 2 compare float32 differently
    largest = float(np.maximum(values.max(), -values.min()))
    return np.float32(largest) if largest >= SMALLEST_SCALE else np.float32(0)


def grid_step(scale: np.float32, steps: int) -> np.float32:
    """float32(scale / steps), rounded so that `steps` times it does not overflow."""
    step = np.float32(float(scale) / steps)
    if float(step) * steps > FLOAT32_MAX:
        step = np.nextafter(step, np.float32(0))
    return step


def level_dtype(bits: int) -> type:
    """The smallest unsigned type that holds levels of that many bits."""
    return np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
