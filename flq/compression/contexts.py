"""Levels <-> few bytes where sender and receiver both know which weights moved in earlier rounds.

Each weight has an activity, one byte: a moving average of how many steps of the grid it moved. The
weights in the order of their activity (ties by position) are cut into equal classes; one of weights
that moved often has other frequencies than one of weights that rested. What a level says is split
into planes, as in DeepCABAC (Wiedemann 2020): for j = 1, 2, ... whether its distance from the
middle of the grid reaches j, told of those that reach j - 1. Each plane of each class is a source
of bits for rans.py, of which only the number of ones has to travel. Signs are as good as random and
travel as they are, the first of them as seeds of the coder's lanes. A grid of 2^b levels has two in
the middle, of which an exact zero takes the upper one: there the distance is counted from that one,
up and down in turn, and there are no signs.

    crc32 of the activity | ones of each plane and class | signs | excess | lanes and words

The activity is a function of the levels that were sent before, so both sides have the same. All of
it is integers.
"""

import functools
import zlib
from typing import Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from flq import kernels
from flq.compression import entropy, packing, rans
from flq.compression.quantizer import level_dtype
from flq.errors import DataError, FrameError
from flq.pieces import pieces

CLASSES = 16
SMALLEST_CLASS = 512
"""Weights: a smaller class does not pay for its numbers of ones."""
PLANES = 15
"""A level that is further out tells the rest of its distance in b bits."""
MEAN_DISTANCE = 4
"""Levels that are further out on average are not coded this way: each step is a plane."""

_TOP = 255
"""The largest activity."""
_CHECK_BYTES = 4
_LONGEST_NUMBER = 9
_MANTISSA, _UNIT, _LARGEST = 4, 8, 127
"""Binary digits behind the first one of an activity, as a float has them; an activity of one step
is 2^8; steps beyond 127 count as 127."""


def initial_activity(num_params: int) -> np.ndarray:
    """Of weights of which nothing was sent yet, uint8[p]."""
    return np.zeros(num_params, np.uint8)


def activity_to_bytes(activity: np.ndarray) -> bytes:
    """For a receiver that has none: coded as levels in base 256."""
    return entropy.compress(activity, _TOP)


def activity_from_bytes(data: bytes, num_params: int) -> np.ndarray:
    """What activity_to_bytes made, uint8[p]. Raises FrameError."""
    return entropy.decompress(data, num_params, 8, _TOP)


def longest_activity(num_params: int) -> int:
    """Bytes of an activity at most: zlib adds 5 to each of its blocks, and 6 in all."""
    return num_params + num_params // 1000 + 64


def next_activity(activity: np.ndarray, levels: np.ndarray, max_level: int) -> np.ndarray:
    """a <- 15/16 a + 1/16 distance (times 2^12, in 256 values), uint8[p], after one more round."""
    table, after = _transitions(), np.empty_like(activity)
    for part in pieces(0, activity.size):
        steps = distances(levels[part], max_level)
        if not _has_middle(max_level):
            steps >>= 1  # both middle levels are equally near
        kernels.after_steps(table, activity[part], steps, after[part])
    return after


@functools.lru_cache(maxsize=None)
def _transitions() -> np.ndarray:
    """By 128 activity + distance, the next activity: rounded down to one that exists."""
    codes, hidden = np.arange(256), 1 << _MANTISSA
    means = np.where(codes < hidden, codes,
                     (hidden + codes % hidden) << np.maximum(0, (codes >> _MANTISSA) - 1))
    after = (15 * means >> 4)[:, None] + (np.arange(_LARGEST + 1) << _UNIT)[None, :]
    return (np.searchsorted(means, after.reshape(-1), side="right") - 1).astype(np.uint8)


class _Planes(NamedTuple):
    """For each plane, of each class: of how many weights it tells, and of how many it is 1."""

    lengths: List[List[int]]
    ones: List[List[int]]

    def pairs(self) -> Iterator[Tuple[int, int]]:
        """(length, ones), plane by plane."""
        for lengths, ones in zip(self.lengths, self.ones):
            yield from zip(lengths, ones)

    def num_reaching(self, distance: int) -> int:
        """How many weights are at least so far out."""
        return sum(self.ones[distance - 1]) if distance <= len(self.ones) else 0

    def sources(self) -> Tuple[rans.Sources, np.ndarray]:
        """Of what is neither all 0 nor all 1, and the source of each of its bytes, int64[n]."""
        coded = np.array([pair for pair in self.pairs() if 0 < pair[1] < pair[0]],
                         np.int64).reshape(-1, 2)
        rows = np.repeat(np.arange(len(coded), dtype=np.int64), -(-coded[:, 0] // 8))
        return rans.sources(coded[:, 1], coded[:, 0]), rows


def compress(levels: np.ndarray, bits: int, max_level: int,
             activity: np.ndarray) -> Optional[bytes]:
    """Levels of at most two bytes -> a stream, None where they are more than MEAN_DISTANCE from the
    middle on average. activity: uint8[p], of before these levels.

    Raises DataError for an activity of another number of weights.
    """
    if activity.shape != levels.shape:
        raise DataError("the activity is that of other weights", levels.shape, activity.shape)
    rest = distances(levels, max_level)
    if int(np.add.reduce(rest, dtype=np.int64)) > MEAN_DISTANCE * levels.size:
        return None
    order = order_of(activity)
    rest = rest.take(order)
    signs = b""
    if _has_middle(max_level):
        signs = np.packbits((levels.take(order) < max_level // 2)[rest > 0]).tobytes()
    lengths, planes, packed = class_sizes(levels.size), _Planes([], []), []
    for plane in range(1, _num_planes(max_level) + 1):
        reaches, ones, start = rest >= plane, [], 0
        for length in lengths:
            part = reaches[start:start + length]
            start += length
            ones.append(int(np.count_nonzero(part)))
            if 0 < ones[-1] < length:
                packed.append(np.packbits(part))
        planes.lengths.append(lengths)
        planes.ones.append(ones)
        lengths, rest = ones, rest[reaches]
    excess = b""
    if _farthest(max_level) > PLANES:
        excess = packing.pack((rest - PLANES).astype(level_dtype(bits)), bits)
    table, rows = planes.sources()
    num_seeds = rans.SEED_BYTES * rans.num_lanes(rows.size)
    values = np.concatenate(packed) if packed else np.zeros(0, np.uint8)
    coded = rans.encode(values, rows, table, signs[:num_seeds].ljust(num_seeds, b"\0"))
    numbers = b"".join(_number(ones) for length, ones in planes.pairs() if length)
    return b"".join([_check(activity), numbers, signs[num_seeds:], excess, coded])


def decompress(stream: bytes, bits: int, max_level: int, activity: np.ndarray) -> np.ndarray:
    """A stream -> the levels of the weights whose activity this is, uint8 or uint16[p].

    Takes no more room and steps than p implies. Raises FrameError: other_history where the sender
    had another activity; bad_coding, bad_level or dirty_padding where the stream is damaged.
    """
    if stream[:_CHECK_BYTES] != _check(activity):
        raise FrameError("other_history", "the levels were coded beside another history",
                         _check(activity).hex(), stream[:_CHECK_BYTES].hex())
    count = activity.size
    planes, start = _read_numbers(stream, count, max_level)
    table, rows = planes.sources()
    num_signs = planes.num_reaching(1) if _has_middle(max_level) else 0
    num_seeds = rans.SEED_BYTES * rans.num_lanes(rows.size)
    signs_end = start + max(0, -(-num_signs // 8) - num_seeds)
    num_far = planes.num_reaching(PLANES) if _farthest(max_level) > PLANES else 0
    excess_end = signs_end + packing.packed_length(num_far, bits)
    if excess_end > len(stream):
        raise FrameError("bad_coding", "the coded levels end too early", f"{excess_end} bytes",
                         len(stream))
    values, seeds = rans.decode(stream[excess_end:], rows, table)
    distance = _read_planes(planes, values, np.int16 if max_level < 512 else np.int32)
    if num_far:
        excess = packing.unpack(stream[signs_end:excess_end], num_far, bits)
        if int(excess.max()) > _farthest(max_level) - PLANES:
            raise FrameError("bad_level", "a level is above the grid",
                             f"at most {_farthest(max_level)} steps out",
                             int(excess.max()) + PLANES)
        distance[distance == PLANES] += excess.astype(distance.dtype)
    negative = _read_bits(seeds + stream[start:signs_end], num_signs)
    levels: np.ndarray = np.empty(count, level_dtype(bits))
    levels[order_of(activity)] = _levels_of(distance, negative, max_level).astype(levels.dtype)
    return levels


def _has_middle(max_level: int) -> bool:
    return max_level % 2 == 0


def _farthest(max_level: int) -> int:
    """The largest distance."""
    return max_level // 2 if _has_middle(max_level) else max_level


def distances(levels: np.ndarray, max_level: int) -> np.ndarray:
    """Steps from the middle; where there are two middle levels, 0, 2, 4 ... from the upper one on
    and 1, 3, 5 ... from the lower one down. int16 or int32[p].
    """
    steps: np.ndarray = levels.astype(np.int16 if max_level < 512 else np.int32)
    if _has_middle(max_level):
        steps -= max_level // 2
        return np.abs(steps)
    steps *= 2
    steps -= max_level + 1
    return np.maximum(steps, ~steps)


def _levels_of(distance: np.ndarray, negative: np.ndarray, max_level: int) -> np.ndarray:
    """The levels at these distances. negative: bool, of each level that is not the middle."""
    if _has_middle(max_level):
        below = (distance > 0).nonzero()[0][negative]
        distance[below] = -distance.take(below)
        distance += max_level // 2
        return distance
    return (np.where(distance & 1, ~distance, distance) + (max_level + 1)) >> 1


def _check(activity: np.ndarray) -> bytes:
    return zlib.crc32(np.ascontiguousarray(activity)).to_bytes(_CHECK_BYTES, "little")


def order_of(activity: np.ndarray) -> np.ndarray:
    """The weights, those that moved least first."""
    return kernels.order_of_bytes(activity)


def class_sizes(count: int) -> List[int]:
    """Of that many weights, those that moved least first."""
    classes = max(1, min(CLASSES, count // SMALLEST_CLASS))
    ends = [count * index // classes for index in range(classes + 1)]
    return [end - start for start, end in zip(ends, ends[1:])]


def _num_planes(max_level: int) -> int:
    return min(PLANES, _farthest(max_level))


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first, bit 7 where another byte follows (LEB128)."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_number(stream: bytes, place: int) -> Tuple[int, int]:
    """A number that begins there, and where it ends. Raises FrameError."""
    value = 0
    for index, byte in enumerate(stream[place:place + _LONGEST_NUMBER]):
        value |= (byte & 127) << (7 * index)
        if byte < 128 and (byte or not index):
            return value, place + index + 1
    raise FrameError("bad_coding", "a plane's number of ones does not end",
                     f"at most {_LONGEST_NUMBER} bytes, the last one not 0",
                     stream[place:place + _LONGEST_NUMBER].hex())


def _read_numbers(stream: bytes, count: int, max_level: int) -> Tuple[_Planes, int]:
    """The numbers of ones, and where they end. Raises FrameError."""
    planes, lengths, place, total = _Planes([], []), class_sizes(count), _CHECK_BYTES, 0
    for _ in range(_num_planes(max_level)):
        ones = []
        for length in lengths:
            value, place = _read_number(stream, place) if length else (0, place)
            if value > length:
                raise FrameError("bad_coding", "a plane has more ones than weights", length, value)
            ones.append(value)
        planes.lengths.append(lengths)
        planes.ones.append(ones)
        lengths, total = ones, total + sum(ones)
    if total > MEAN_DISTANCE * count:
        raise FrameError("bad_coding", "the coded levels are further out than these can be",
                         f"at most {MEAN_DISTANCE * count} steps in all", total)
    return planes, place


def _read_planes(planes: _Planes, values: np.ndarray, dtype: type) -> np.ndarray:
    """The distances in the order of the classes, from the bytes of the coded planes.

    Raises FrameError.
    """
    distance: np.ndarray = np.zeros(sum(planes.lengths[0]) if planes.lengths else 0, dtype)
    place, here = 0, None
    for plane, (lengths, ones) in enumerate(zip(planes.lengths, planes.ones), 1):
        parts = []
        for length, number in zip(lengths, ones):
            if 0 < number < length:
                size = -(-length // 8)
                parts.append(_read_bits(values[place:place + size].tobytes(), length))
                place += size
                if int(np.count_nonzero(parts[-1])) != number:
                    raise FrameError("bad_coding", "a plane has another number of ones", number,
                                     int(np.count_nonzero(parts[-1])))
            else:
                parts.append(np.full(length, number > 0))
        reaches = np.concatenate(parts)
        here = np.flatnonzero(reaches) if here is None else here[reaches]
        distance[here] = plane
    return distance


def _read_bits(data: bytes, count: int) -> np.ndarray:
    """The first bits of the bytes, bool[count]; zeros follow. Raises FrameError."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).view(np.bool_)
    if bits[count:].any():
        raise FrameError("dirty_padding", "the bits behind the last one are not zero", 0, 1)
    return bits[:count]
