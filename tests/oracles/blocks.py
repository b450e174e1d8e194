"""Scales of blocks (algorithm.md 2), one block at a time."""

from fractions import Fraction

from tests.oracles.floats import f32
from tests.oracles.quantisers import SMALLEST_SCALE

ZERO = 255


def cut(tensors, block_size):
    """The blocks of each tensor: lists of lists, the last one of a tensor possibly shorter."""
    return [[tensor[start:start + block_size] for start in range(0, len(tensor), block_size)]
            for tensor in tensors]


def ratio(code):
    """(32 - k mod 16) / 2^(5 + k div 16), and 0 for the last code."""
    return Fraction(0) if code == ZERO else Fraction(32 - code % 16, 2 ** (5 + code // 16))


def scale(largest, code):
    """float32(R ratio), 0 where it is too small."""
    product = f32(float(Fraction(largest) * ratio(code)))
    return product if product >= SMALLEST_SCALE else 0.0


def code_above(scale_, largest):
    """The code of the smallest scale that is not below this one; 0 has a code of its own."""
    if scale_ == 0:
        return ZERO
    return max(code for code in range(ZERO)
               if f32(float(Fraction(largest) * ratio(code))) >= scale_)


def is_nearest(code, scale_, largest):
    """Whether no other code of a scale above 0 is nearer."""
    def off(other):
        return abs(Fraction(f32(float(Fraction(largest) * ratio(other)))) - Fraction(scale_))
    return all(off(code) <= off(other) for other in range(ZERO))
