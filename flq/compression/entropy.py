"""Levels <-> fewer bytes when some levels are much more frequent than others.

Levels in base n = max_level + 1. As many digits as fit into a byte (the largest m <= 8 with n^m <=
256) are written into one; a level that needs more than a byte becomes two byte planes. Then zlib
with
Huffman codes, with or without run lengths, whichever a sample of the bytes says: weights of units
that are dead for a shard's samples make long runs of zeros in a model's updates, and other matches
do not occur in noise.
"""

from typing import Any

import numpy as np

from flq import kernels
from flq.compression.deflate import zlib
from flq.compression.quantizer import level_dtype
from flq.errors import FrameError

STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
_PIECES, _PIECE = 16, 2048
_FEW_RUNS = 64


def digits_per_byte(base: int) -> int:
    """m, 0 when one level needs two bytes."""
    if base > 256:
        return 0
    digits = 1
    while digits < 8 and base ** (digits + 1) <= 256:
        digits += 1
    return digits


def compress(levels: np.ndarray, max_level: int) -> bytes:
    """Levels of at most two bytes -> a zlib stream."""
    plain = np.frombuffer(to_bytes(levels, max_level + 1), np.uint8)
    return to_stream(plain, _strategy(sample(plain)))


def _strategy(few: np.ndarray) -> int:
    """The strategy that makes these bytes shorter. Where less than one in 64 is the fourth of a run
    or a later one, as in noise, run lengths save less than a hundredth and are not tried.
    """
    same = few[1:] == few[:-1]
    repeated = np.count_nonzero(same[2:] & same[1:-1] & same[:-2])
    if few.size == _PIECES * _PIECE and repeated * _FEW_RUNS < few.size:
        return zlib.Z_HUFFMAN_ONLY
    return min(STRATEGIES, key=lambda strategy: len(to_stream(few, strategy)))


def decompress(stream: bytes, count: int, bits: int, max_level: int) -> np.ndarray:
    """A zlib stream -> `count` levels. Inflates at most the bytes that count and max_level imply.

    Raises FrameError when the stream is damaged, longer or shorter, or ends in padding that is not
    zero.
    """
    base = max_level + 1
    length = plain_length(count, base)
    plain = kernels.inflate_literals(stream, length)
    if plain is None:
        inflating = Inflating(stream)
        plain = inflating.read(length)
        inflating.end()
    return from_bytes(plain, count, bits, base)


def sample(values: np.ndarray) -> np.ndarray:
    """At most 32,768 of the values, in pieces from all over: enough to choose a code by."""
    if values.size <= _PIECES * _PIECE:
        return values
    starts = [(values.size - _PIECE) * piece // (_PIECES - 1) for piece in range(_PIECES)]
    return np.concatenate([values[start:start + _PIECE] for start in starts])


def zlib_coder(strategy: int) -> Any:
    """A compressor that writes a zlib stream; strategy: one of STRATEGIES."""
    return zlib.compressobj(9, zlib.DEFLATED, 15, 9, strategy)


def to_stream(plain: np.ndarray, strategy: int) -> bytes:
    """The zlib stream of uint8[n]; strategy: one of STRATEGIES."""
    stream = kernels.deflate_literals(plain) if strategy == zlib.Z_HUFFMAN_ONLY else None
    if stream is None:
        coder = zlib_coder(strategy)
        stream = coder.compress(plain) + coder.flush()
    return stream


class Inflating(object):
    """A zlib stream that is inflated no further than its reader asks.

    Raises FrameError where it is damaged or has another length.
    """

    def __init__(self, stream: bytes) -> None:
        self._decoder = zlib.decompressobj()
        self._rest = stream

    def read(self, length: int) -> np.ndarray:
        """The next `length` bytes, uint8[length]."""
        plain = self._inflate(length) if length else b""
        if len(plain) != length:
            raise FrameError("bad_coding", "the coded levels have another length", length,
                             len(plain))
        return np.frombuffer(plain, np.uint8)

    def end(self) -> None:
        """Nothing may follow."""
        # One byte more than wanted shows a stream that is too long without inflating it.
        if self._inflate(1) or not self._decoder.eof or self._decoder.unused_data:
            raise FrameError("bad_coding", "the coded levels have another length",
                             "the end of a zlib stream", "more or less")

    def _inflate(self, most: int) -> bytes:
        try:
            plain = self._decoder.decompress(self._rest, most)
        except zlib.error as error:
            raise FrameError("bad_coding", "the coded levels are damaged", "a zlib stream",
                             str(error))
        self._rest = self._decoder.unconsumed_tail
        return plain


def plain_length(count: int, base: int) -> int:
    """Bytes of `count` levels before zlib."""
    digits = digits_per_byte(base)
    return -(-count // digits) if digits else 2 * count


def to_bytes(levels: np.ndarray, base: int) -> bytes:
    """Levels below base -> plain_length bytes."""
    digits = digits_per_byte(base)
    if digits == 0:
        wide = levels.astype("<u2").view(np.uint8).reshape(-1, 2)
        return wide[:, 0].tobytes() + wide[:, 1].tobytes()
    if digits == 1:
        return levels.astype(np.uint8, copy=False).tobytes()
    padded = np.zeros(-(-levels.size // digits) * digits, np.uint8)
    padded[:levels.size] = levels
    if digits == 2:  # in words of two levels, which are wide enough for both
        words = padded.view("<u2")
        return ((words >> 8) * np.uint16(base) + (words & 0xff)).astype(np.uint8).tobytes()
    columns = padded.reshape(-1, digits)
    value = columns[:, digits - 1].copy()
    for place in range(digits - 2, -1, -1):
        value *= np.uint8(base)
        value += columns[:, place]
    return value.tobytes()


def from_bytes(plain: np.ndarray, count: int, bits: int, base: int) -> np.ndarray:
    """plain_length bytes, uint8 -> `count` levels (those of one or two bytes each may be above the
    base). Raises FrameError.
    """
    digits = digits_per_byte(base)
    if digits == 0:
        return plain[:count].astype(np.uint16) | (plain[count:].astype(np.uint16) << 8)
    if digits == 1:
        return plain.astype(level_dtype(bits), copy=False)
    if plain.size and plain.max() >= base ** digits:
        raise FrameError("bad_level", "a coded byte is above the grid", f"below {base ** digits}",
                         int(plain.max()))
    if digits == 2:  # each moves to a byte of its own, in words of 16 bits
        words = plain.astype("<u2")
        if base & (base - 1) == 0:
            words |= words << (9 - base.bit_length())
            words &= (base - 1) * 0x0101
        else:
            # The second digit: byte / base, exact because the byte is below base^2 and base^3 below
            # 2^12. word - second base is the first one.
            second = words * np.uint16(-(-4096 // base)) >> 12
            words += second * np.uint16(256 - base)
        levels = words.view(np.uint8)
    else:
        table = np.empty((256, digits), np.uint8)
        value = np.arange(256)
        for place in range(digits):
            table[:, place] = value % base
            value = value // base
        # much faster than table[plain]; no byte is above 255, and so nothing is clipped
        levels = table.take(plain, axis=0, mode="clip").reshape(-1)
    if levels[count:].any():
        raise FrameError("dirty_padding", "the digits behind the last level are not zero", 0,
                         int(levels[count:].max()))
    return levels[:count]
