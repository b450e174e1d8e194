"""laq: the uniform grid of LAQ over [-R, R] (Sun et al. 2019, eq. 5 and 6).

    R = max|d|, tau = 1 / (2^b - 1), level = floor((d + R) / (2 tau R) + 1/2), c = 2 tau R level - R

The largest error is tau R. The grid has 2^b levels and none of them is zero.
"""

from typing import Tuple

import numpy as np

from flq.compression.quantizer import Draw, Quantizer, grid_step, level_dtype, radius
from flq.modes import MODES


def _encode(values: np.ndarray, bits: int, draw: Draw) -> Tuple[np.float32, np.ndarray]:
    scale = radius(values)
    if scale == 0:
        return scale, np.zeros(values.size, level_dtype(bits))
    scaled = values.astype(np.float64)
    scaled += float(scale)
    # exact before the division, so that an exact zero always takes the upper level
    scaled *= 2 ** bits - 1
    scaled /= 2.0 * float(scale)
    scaled += 0.5
    return scale, scaled.astype(level_dtype(bits))  # all are positive: the cast is floor


def _decode(scale: np.float32, levels: np.ndarray, bits: int) -> np.ndarray:
    steps = 2 ** bits - 1
    # 2 tau R level - R, written around the middle so that it is symmetric and cannot overflow.
    values = levels.astype(np.float32)
    values *= np.float32(2)
    values -= np.float32(steps)
    values *= grid_step(scale, steps)
    return values


LAQ = Quantizer(MODES["laq"], has_scale=True, max_level=lambda bits: 2**bits - 1, encode=_encode,
                decode=_decode)
