"""The length of a sum of vectors, without the sum: a count sketch (Charikar 2002).

    s_j = sum over the i of bucket j of sign_i x_i,      ||s||^2 is ||x||^2 within a few per cent

It is linear: the sketch of a reference is the sum of the sketches of what was committed. 1,024
numbers stand for a vector of any length, and the error of ||s|| has a deviation of 1 / sqrt(2,048)
of it. Buckets and signs are drawn from a secret of the master: who knew them could send what the
sketch does not see.
"""

import functools
import math
from typing import Tuple

import numpy as np

from flq import rng
from flq.parameters import squared_norm

WIDTH = 1024
KEY_BYTES = 8


@functools.lru_cache(maxsize=2)
def _hashes(key: bytes, length: int) -> Tuple[np.ndarray, np.ndarray]:
    """The bucket of each entry, intp[length], and its sign, float32[length]."""
    words = rng.Stream(int.from_bytes(key, "little"), rng.SKETCH).raw(length)
    buckets = (words % np.uint64(WIDTH)).astype(np.intp)
    signs = np.float32(1) - np.float32(2) * (words >> np.uint64(63)).astype(np.float32)
    return buckets, signs


def sketch(key: bytes, vector: np.ndarray) -> np.ndarray:
    """float32[p] -> float64[WIDTH], the same bits on every machine. key: KEY_BYTES long."""
    buckets, signs = _hashes(key, vector.size)
    return np.bincount(buckets, weights=signs * vector, minlength=WIDTH)


def length(sketched: np.ndarray) -> float:
    """||x|| of what was sketched, about."""
    return math.sqrt(squared_norm(sketched))
