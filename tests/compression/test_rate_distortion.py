"""rd against the rational oracle (algorithm.md 2), and what it promises: nothing lost, least
squares, no scale of its own.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.compression import QUANTIZERS, codec, rate_distortion
from tests.oracles import quantisers as oracle
from tests.vectors import no_draw, same_bits, vectors

RD = QUANTIZERS["rd"]


def _noise(count):
    """Sums of twelve uniforms: nearly normal, variance 1."""
    return sum(rng.Stream(3, rng.INIT, 0, i).uniform(count)
               for i in range(12)).astype(np.float32) - np.float32(6)


def test_three_entries_by_hand():
    # rms = 2, step = min(0.5 * 2, 3) = 1: levels 3, -1, 1, 1 (0.5 goes up), 0; s = (9 + 1.4 + 1.3 +
    # 0.5) / 12.
    d = np.array([3, -1.4, 1.3, 0.5, 0.2], np.float32)
    rms = float(np.sqrt(np.mean(d.astype(np.float64) ** 2)))
    scale, levels = rate_distortion.with_step(1 / rms).encode(d, 4, no_draw)
    assert (levels.astype(int) - 7).tolist() == [3, -1, 1, 1, 0]
    assert scale.dtype == np.float32 and scale == np.float32(12.2 / 12)


@given(vectors(), st.integers(2, 16), st.sampled_from([0.05, 1.0, 2.5, 8.0]))
def test_levels_scale_and_decoding_are_the_oracles(d, bits, factor):
    values = d.tolist()
    scale, levels = rate_distortion.with_step(factor).encode(d, bits, no_draw)
    r, half = oracle.radius(values), oracle.bbit_top(bits)
    if scale == 0:
        # Nothing to send, or a scale that float32 arithmetic cannot use: then the tensor is zero.
        assert r <= oracle.SMALLEST_SCALE * 2 * half and (levels == half).all()
        return
    step = oracle.rd_step(values, factor, bits)
    signed = [level - half for level in levels.tolist()]
    for value, level in zip(values, signed):
        place = Fraction(value) / Fraction(step)
        assert level - Fraction(1, 2) - Fraction(1, 2**30) <= place <= level + Fraction(
            1, 2) + Fraction(1, 2**30)
    assert float(scale) == pytest.approx(float(oracle.rd_scale(values, signed)), rel=1e-6)
    assert same_bits(RD.decode(scale, levels, bits),
                     oracle.rd_decode(float(scale), levels.tolist(), bits))


@given(vectors(), st.integers(2, 16))
def test_the_largest_entry_is_never_lost(d, bits):
    scale, levels = rate_distortion.with_step(1e3).encode(d, bits, no_draw)
    if scale > 0:
        assert levels[np.argmax(np.abs(d))] != oracle.bbit_top(bits)


@pytest.mark.parametrize("exponent", range(-30, 31, 5))
def test_a_factor_changes_only_the_scale(exponent):
    d, factor = _noise(300), np.float32(10.0 ** exponent)
    scale, levels = RD.encode(d, 8, no_draw)
    other, same = RD.encode(d * factor, 8, no_draw)
    # a product that is rounded may move an entry over an edge
    assert np.count_nonzero(levels != same) <= 1
    assert float(other) == pytest.approx(float(scale) * float(factor), rel=1e-3)


def test_a_coarse_grid_grows_to_hold_the_largest_entry():
    d = np.append(_noise(1000), np.float32(500)).astype(np.float32)
    _, levels = RD.encode(d, 3, no_draw)
    assert levels[-1] == 6  # the end of the grid
    _, levels = RD.encode(d, 16, no_draw)
    assert abs(int(levels[-1]) - 32767 - 500 /
               (2.5 * np.sqrt(np.mean(d.astype(np.float64)**2)))) <= 0.5


@pytest.mark.parametrize("factor, most", [(0.25, 0.35), (1.0, 0.30), (2.5, 0.30), (4.0, 0.30)])
def test_it_stays_near_shannons_bound(factor, most):
    """Bits per weight above log2(1 / relative error), with the entropy coder that it always has."""
    d = _noise(100000)
    quantizer = rate_distortion.with_step(factor)
    encoded = codec.encode(quantizer, d, (d.size,), 8, no_draw)
    error = np.linalg.norm(d - codec.decode(encoded, (d.size,))) / np.linalg.norm(d)
    assert 8 * len(codec.to_body(encoded, True).data) / d.size + np.log2(error) <= most
