"""bin: one sign per weight and the mean magnitude (Karimireddy et al. 2019, section 3: scaled
sign).

    c = sign(d) mean|d|

An exact zero gets a drawn sign: a fixed one would push every unused weight the same way.
"""

from typing import Tuple

import numpy as np

from flq.compression.quantizer import SMALLEST_SCALE, Draw, Quantizer
from flq.modes import MODES
from flq.parameters import sum_f64


def _encode(values: np.ndarray, bits: int, draw: Draw) -> Tuple[np.float32, np.ndarray]:
    mean = sum_f64(np.abs(values)) / values.size
    scale = np.float32(mean) if mean >= SMALLEST_SCALE else np.float32(0)
    if scale == 0:
        return scale, np.zeros(values.size, np.uint8)
    levels = (values > 0).astype(np.uint8)
    zeros = np.flatnonzero(values == 0)
    levels[zeros] = draw(zeros.size) < 0.5
    return scale, levels


def _decode(scale: np.float32, levels: np.ndarray, bits: int) -> np.ndarray:
    values = levels.astype(np.float32)
    values *= np.float32(2)
    values -= np.float32(1)
    values *= scale
    return values


BIN = Quantizer(MODES["bin"], has_scale=True, max_level=lambda bits: 1, encode=_encode,
                decode=_decode)
