"""Bytes of eight unequal bits <-> fewer bytes, by asymmetric numeral systems (rANS, Duda 2013;
interleaved as in Giesen 2014).

Each byte holds eight bits that are 1 with the probability of its source, so that a byte's frequency
follows from the number of its ones alone, and nothing but that probability has to travel. A lane is
a number x of [2^24, 2^40). To write a byte of frequency f that begins at c, of M = 2^15,

    if x >= 2^25 f: the low 16 bits of x go out, x <- x >> 16
    x <- M floor(x / f) + x mod f + c

and reading undoes it; the last byte is written first, so that the first one is read first. Byte t
belongs to lane t mod W, so that one NumPy step works on W bytes. A lane starts from 2^24 + 24 bits
of something else that has to travel (`seeds`): an empty lane would waste them.

Everything is an integer, so that a stream is the same on every machine.
"""

from typing import NamedTuple, Tuple

import numpy as np

from flq import kernels
from flq.errors import FrameError
from flq.kernels import RANS_LOW as _LOW
from flq.kernels import RANS_PRECISION as _PRECISION

SEED_BYTES, STATE_BYTES = 3, 5
STEPS = 400
"""How many steps a stream takes, as long as MOST_LANES do: more lanes are faster and cost about 9
bits each."""
MOST_LANES = 1024

_M = 1 << _PRECISION
_ONES = np.array([bin(byte).count("1") for byte in range(256)])
_BY_ONES = np.argsort(_ONES, kind="stable")  # all bytes, those with few ones first
_CHOICES = np.bincount(_ONES)                # how many bytes have k ones
_GROUPS = [np.flatnonzero(ones == _ONES).astype(np.uint8)[:, None] for ones in range(9)]
_RANK = np.empty(256, np.int64)              # of a byte among those with as many ones
_RANK[_BY_ONES] = np.arange(256) - np.repeat(np.cumsum(_CHOICES) - _CHOICES, _CHOICES)


class Sources(NamedTuple):
    """Of Q sources, by 256 source + byte: how often of M a byte is written, and where it begins,
    int64[256 Q].
    """

    frequencies: np.ndarray
    starts: np.ndarray


def sources(ones: np.ndarray, lengths: np.ndarray) -> Sources:
    """The sources of which `ones` of `length` bits are 1, int64[Q], 0 < ones < length < 2^46.

    With q = ones / length in units of 2^-16, between 1 and 65535: powers by repeated multiplication
    from 2^30, rounded down, q^(k+1) = q q^k >> 16. A byte with k ones has the frequency max(1, q^k
    (2^16 - q)^(8 - k) >> 45), and what is missing from M is added to the byte 0, or to 255 where q
    is at least 2^15. Bytes begin one behind another, those with few ones first.
    """
    chance = np.clip((ones << 16) // lengths, 1, 65535)
    powers = []
    for factor in (chance, 65536 - chance):
        power = [np.full(lengths.size, 1 << 30, np.int64)]
        for _ in range(8):
            power.append((power[-1] * factor) >> 16)
        powers.append(power)
    of_ones = np.stack([np.maximum(1, (powers[0][k] * powers[1][8 - k]) >> (60 - _PRECISION))
                        for k in range(9)], axis=1)
    # Where the rarest were given more than they have, 255 at most in all, the most frequent byte
    # has 2,000 or more.
    rest = _M - of_ones.dot(_CHOICES)
    rows = np.arange(lengths.size)
    of_ones[rows, np.where(chance < 32768, 0, 8)] += rest
    begins = np.cumsum(of_ones * _CHOICES, axis=1) - of_ones * _CHOICES
    frequencies = of_ones.take(_ONES, axis=1)
    starts = begins.take(_ONES, axis=1) + _RANK * frequencies
    return Sources(frequencies.reshape(-1), starts.reshape(-1))


def num_lanes(count: int) -> int:
    """W of a stream of that many bytes."""
    return min(MOST_LANES, -(-count // STEPS))


def encode(values: np.ndarray, rows: np.ndarray, table: Sources, seeds: bytes) -> bytes:
    """values: uint8[n]. rows: the source of each, int64[n]. seeds: SEED_BYTES for each lane.

    -> STATE_BYTES for each lane, then words of 16 bits.
    """
    if not values.size:
        return b""
    state = _unpack(seeds, SEED_BYTES) + (1 << _LOW)
    words = kernels.rans_write((rows << 8) + values, table.frequencies, table.starts, state)
    return _pack(state, STATE_BYTES) + words.astype("<u2").tobytes()


def decode(stream: bytes, rows: np.ndarray, table: Sources) -> Tuple[np.ndarray, bytes]:
    """What encode was given: the values, uint8[n], and the seeds. Every byte of the stream is used.

    Raises FrameError.
    """
    count, lanes = rows.size, num_lanes(rows.size)
    if not count:
        if stream:
            raise _other_length(len(stream))
        return np.zeros(0, np.uint8), b""
    head = STATE_BYTES * lanes
    if len(stream) < head or (len(stream) - head) % 2:
        raise _other_length(len(stream))
    state = _unpack(stream[:head], STATE_BYTES)
    if state.min() < 1 << _LOW:
        raise FrameError("bad_coding", "a coder's lane is empty", 1 << _LOW, int(state.min()))
    words = np.frombuffer(stream[head:], "<u2").astype(np.uint16, copy=False)
    values, used = kernels.rans_read(rows, _bytes_by_slot(table), table.frequencies, table.starts,
                                     state, words)
    if used != words.size or (state >> _LOW != 1).any():
        raise _other_length(len(stream))
    return values, _pack(state & ((1 << _LOW) - 1), SEED_BYTES)


def _bytes_by_slot(table: Sources) -> np.ndarray:
    """By M source + slot, the byte that has it, uint8[M Q]."""
    found: np.ndarray = np.empty(table.frequencies.size // 256 * _M, np.uint8)
    start = 0
    for frequencies in table.frequencies.reshape(-1, 256):
        for group in _GROUPS:  # bytes with as many ones have the same frequency
            frequency = int(frequencies[group[0, 0]])
            end = start + group.size * frequency
            found[start:end].reshape(group.size, frequency)[:] = group
            start = end
    return found


def _other_length(got: int) -> FrameError:
    return FrameError("bad_coding", "the coded levels are damaged",
                      "a stream that ends where its lanes began", f"another one in {got} bytes")


def _pack(numbers: np.ndarray, width: int) -> bytes:
    """The low `width` bytes of each."""
    return np.ascontiguousarray(
        numbers.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]).tobytes()


def _unpack(data: bytes, width: int) -> np.ndarray:
    wide = np.zeros((len(data) // width, 8), np.uint8)
    wide[:, :width] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return wide.view("<i8").reshape(-1).astype(np.int64)
