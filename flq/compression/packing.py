"""Levels <-> bytes: one bit stream, b bits a level, least significant bit first, zeros at the end.

Bit i of level j is bit (j b + i) of the stream; bit k of the stream is bit (k mod 8) of byte k //
8.
"""

import numpy as np

from flq.errors import FrameError


def packed_length(count: int, bits: int) -> int:
    """Bytes of `count` levels: ceil(count bits / 8)."""
    return (count * bits + 7) // 8


def pack(levels: np.ndarray, bits: int) -> bytes:
    """Unsigned levels below 2^bits (any unsigned dtype) -> packed_length bytes. bits: 1 to 16, or
    32.
    """
    if bits == 1:
        return np.packbits(levels, bitorder="little").tobytes()
    if bits in (8, 16, 32):
        return levels.astype(f"<u{bits // 8}").tobytes()
    if bits < 8:
        return _pack_words(levels, bits)
    columns = np.unpackbits(
        levels.astype("<u2").view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")
    return np.packbits(columns[:, :bits], bitorder="little").tobytes()


def unpack(stream: bytes, count: int, bits: int) -> np.ndarray:
    """packed_length(count, bits) bytes -> levels, uint8, uint16 or uint32[count].

    Raises FrameError when the bits behind the last level are not zero.
    """
    if count * bits % 8 and stream[-1] >> (count * bits % 8):
        raise FrameError("dirty_padding", "the bits behind the last level are not zero", 0,
                         stream[-1])
    if bits == 1:
        return np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")[:count]
    if bits in (8, 16, 32):
        return np.frombuffer(stream, f"<u{bits // 8}").astype(f"=u{bits // 8}", copy=False)
    if bits < 8:
        return _unpack_words(stream, count, bits)
    columns = np.zeros((count, 16), np.uint8)
    columns[:, :bits] = np.unpackbits(np.frombuffer(stream, np.uint8),
                                      bitorder="little")[:count * bits].reshape(count, bits)
    return np.packbits(columns, axis=1,
                       bitorder="little").view("<u2").reshape(-1).astype(np.uint16, copy=False)


# Eight levels of b < 8 bits are exactly b bytes: they are gathered in one little-endian 64-bit
# word.

def _pack_words(levels: np.ndarray, bits: int) -> bytes:
    groups = -(-levels.size // 8)
    padded = np.zeros(groups * 8, np.uint8)
    padded[:levels.size] = levels
    # Folding neighbours by pairs takes three passes over ever fewer, ever wider words.
    words = padded.view("<u2")
    words = (words & 0xff) | ((words >> 8) << bits)
    if bits == 4:  # the default width: a pair is a byte already
        return words.astype(np.uint8).tobytes()[:packed_length(levels.size, bits)]
    words = words.view("<u4")
    words = ((words & 0xffff) | ((words >> 16) << (2 * bits))).view("<u8")
    words = (words & np.uint64(0xffffffff)) | ((words >> np.uint64(32)) << np.uint64(4 * bits))
    return np.ascontiguousarray(words.view(np.uint8).reshape(
        groups, 8)[:, :bits]).tobytes()[:packed_length(levels.size, bits)]


def _unpack_words(stream: bytes, count: int, bits: int) -> np.ndarray:
    mask = 2 ** bits - 1
    if bits == 4:
        words = np.frombuffer(stream, np.uint8).astype("<u2")
        return ((words & mask) | ((words >> bits) << 8)).view(np.uint8)[:count]
    groups = -(-count // 8)
    raw = np.zeros(groups * bits, np.uint8)
    raw[:len(stream)] = np.frombuffer(stream, np.uint8)
    spread = np.zeros((groups, 8), np.uint8)
    spread[:, :bits] = raw.reshape(groups, bits)
    words = spread.reshape(-1).view("<u8")
    half = np.uint64(2 ** (4 * bits) - 1)
    words = ((words & half) | ((words >> np.uint64(4 * bits)) << np.uint64(32))).view("<u4")
    words = ((words & (mask << bits | mask)) | ((words >> (2 * bits)) << 16)).view("<u2")
    words = (words & mask) | ((words >> bits) << 8)
    return words.view(np.uint8)[:count]
