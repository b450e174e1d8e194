"""The length of a sum of vectors, without the sum: a count sketch (Charikar 2002).

    s_j = sum over the i of bucket j of sign_i x_i,      ||s||^2 is ||x||^2 within a few per cent

It is linear: the sketch of a reference is the sum of the sketches of what was committed. 1,024
numbers stand for a vector of any length, and the error of ||s|| has a deviation of 1 / sqrt(2,048)
of it. Buckets and signs are drawn from a secret of the master: who knew them could send what the
sketch does not see.

A sign is drawn for each entry, and buckets so that nothing is looked up entry by entry. The vector
lies in rows of 32,768. Each row is turned by an amount of its own, and the turned rows are added.
Their sum lies in 32 rows of 1,024, which are turned and added in the same way.

The deviation needs of the buckets only that no two entries share one more often than in one draw of
1,024, whoever chose the entries: the variance of ||s||^2 is at most 2 ||x||^4 P. Two entries of one
row stay apart in the first sum. In the second they share a bucket never or with P = 1/1,024. Two of
different rows meet in the first sum with P = 1/32,768, and else the same holds: P < 1/992.
"""

import functools
import math
from typing import Tuple

import numpy as np

from flq import kernels, rng
from flq.kernels import WIDTH, Turns
from flq.pieces import PIECE

KEY_BYTES = 16
"""Of the keys that are drawn today."""
_ROW = PIECE
_OLD_KEY_BYTES = 8


def sketch(key: bytes, vector: np.ndarray) -> np.ndarray:
    """float32[p] -> float64[WIDTH], the same bits on every machine. key: KEY_BYTES long, or as that
    of a run which an older version began.
    """
    return measured(key, vector)[1]


def measured(key: bytes, vector: np.ndarray) -> Tuple[float, np.ndarray]:
    """squared_norm of a float32 vector, and its sketch, in one pass."""
    if len(key) == _OLD_KEY_BYTES:
        return kernels.squared_norm(vector), _by_entry(key, vector)
    return kernels.sketch(vector, _turns(key, vector.size))


def length(sketched: np.ndarray) -> float:
    """||x|| of what was sketched, about."""
    return math.sqrt(kernels.squared_norm(sketched))


@functools.lru_cache(maxsize=2)
def _turns(key: bytes, length: int) -> Turns:
    stream = rng.Stream(int.from_bytes(key[:8], "little"), rng.SKETCH,
                        int.from_bytes(key[8:], "little"))
    first = stream.raw(-(-length // _ROW)) % np.uint64(_ROW)
    second = stream.raw(_ROW // WIDTH) % np.uint64(WIDTH)
    bits = np.unpackbits(stream.raw(-(-length // 64)).astype("<u8").view(np.uint8))[:length]
    return Turns(kernels.signs(bits), first.astype(np.uint32), second.astype(np.uint32))


# --- of runs that an older version began: a bucket for each entry, from a shorter key


@functools.lru_cache(maxsize=2)
def _hashes(key: bytes, length: int) -> Tuple[np.ndarray, np.ndarray]:
    """The bucket of each entry, intp[length], and its sign, float32[length]."""
    words = rng.Stream(int.from_bytes(key, "little"), rng.SKETCH).raw(length)
    buckets = (words % np.uint64(WIDTH)).astype(np.intp)
    signs = np.float32(1) - np.float32(2) * (words >> np.uint64(63)).astype(np.float32)
    return buckets, signs


def _by_entry(key: bytes, vector: np.ndarray) -> np.ndarray:
    buckets, signs = _hashes(key, vector.size)
    return np.bincount(buckets, weights=signs * vector, minlength=WIDTH)
