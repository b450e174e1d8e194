"""bin: scaled signs, and what becomes of exact zeros (Karimireddy et al. 2019)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.compression import QUANTIZERS
from tests.oracles import quantisers as oracle
from tests.oracles.sums import squared_norm
from tests.vectors import no_draw, same_bits, vectors

BIN = QUANTIZERS["bin"]


def test_signs_and_mean_by_hand():
    scale, levels = BIN.encode(np.array([1, -2, 3, -6], np.float32), 1, no_draw_of_one_or_more)
    assert scale == 3 and levels.tolist() == [1, 0, 1, 0]
    assert BIN.decode(scale, levels, 1).tolist() == [3, -3, 3, -3]


def no_draw_of_one_or_more(n):
    return np.empty(0) if n == 0 else no_draw(n)


@given(vectors(max_size=30), st.data())
def test_scale_signs_and_decoding_are_bit_exact(d, data):
    uniforms = data.draw(
        st.lists(st.floats(0, 1, exclude_max=True), min_size=len(d), max_size=len(d)))
    scale, levels = BIN.encode(d, 1, lambda n: np.array(uniforms[:n]))
    values = d.tolist()
    assert float(scale) == oracle.bin_scale(values)
    if scale == 0:
        assert not BIN.decode(scale, levels, 1).any()
        return
    # Minus zero is a zero too. A drawn zero is positive below one half.
    assert levels.tolist() == oracle.bin_levels(values, [int(u < 0.5) for u in uniforms])
    assert same_bits(BIN.decode(scale, levels, 1), oracle.bin_decode(float(scale), levels.tolist()))


def test_the_mean_of_many_entries_is_the_fixed_order_sum():
    d = (rng.Stream(3, rng.INIT).uniform(5000) - 0.5).astype(np.float32)
    scale, _ = BIN.encode(d, 1, no_draw_of_one_or_more)
    assert float(scale) == oracle.bin_scale(d.tolist())


def test_drawn_signs_of_zeros_are_fair():
    d = np.zeros(20001, np.float32)
    d[0] = 20001.0
    scale, levels = BIN.encode(d, 1, rng.Stream(5, rng.UPLINK, 2, 7).uniform)
    assert scale == 1
    # 20,000 fair signs: five standard deviations are 707.
    assert abs(int(levels[1:].sum()) - 10000) < 354


@given(vectors(max_size=30))
def test_the_error_is_the_norm_less_what_is_sent(d):
    """||d - c||^2 = ||d||^2 - ||c||^2 with scale mean |d| (algorithm.md 9)."""
    values = d.tolist()
    if max(abs(x) for x in values) < 1e-30:
        return
    c = BIN.decode(*BIN.encode(d, 1, lambda n: np.full(n, 0.25)), bits=1).tolist()
    error = squared_norm([x - y for x, y in zip(values, c)])
    assert abs(error - (squared_norm(values) - squared_norm(c))) <= 2.0**-20 * squared_norm(values)
