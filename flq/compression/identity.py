"""fedavg: no quantisation. The levels are the float32 words themselves (McMahan et al. 2017)."""

from typing import Optional, Tuple

import numpy as np

from flq.compression.quantizer import Draw, Quantizer
from flq.modes import MODES


def _encode(values: np.ndarray, bits: int, draw: Draw) -> Tuple[Optional[np.float32], np.ndarray]:
    return None, values.astype(np.float32).view(np.uint32)


def _decode(scale: Optional[np.float32], levels: np.ndarray, bits: int) -> np.ndarray:
    return levels.view(np.float32)


FEDAVG = Quantizer(MODES["fedavg"], has_scale=False, max_level=lambda bits: 2**32 - 1,
                   encode=_encode, decode=_decode)
