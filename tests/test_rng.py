"""Random streams: golden words, the same on every Python and NumPy, and no two uses of the same
ones.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng

PURPOSES = (rng.INIT, rng.PARTITION, rng.BATCHES, rng.UPLINK, rng.DOWNLINK, rng.DIRICHLET,
            rng.SKETCH)


def _philox(key, counter):
    """Philox-4x64-10 (Salmon et al. 2011, section 3.3): one block of four words."""
    counter, key, mask = list(counter), list(key), 2 ** 64 - 1
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [(second >> 64) ^ counter[1] ^ key[0], second & mask,
                   (first >> 64) ^ counter[3] ^ key[1], first & mask]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


@pytest.mark.parametrize(
    "seed, purpose, worker, round_, words",
    [(0, rng.INIT, 0, 0, [0xd037f8c3f9a1d176, 0xc057419b4c210765, 0xabf13115117b0065]),
     (0, rng.UPLINK, 3, 7, [0xbb9f3c645d2eaf67, 0x761386a5aa890337, 0xcccd947145f1f557]),
     (42, rng.BATCHES, 1, 0, [0xc96aa36fc85d9cb8, 0x9e7d53af2521520b, 0x8182ed10d9aa8cfd]),
     (2**63 - 1, rng.DIRICHLET, 65535, 2**32 - 1,
      [0x972dd3f5bb322fff, 0x813d288c5ab6518a, 0xafe2059e5f737d39]), ])
def test_golden_words(seed, purpose, worker, round_, words):
    assert rng.Stream(seed, purpose, worker, round_).raw(3).tolist() == words


@given(st.integers(0, 2**63 - 1), st.sampled_from(PURPOSES), st.integers(0, 65535),
       st.integers(0, 2**32 - 1))
def test_words_are_those_of_the_paper(seed, purpose, worker, round_):
    """NumPy counts up before it makes a block: the first one is that of counter + 1."""
    assert rng.Stream(seed, purpose, worker, round_).raw(8).tolist() == [
        word for block in (1, 2) for word in _philox([seed, purpose], [block, 0, worker, round_])]


def test_words_are_drawn_in_order():
    stream, whole = rng.Stream(5, rng.UPLINK, 2, 9), rng.Stream(5, rng.UPLINK, 2, 9)
    assert stream.raw(3).tolist() + stream.raw(4).tolist() == whole.raw(7).tolist()


def test_uniforms_are_the_upper_24_bits():
    words = rng.Stream(1, rng.UPLINK).raw(1000)
    uniforms = rng.Stream(1, rng.UPLINK).uniform(1000)
    assert uniforms.dtype == np.float64 and uniforms.tolist() == [(int(word) >> 40) / 2.0**24
                                                                  for word in words]
    assert (uniforms >= 0).all() and (uniforms < 1).all()
    assert (uniforms.astype(np.float32) == uniforms).all()


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_permutation_is_the_order_of_the_words(n):
    words, order = rng.Stream(4, rng.BATCHES, 1,
                              1).raw(n).tolist(), rng.Stream(4, rng.BATCHES, 1, 1).permutation(n)
    assert order.dtype == np.int64 and order.tolist() == sorted(range(n), key=words.__getitem__)


def test_no_two_uses_see_the_same_words():
    assert len(set(PURPOSES)) == len(PURPOSES)
    seeds, workers, rounds = (0, 1), (0, 1, 65535), (0, 1, 10 ** 6)
    uses = list(itertools.product(seeds, PURPOSES, workers, rounds))
    assert len({tuple(rng.Stream(*use).raw(2).tolist()) for use in uses}) == len(uses)


def test_a_long_draw_of_one_round_does_not_reach_the_next():
    """The block counter is another word than worker and round."""
    words = set(rng.Stream(0, rng.UPLINK, 0, 0).raw(5000).tolist())
    assert words.isdisjoint(rng.Stream(0, rng.UPLINK, 0, 1).raw(5000).tolist())
    assert words.isdisjoint(rng.Stream(0, rng.UPLINK, 1, 0).raw(5000).tolist())


def test_the_generator_draws_from_the_same_stream():
    first, again = (rng.Stream(3, rng.DIRICHLET).generator().standard_gamma(0.5, 4).tolist()
                    for _ in range(2))
    assert first == again
