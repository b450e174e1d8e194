"""rd: a coarse mid-tread grid whose levels are entropy coded (entropy-coded scalar quantisation).

    L = 2^(b-1) - 1, R = max|d|, rms = ||d|| / sqrt(n)
    step = max(min(rd_step rms, R), R / L), level = floor(d / step + L + 1/2)
    c = s (level - L),  s = <level - L, d> / ||level - L||^2

The step follows the typical entry, not the largest one, so that most levels are zero and cost
little. It is at most R, so that the largest entry is never lost. s is the least-squares scale: ||d
- c||^2 = ||d||^2 - ||c||^2.
"""

import functools
import math
from typing import Tuple

import numpy as np

from flq.compression import bbit
from flq.compression.quantizer import (
    FLOAT32_MAX,
    SMALLEST_SCALE,
    Draw,
    Quantizer,
    level_dtype,
    radius,
)
from flq.modes import MODES
from flq.parameters import sum_f64


def _encode(rd_step: float, values: np.ndarray, bits: int,
            draw: Draw) -> Tuple[np.float32, np.ndarray]:
    half = 2 ** (bits - 1) - 1
    zeros: np.ndarray = np.full(values.size, half, level_dtype(bits))
    largest = float(radius(values))
    if largest == 0:
        return np.float32(0), zeros
    exact = values.astype(np.float64)
    work = exact * exact  # one buffer for all passes: memory is what they cost
    rms = math.sqrt(sum_f64(work) / values.size)
    step = max(min(rd_step * rms, largest), largest / half)
    np.multiply(exact, 1.0 / step, out=work)
    work += half + 0.5
    # R / step <= L up to a unit of float64, far from the next level
    levels: np.ndarray = work.astype(level_dtype(bits))
    np.subtract(levels, half, out=work, dtype=np.float64)
    exact *= work
    work *= work
    scale = sum_f64(exact) / sum_f64(work)
    if scale < SMALLEST_SCALE:
        return np.float32(0), zeros
    top = max(int(levels.max()) - half, half - int(levels.min()))
    scale = min(scale, FLOAT32_MAX / top)
    rounded = np.float32(scale)
    if float(rounded) * top > FLOAT32_MAX:
        rounded = np.nextafter(rounded, np.float32(0))
    return rounded, levels


def with_step(rd_step: float) -> Quantizer:
    """rd with another step, in units of each tensor's root mean square; what it writes is read by
    any rd.
    """
    return RD._replace(encode=functools.partial(_encode, rd_step))


def _decode(scale: np.float32, levels: np.ndarray, bits: int) -> np.ndarray:
    values = levels.astype(np.float32)
    values -= np.float32(2 ** (bits - 1) - 1)
    values *= scale
    return values


_STEP = MODES["rd"].parameters[0]
RD = Quantizer(MODES["rd"], has_scale=True, max_level=bbit.max_level, encode=functools.partial(
    _encode, _STEP.default), decode=_decode, coder="escape", with_parameters=with_step)
