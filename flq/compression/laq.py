"""laq: the uniform grid of LAQ over [-R, R] (Sun et al. 2019, eq. 5 and 6).

    R = max|d|, tau = 1 / (2^b - 1), level = floor((d + R) / (2 tau R) + 1/2), c = 2 tau R level - R

The largest error is tau R. The grid has 2^b levels and none of them is zero.
"""

import functools
from typing import Any

import numpy as np

from flq.compression.quantizer import (
    ByScale,
    Draw,
    Grid,
    Quantizer,
    decode_grid,
    floor_levels,
    grid_step,
    level_dtype,
    radius,
)
from flq.modes import MODES


def _levels(values: np.ndarray, scale: Any, bits: int, draw: Draw) -> np.ndarray:
    exact = functools.partial(_levels_f64, scale, bits)
    if values.ndim > 1:
        return exact(values)
    steps = 2 ** bits - 1
    return floor_levels(values, steps / (2.0 * scale), (steps + 1) / 2, bits, exact)


def _levels_f64(scale: Any, bits: int, values: np.ndarray) -> np.ndarray:
    scaled = values.astype(np.float64)
    scaled += scale
    # exact before the division, so that an exact zero always takes the upper level
    scaled *= 2 ** bits - 1
    scaled /= 2.0 * scale
    scaled += 0.5
    return scaled.astype(level_dtype(bits))  # all are positive: the cast is floor


def _grid(scale: Any, bits: int) -> Grid:
    steps = 2 ** bits - 1
    # 2 tau R level - R, written around the middle so that it is symmetric and cannot overflow.
    return Grid(2, steps, grid_step(scale, steps))


_BY_SCALE = ByScale(radius, _levels, zero_level=lambda bits: 0)
LAQ = Quantizer(MODES["laq"], has_scale=True, max_level=lambda bits: 2**bits - 1,
                encode=_BY_SCALE.encode, decode=functools.partial(decode_grid, _grid),
                by_scale=_BY_SCALE, grid=_grid)
