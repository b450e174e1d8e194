"""qsgd: bbit's grid with unbiased stochastic rounding (Alistarh et al. 2017).

    c = s (floor(d / s + L + u) - L), u uniform in [0, 1), so that E[c] = d
"""

from typing import Any

import numpy as np

from flq.compression import bbit
from flq.compression.quantizer import ByScale, Draw, Quantizer, level_dtype, radius
from flq.modes import MODES


def _levels(values: np.ndarray, scale: Any, bits: int, draw: Draw) -> np.ndarray:
    scaled = bbit.scaled_to_grid(values, scale, bits)
    scaled += draw(values.size).reshape(values.shape)
    return scaled.astype(level_dtype(bits))


_BY_SCALE = ByScale(radius, _levels, zero_level=bbit.middle)
QSGD = Quantizer(MODES["qsgd"], has_scale=True, max_level=bbit.max_level, encode=_BY_SCALE.encode,
                 decode=bbit.decode, by_scale=_BY_SCALE, grid=bbit.grid)
