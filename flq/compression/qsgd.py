"""qsgd: bbit's grid with unbiased stochastic rounding (Alistarh et al. 2017).

    c = s (floor(d / s + L + u) - L), u uniform in [0, 1), so that E[c] = d
"""

from typing import Tuple

import numpy as np

from flq.compression import bbit
from flq.compression.quantizer import Draw, Quantizer, level_dtype, radius
from flq.modes import MODES


def _encode(values: np.ndarray, bits: int, draw: Draw) -> Tuple[np.float32, np.ndarray]:
    scale = radius(values)
    if scale == 0:
        return scale, np.full(values.size, bbit.max_level(bits) // 2, level_dtype(bits))
    scaled = bbit.scaled_to_grid(values, scale, bits)
    scaled += draw(values.size)
    return scale, scaled.astype(level_dtype(bits))


QSGD = Quantizer(MODES["qsgd"], has_scale=True, max_level=bbit.max_level, encode=_encode,
                 decode=bbit.decode)
