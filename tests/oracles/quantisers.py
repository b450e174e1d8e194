"""The quantisers of algorithm.md 2, one tensor at a time, in exact rational arithmetic.

`*_position` gives the place of one value on the grid as a Fraction, before it is rounded: an
encoder in float64 may round to either side only where that place is a tie to within float64.
`*_decode` gives what the levels stand for in float32, bit for bit.
"""

import math
from fractions import Fraction

from tests.oracles.floats import bits, f32, from_bits
from tests.oracles.sums import fixed_order_sum

SMALLEST_SCALE = 1.2e-38  # below it a scale is 0 and its tensor zero
LARGEST = 2.0 ** 128 - 2.0 ** 104  # of float32


def radius(d):
    """R = ||d||_inf as it travels (a maximum of float32 is a float32)."""
    largest = max([abs(x) for x in d] or [0.0])
    return largest if largest >= SMALLEST_SCALE else 0.0


def grid_step(r, steps):
    """float32(R / steps), or the float32 below it where steps x step would pass the largest
    float32.
    """
    step = f32(r / steps)
    if step * steps > LARGEST:
        step = from_bits(bits(step) - 1)
    return step


def nearest(position):
    """floor(x + 1/2)."""
    return math.floor(position + Fraction(1, 2))


def laq_position(x, r, b):
    """(d + R) / (2 tau R), tau = 1 / (2^b - 1) (Sun 2019, eq. 5, before the floor of x + 1/2)."""
    tau = Fraction(1, 2 ** b - 1)
    return (Fraction(x) + Fraction(r)) / (2 * tau * Fraction(r))


def laq_levels(d, b):
    r = radius(d)
    return [0 if r == 0 else nearest(laq_position(x, r, b)) for x in d]


def laq_decode(r, levels, b):
    """Sun 2019, eq. 6: c = 2 tau R q - R, as (2 q - (2^b - 1)) * float32(R / (2^b - 1))."""
    step = grid_step(r, 2 ** b - 1)
    return [f32((2 * q - (2 ** b - 1)) * step) for q in levels]


def bbit_top(b):
    """L = 2^(b-1) - 1: 2 L + 1 = 2^b - 1 levels, -L .. L."""
    return 2 ** (b - 1) - 1


def bbit_position(x, r, b):
    """d / s + L with s = R / L."""
    return Fraction(x) * bbit_top(b) / Fraction(r) + bbit_top(b)


def bbit_levels(d, b):
    r = radius(d)
    return [bbit_top(b) if r == 0 else nearest(bbit_position(x, r, b)) for x in d]


def bbit_decode(r, levels, b):
    step = grid_step(r, bbit_top(b))
    return [f32((q - bbit_top(b)) * step) for q in levels]


def bin_scale(d):
    """mean |d| (Karimireddy 2019): the sum of algorithm.md 7 in double, divided, rounded once to
    float32.
    """
    mean = fixed_order_sum([abs(x) for x in d]) / len(d)
    return f32(mean) if mean >= SMALLEST_SCALE else 0.0


def bin_levels(d, drawn):
    """Level 1 is +scale and 0 is -scale; drawn: what each exact zero of d gets, in order."""
    zeros = iter(drawn)
    return [next(zeros) if x == 0 else int(x > 0) for x in d]


def bin_decode(scale, levels):
    return [scale if q else -scale for q in levels]


def qsgd_probabilities(x, r, b):
    """(lower level, probability of the level above it): unbiased rounding to the two neighbours
    (Alistarh 2017).
    """
    position = bbit_position(x, r, b)
    lower = math.floor(position)
    return lower, position - lower


def rd_step(d, factor, b):
    """max(min(factor rms, R), R / L) of algorithm.md 2, in double."""
    r = radius(d)
    rms = math.sqrt(math.fsum(x * x for x in d) / len(d))
    return max(min(factor * rms, r), r / bbit_top(b))


def rd_scale(d, signed):
    """<c, d> / <c, c> of signed levels, as a Fraction."""
    return sum(Fraction(x) * q for x, q in zip(d, signed)) / sum(q * q for q in signed)


def rd_decode(scale, levels, b):
    return [f32((q - bbit_top(b)) * scale) for q in levels]


def nominal_bits(name, tensors, p, b):
    """The table of algorithm.md 2: 32 p, or 32 T + b p."""
    return 32 * p if name == "fedavg" else 32 * tensors + b * p
