"""Initial weights of the built-in models: everybody draws the same from the seed (algorithm.md
1.2).
"""

import math
from typing import Tuple

import numpy as np

from flq import rng
from flq.parameters import Layout


def initial_params(layout: Layout, init: str, seed: int) -> np.ndarray:
    """float32[p]: `glorot_uniform` or `zeros`.

    Glorot and Bengio 2010, equation 16: a kernel is uniform on [-a, a) with a = sqrt(6 / (fan_in +
    fan_out)); fans as Keras counts them. Rank-1 tensors (biases) are 0. Computed in float64,
    rounded once.
    """
    params = np.zeros(layout.num_params, np.float32)
    if init == "zeros":
        return params
    stream = rng.Stream(seed, rng.INIT)
    start = 0
    for shape, size in zip(layout.shapes, layout.sizes):
        if len(shape) >= 2:
            bound = math.sqrt(6.0 / sum(_fans(shape)))
            params[start:start + size] = (2.0 * stream.uniform(size) - 1.0) * bound
        start += size
    return params


def _fans(shape: Tuple[int, ...]) -> Tuple[int, int]:
    """fan_in, fan_out of a dense kernel [in, out] or a convolution kernel [..., in, out]."""
    receptive_field = int(np.prod(shape[:-2], dtype=np.int64))
    return shape[-2] * receptive_field, shape[-1] * receptive_field
