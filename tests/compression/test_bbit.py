"""bbit against the rational oracle."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.compression import QUANTIZERS
from tests.oracles import quantisers as oracle
from tests.oracles.sums import squared_norm
from tests.vectors import beside, no_draw, same_bits, vectors

BBIT = QUANTIZERS["bbit"]
TIE = Fraction(1, 2 ** 32)


def test_seven_levels_by_hand():
    # b = 3: L = 3, R = 6, step 2: grid -6, -4, -2, 0, 2, 4, 6 as levels 0 to 6.
    scale, levels = BBIT.encode(np.array([6, -6, 0.9, -0.9, 2.9, 3.1, 0], np.float32), 3, no_draw)
    assert scale == 6 and scale.dtype == np.float32
    assert levels.tolist() == [6, 0, 3, 3, 4, 5, 3]
    assert BBIT.decode(scale, levels, 3).tolist() == [6, -6, 0, 0, 2, 4, 0]


@given(vectors(), st.integers(2, 16))
def test_levels_are_the_nearest_and_decoding_is_bit_exact(d, bits):
    scale, levels = BBIT.encode(d, bits, no_draw)
    values = d.tolist()
    r = oracle.radius(values)
    assert float(scale) == r
    if r == 0:
        assert not BBIT.decode(scale, levels, bits).any()
        return
    for value, level in zip(values, levels.tolist()):
        assert abs(oracle.bbit_position(value, r, bits) - level) <= Fraction(1, 2) + TIE
    assert same_bits(BBIT.decode(scale, levels, bits), oracle.bbit_decode(r, levels.tolist(), bits))


@given(vectors(), st.integers(2, 16))
def test_the_error_is_at_most_the_norm_less_the_largest_entry(d, bits):
    """||d - c||^2 <= ||d||^2 - R^2, because the grid holds zero and the largest entry (algorithm.md
    9).
    """
    r = float(np.abs(d).max())
    if r < 1e-30:
        return  # the float32 step is denormal and coarser than the bound
    c = BBIT.decode(*BBIT.encode(d, bits, no_draw), bits=bits)
    error = [x - y for x, y in zip(d.tolist(), c.tolist())]
    total = squared_norm(d.tolist())
    assert squared_norm(error) <= total - r * r + total * 2.0 ** -20


@pytest.mark.parametrize("bits", range(2, 17))
def test_zero_stays_zero_and_the_unused_code_is_never_written(bits):
    d = np.linspace(-0.7, 0.7, 101).astype(np.float32)
    d[50] = 0
    scale, levels = BBIT.encode(d, bits, no_draw)
    c = BBIT.decode(scale, levels, bits)
    assert c[50] == 0
    assert levels.min() == 0 and levels.max() == BBIT.max_level(bits) == 2 ** bits - 2
    assert np.allclose(c[[0, -1]], d[[0, -1]], rtol=2.0 ** -22, atol=0)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("exponent", [-37, -20, 0, 20, 37])
def test_levels_are_those_of_float64_beside_every_threshold(bits, exponent):
    """Where float32 is too coarse to decide, float64 does."""
    radius = float(np.float32(0.7 * 10.0**exponent))
    half = 2**(bits - 1) - 1

    def level(x):
        return int(x * (half / radius) + half + 0.5)

    thresholds = [(level - 0.5) * radius / half for level in range(1 - half, half + 1)]
    values = beside(thresholds, radius)
    assert BBIT.encode(values, bits, no_draw)[1].tolist() == [level(x) for x in values.tolist()]
