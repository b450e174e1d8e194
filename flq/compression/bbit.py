"""bbit: 2^b - 1 levels around zero, the nearest one.

    L = 2^(b-1) - 1, s = max|d| / L, level = round(d / s) + L, c = s (level - L)

The grid has a zero, and the largest entry is met exactly, so ||d - c||^2 <= ||d||^2 - R^2.
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


def max_level(bits: int) -> int:
    """2L: the grid leaves the last of the 2^b codes unused."""
    return 2 ** bits - 2


def middle(bits: int) -> int:
    """L, the level of zero."""
    return max_level(bits) // 2


def scaled_to_grid(values: np.ndarray, scale: Any, bits: int) -> np.ndarray:
    """d / s + L, float64 of the values' shape, between 0 and 2L."""
    half = 2 ** (bits - 1) - 1
    scaled = values.astype(np.float64)
    scaled *= half / scale
    scaled += half
    return scaled


def _levels(values: np.ndarray, scale: Any, bits: int, draw: Draw) -> np.ndarray:
    exact = functools.partial(_levels_f64, scale, bits)
    if values.ndim > 1:
        return exact(values)
    half = middle(bits)
    return floor_levels(values, half / scale, half + 0.5, bits, exact)


def _levels_f64(scale: Any, bits: int, values: np.ndarray) -> np.ndarray:
    scaled = scaled_to_grid(values, scale, bits)
    scaled += 0.5
    return scaled.astype(level_dtype(bits))


def grid(scale: Any, bits: int) -> Grid:
    """s (level - L)."""
    half = middle(bits)
    return Grid(1, half, grid_step(scale, half))


decode = functools.partial(decode_grid, grid)


_BY_SCALE = ByScale(radius, _levels, zero_level=middle)
BBIT = Quantizer(MODES["bbit"], has_scale=True, max_level=max_level, encode=_BY_SCALE.encode,
                 decode=decode, by_scale=_BY_SCALE, grid=grid)
