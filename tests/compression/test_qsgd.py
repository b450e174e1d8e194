"""qsgd: bbit's grid, rounded so that the expectation is the value itself (Alistarh et al. 2017)."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.compression import QUANTIZERS
from tests.oracles import quantisers as oracle
from tests.vectors import same_bits, vectors

QSGD = QUANTIZERS["qsgd"]
TIE = Fraction(1, 2 ** 32)


@given(vectors(), st.integers(2, 16), st.data())
def test_levels_are_the_two_neighbours_and_decoding_is_bbits(d, bits, data):
    uniforms = data.draw(st.lists(st.integers(0, 2 ** 24 - 1), min_size=len(d), max_size=len(d)))
    scale, levels = QSGD.encode(d, bits, lambda n: np.array(uniforms[:n]) * 2.0 ** -24)
    values = d.tolist()
    r = oracle.radius(values)
    assert float(scale) == r
    if r == 0:
        assert not QSGD.decode(scale, levels, bits).any()
        return
    assert levels.max() <= QSGD.max_level(bits)
    for value, level, word in zip(values, levels.tolist(), uniforms):
        # level = floor(position + u)
        place = oracle.bbit_position(value, r, bits) + Fraction(word, 2 ** 24)
        assert level - TIE <= place < level + 1 + TIE
    assert same_bits(QSGD.decode(scale, levels, bits), oracle.bbit_decode(r, levels.tolist(), bits))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("value", [0.0, 0.1, -0.1, 0.37, -0.9, 0.999, 1.0, -1.0])
def test_the_expectation_over_all_draws_is_the_value(bits, value):
    """The exact expectation over an even lattice of n uniforms is off by at most 1/n of a step."""
    n = 4096
    d = np.full(n + 1, value, np.float32)
    d[n] = 1.0
    lattice = np.append((np.arange(n) + 0.5) / n, 0.5)
    scale, levels = QSGD.encode(d, bits, lambda count: lattice[:count])
    step = 1.0 / oracle.bbit_top(bits)
    lower, probability = oracle.qsgd_probabilities(float(d[0]), 1.0, bits)
    above = int((levels[:n] == lower + 1).sum())
    assert abs(above / n - float(probability)) <= 1.0 / n
    mean = float(np.mean(QSGD.decode(scale, levels, bits)[:n].astype(np.float64)))
    assert abs(mean - float(d[0])) <= step / n + 1e-6
