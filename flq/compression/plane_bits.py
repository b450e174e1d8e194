"""How many bits contexts.py takes for some levels, counted instead of written.

The count is made of integers, so that whoever computes a broadcast again chooses the same step.
"""

import functools
from typing import Tuple

import numpy as np

from flq.compression import contexts, rans

_REACH = contexts.PLANES + 1  # distances from 0 to PLANES, which stands for all from there on
_UNIT = 16                    # entropies are in 2^-16 bit
_BITS_PER_LANE = 9
_FIXED_BITS = 32


def classes_of(activity: np.ndarray) -> np.ndarray:
    """The class of each weight, uint8[p]."""
    sizes = contexts.class_sizes(activity.size)
    found = np.empty(activity.size, np.uint8)
    found[contexts.order_of(activity)] = np.repeat(np.arange(len(sizes)), sizes)
    return found


def reaching(distances: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How many weights of each class are at least 0, 1, ... PLANES steps from the middle,
    int64[CLASSES, PLANES + 1]. distances: of at most PLANES, any dtype, [n]. classes: uint8[n].
    """
    keys = classes * np.uint8(_REACH)
    keys += distances.astype(np.uint8)
    counts: np.ndarray = np.bincount(keys, minlength=contexts.CLASSES * _REACH)
    by_class = counts.reshape(contexts.CLASSES, _REACH)
    return np.cumsum(by_class[:, ::-1], axis=1)[:, ::-1]


def entropy_bits(reached: np.ndarray, bits: int) -> float:
    """What the planes, signs and excess of these weights take at their entropy."""
    lengths, ones = reached[:, :-1], reached[:, 1:]
    chance = np.clip((ones << _UNIT) // np.maximum(lengths, 1), 1, (1 << _UNIT) - 1)
    logs = _logarithms()
    planes = ones * logs.take(chance) + (lengths - ones) * logs.take((1 << _UNIT) - chance)
    planes[(ones == 0) | (ones == lengths)] = 0
    far = int(reached[:, -1].sum()) * bits
    return int(planes.sum()) / 2 ** _UNIT + int(reached[:, 1].sum()) + far


def coded_bits(reached: np.ndarray, bits: int) -> float:
    """What contexts.compress takes, to a hundredth of it for 100,000 weights."""
    lengths, ones = reached[:, :-1], reached[:, 1:]
    coded = lengths[(ones > 0) & (ones < lengths)]
    lanes = rans.num_lanes(int((-(-coded // 8)).sum()))
    numbers = ones[lengths > 0]
    num_bytes = sum(int((numbers >> shift > 0).sum()) for shift in (7, 14, 21, 28))
    return (entropy_bits(reached, bits) + _FIXED_BITS + _BITS_PER_LANE * lanes
            + 8 * (numbers.size + num_bytes))


@functools.lru_cache(maxsize=None)
def _logarithms() -> np.ndarray:
    """-log2(i / 2^16) in 2^-16, rounded up, of i = 0 to 2^16 (of 0: that of 1), int64."""
    found: np.ndarray = np.zeros((1 << _UNIT) + 1, np.int64)
    number = np.maximum(np.arange((1 << _UNIT) + 1, dtype=np.uint64), np.uint64(1))
    shift = np.zeros(number.size, np.int64)
    while (number < 1 << 31).any():  # to [2^31, 2^32)
        small = number < 1 << 31
        number[small] <<= np.uint64(1)
        shift[small] += 1
    for digit in range(_UNIT - 1, -1, -1):  # the fraction of log2, by squaring
        number = number * number >> np.uint64(31)
        over = number >= 1 << 32
        number[over] >>= np.uint64(1)
        found[over] += 1 << digit
    return ((shift - 15) << _UNIT) - found


def clipped(levels: np.ndarray, max_level: int) -> Tuple[np.ndarray, float]:
    """The distances of levels from the middle, at most PLANES, and their sum before that."""
    distances = contexts.distances(levels, max_level)
    total = float(np.add.reduce(distances, dtype=np.int64))
    return np.minimum(distances, contexts.PLANES), total
