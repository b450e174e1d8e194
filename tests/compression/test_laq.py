"""laq against the rational oracle (Sun et al. 2019, eq. 5 and 6)."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.compression import QUANTIZERS
from tests.oracles import quantisers as oracle
from tests.vectors import beside, no_draw, same_bits, vectors

LAQ = QUANTIZERS["laq"]
TIE = Fraction(1, 2 ** 32)  # float64 resolves places on a grid of 2^16 to better than this


def test_four_levels_by_hand():
    # R = 3, b = 2: grid -3, -1, 1, 3. -0.5 -> -1, 0.5 -> 1, 2.5 -> 3; the middle between two levels
    # goes up: 0 -> 1, 2 -> 3.
    scale, levels = LAQ.encode(np.array([-3, -0.5, 0, 0.5, 2, 2.5, -2.1], np.float32), 2, no_draw)
    assert scale == 3 and scale.dtype == np.float32
    assert levels.tolist() == [0, 1, 2, 2, 3, 3, 0]
    assert LAQ.decode(scale, levels, 2).tolist() == [-3, -1, 1, 1, 3, 3, -3]


@given(vectors(), st.integers(2, 16))
def test_levels_are_the_nearest_and_decoding_is_bit_exact(d, bits):
    scale, levels = LAQ.encode(d, bits, no_draw)
    values = d.tolist()
    r = oracle.radius(values)
    assert float(scale) == r
    if r == 0:
        assert not LAQ.decode(scale, levels, bits).any()
        return
    for value, level in zip(values, levels.tolist()):
        place = oracle.laq_position(value, r, bits) + Fraction(1, 2)
        assert level - TIE <= place < level + 1 + TIE
    assert same_bits(LAQ.decode(scale, levels, bits), oracle.laq_decode(r, levels.tolist(), bits))


@pytest.mark.parametrize("bits", range(2, 17))
def test_an_exact_zero_goes_up_whatever_the_radius(bits):
    """(0 + R) / (2 tau R) + 1/2 is 2^(b-1) exactly: where nothing moved, the sign of c must not
    depend on the rounding of R.
    """
    for r in (np.random.RandomState(bits).uniform(0.001, 1, 50)).astype(np.float32):
        _, levels = LAQ.encode(np.array([r, 0.0, -0.0], np.float32), bits, no_draw)
        assert levels.tolist()[1:] == [2 ** (bits - 1)] * 2


@given(vectors(), st.integers(2, 16))
def test_no_error_exceeds_tau_R(d, bits):
    scale, levels = LAQ.encode(d, bits, no_draw)
    c = LAQ.decode(scale, levels, bits)
    r = float(np.abs(d).max())
    if r < 1e-30:
        return  # the float32 step is denormal and coarser than the bound
    worst = max(abs(Fraction(x) - Fraction(y)) for x, y in zip(d.tolist(), c.tolist()))
    # the second term is float32
    assert worst <= Fraction(r) / (2 ** bits - 1) + Fraction(r) / 2 ** 23


@pytest.mark.parametrize("bits", range(2, 17))
def test_the_ends_of_the_grid_are_met(bits):
    for r in (1.0, 0.1, 3.4028234663852886e38, 1.5e-38):
        d = np.array([r, -r], np.float32)
        scale, levels = LAQ.encode(d, bits, no_draw)
        assert levels.tolist() == [2 ** bits - 1, 0]
        c = LAQ.decode(scale, levels, bits)
        assert np.isfinite(c).all() and c[0] == -c[1]


@pytest.mark.parametrize("bits", range(2, 17))
def test_decoding_is_symmetric(bits):
    levels = np.arange(0, 2 ** bits, max(1, 2 ** bits // 512), dtype=np.uint16)
    mirrored = (2 ** bits - 1 - levels).astype(np.uint16)
    assert same_bits(LAQ.decode(np.float32(0.3), levels, bits),
                     -LAQ.decode(np.float32(0.3), mirrored, bits))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("exponent", [-37, -20, 0, 20, 37])
def test_levels_are_those_of_float64_beside_every_threshold(bits, exponent):
    """Where float32 is too coarse to decide, float64 does."""
    radius = float(np.float32(0.7 * 10.0**exponent))
    def level(x):
        return int((x + radius) * (2**bits - 1) / (2.0 * radius) + 0.5)

    step = 2 * radius / (2**bits - 1)
    thresholds = [(level - 0.5) * step - radius for level in range(1, 2**bits)]
    values = beside(thresholds, radius)
    assert LAQ.encode(values, bits, no_draw)[1].tolist() == [level(x) for x in values.tolist()]
