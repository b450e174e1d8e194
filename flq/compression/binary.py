"""bin: one sign per weight and the mean magnitude (Karimireddy et al. 2019, section 3: scaled
sign).

    c = sign(d) mean|d|

An exact zero gets a drawn sign: a fixed one would push every unused weight the same way.
"""

from typing import Any

import numpy as np

from flq.compression.quantizer import SMALLEST_SCALE, ByScale, Draw, Quantizer, around_middle
from flq.modes import MODES
from flq.parameters import row_sums_f64, sum_f64


def _mean(values: np.ndarray) -> Any:
    """mean|d| of a tensor, or of each row."""
    magnitudes = np.abs(values)
    total = sum_f64(magnitudes) if values.ndim == 1 else row_sums_f64(magnitudes)
    mean = np.asarray(total / values.shape[-1])
    return np.where(mean >= SMALLEST_SCALE, mean, 0.0).astype(np.float32)[()]


def _levels(values: np.ndarray, scale: Any, bits: int, draw: Draw) -> np.ndarray:
    levels = (values > 0).astype(np.uint8)
    zeros = np.flatnonzero(values == 0)
    levels.reshape(-1)[zeros] = draw(zeros.size) < 0.5
    return levels


def _decode(scale: Any, levels: np.ndarray, bits: int) -> np.ndarray:
    values = around_middle(levels, 1, bits, times=2)
    values *= scale
    return values


_BY_SCALE = ByScale(_mean, _levels, zero_level=lambda bits: 0, covers=False)
BIN = Quantizer(MODES["bin"], has_scale=True, max_level=lambda bits: 1, encode=_BY_SCALE.encode,
                decode=_decode, by_scale=_BY_SCALE)
