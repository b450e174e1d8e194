"""bin: one sign per weight and the mean magnitude (Karimireddy et al. 2019, section 3: scaled
sign).

    c = sign(d) mean|d|

An exact zero gets a drawn sign: a fixed one would push every unused weight the same way.
"""

import functools
from typing import Any

import numpy as np

from flq.compression.quantizer import SMALLEST_SCALE, ByScale, Draw, Grid, Quantizer, decode_grid
from flq.kernels import row_sums_f64, sum_of_magnitudes
from flq.modes import MODES


def _mean(values: np.ndarray) -> Any:
    """mean|d| of a tensor, or of each row, not finite where a value is not."""
    total = sum_of_magnitudes(values) if values.ndim == 1 else row_sums_f64(np.abs(values))
    mean = np.asarray(total / values.shape[-1])
    return np.where(mean < SMALLEST_SCALE, 0.0, mean).astype(np.float32)[()]


def _levels(values: np.ndarray, scale: Any, bits: int, draw: Draw) -> np.ndarray:
    levels = (values > 0).astype(np.uint8)
    zeros = np.flatnonzero(values == 0)
    levels.reshape(-1)[zeros] = draw(zeros.size) < 0.5
    return levels


def _grid(scale: Any, bits: int) -> Grid:
    return Grid(2, 1, scale)


_BY_SCALE = ByScale(_mean, _levels, zero_level=lambda bits: 0, covers=False)
BIN = Quantizer(MODES["bin"], has_scale=True, max_level=lambda bits: 1, encode=_BY_SCALE.encode,
                decode=functools.partial(decode_grid, _grid), by_scale=_BY_SCALE, grid=_grid)
