"""float32 on Python floats."""

import struct


def f32(x):
    """The float32 nearest to x, ties to even; infinite where x is beyond the largest float32."""
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


def bits(x):
    """The 32 bits of a float32 as an unsigned integer."""
    return struct.unpack("<I", struct.pack("<f", x))[0]


def from_bits(word):
    """The float32 with these 32 bits."""
    return struct.unpack("<f", struct.pack("<I", word))[0]


def add(x, y):
    return [f32(a + b) for a, b in zip(x, y)]


def subtract(x, y):
    return [f32(a - b) for a, b in zip(x, y)]
