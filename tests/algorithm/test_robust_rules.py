"""Rules against bad workers: what the oracle says, bit for bit, and what their papers promise."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flq.algorithm import robust_rules
from flq.algorithm.robust_rules import RULES
from flq.modes import AGGREGATIONS, MEAN
from tests.oracles import robust as oracle
from tests.vectors import same_bits

BY_RULE = pytest.mark.parametrize("name", sorted(RULES))
BY_COORDINATE = pytest.mark.parametrize("name", ["median", "trimmed_mean"])


@st.composite
def cases(draw, largest_p=6):
    """(vectors, f, center): n and f beyond what every rule needs."""
    bad = draw(st.integers(0, 3))
    n, p = draw(st.integers(2 * bad + 3, 2 * bad + 6)), draw(st.integers(1, largest_p))
    entries = draw(st.sampled_from([
        st.floats(-1, 1, width=32), st.sampled_from([-1.0, -0.0, 0.0, 0.5]),
        st.floats(width=32, allow_nan=False, allow_infinity=False)]))
    rows = draw(st.lists(st.lists(entries, min_size=p, max_size=p), min_size=n + 1, max_size=n + 1))
    *vectors, center = np.array(rows, np.float32)
    return vectors, bad, center


def honest_and_bad(seed, n=10, bad=2, p=40):
    """Honest vectors around a common one, and what their mean is."""
    draw = np.random.RandomState(seed)
    common = draw.standard_normal(p)
    honest = [(common + 0.3 * draw.standard_normal(p)).astype(np.float32) for _ in range(n - bad)]
    return honest, np.mean(honest, axis=0)


ATTACKS = {
    "flip": lambda mean: [-mean, -mean], "scale": lambda mean: [-1e6 * mean, 1e6 * mean],
    "largest": lambda mean: [np.full(mean.size, 3.4e38), np.full(mean.size, -3.4e38)],
    "nothing": lambda mean: [0 * mean, 0 * mean],
    "the same": lambda mean: [mean + 5, mean + 5],
}


def with_bad(honest, mean, attack):
    return [vector.astype(np.float32) for vector in ATTACKS[attack](mean)] + honest


def test_there_is_a_rule_for_every_name_but_the_mean():
    assert set(RULES) | {MEAN} == set(AGGREGATIONS) and MEAN not in RULES
    for name, (_, beyond) in oracle.RULES.items():
        assert AGGREGATIONS[name].fewest(2) == 4 + beyond
    assert AGGREGATIONS[MEAN].fewest(2) == 1


@BY_RULE
@given(cases())
def test_a_rule_is_the_oracles_bit_for_bit(name, case):
    vectors, bad, center = case
    slow = oracle.RULES[name][0]([vector.tolist() for vector in vectors], bad, center.tolist())
    with np.errstate(over="ignore"):  # a mean near the largest float32 is rounded as the oracle's
        found = RULES[name](vectors, bad, center)
    assert found.dtype == np.float32
    # which of -0 and 0 comes first is open: a rule by coordinates gives 0
    assert same_bits(found + 0, np.array(slow, np.float32) + 0)
    if name in ("median", "trimmed_mean"):
        assert not np.signbit(found[found == 0]).any()


@BY_RULE
def test_vectors_longer_than_a_piece_are_the_oracles_too(name):
    draw = np.random.RandomState(2)
    p = robust_rules.PIECE + 700
    vectors = [draw.standard_normal(p).astype(np.float32) for _ in range(5)]
    center = np.zeros(p, np.float32)
    slow = oracle.RULES[name][0]([vector.tolist() for vector in vectors], 1, center.tolist())
    assert same_bits(RULES[name](vectors, 1, center), slow)


@BY_RULE
@settings(max_examples=50)
@given(cases(), st.randoms())
def test_the_order_of_workers_does_not_matter(name, case, dice):
    vectors, bad, center = case
    with np.errstate(over="ignore"):
        first = RULES[name](vectors, bad, center)
        dice.shuffle(vectors)
        second = RULES[name](vectors, bad, center)
    if name in ("median", "trimmed_mean"):
        assert same_bits(first, second)
    elif name == "centered_clipping":
        # a sum of doubles in another order
        scale = max(
            float(np.abs(vector.astype(np.float64)).max()) for vector in [*vectors, center])
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-12 * scale + 1e-40)


def test_krum_does_not_ask_for_the_order_where_scores_differ():
    honest, mean = honest_and_bad(3)
    vectors = with_bad(honest, mean, "flip")
    first = RULES["krum"](vectors, 2, mean)
    for _ in range(5):
        random.Random(1).shuffle(vectors)
        np.testing.assert_allclose(RULES["krum"](vectors, 2, mean), first, rtol=1e-6, atol=1e-7)


@BY_COORDINATE
@given(cases(), st.data())
def test_bad_workers_cannot_leave_the_range_of_the_honest_ones(name, case, data):
    """The breakdown point: f of 2 f + 1, whatever they send."""
    vectors, bad, center = case
    liars = data.draw(st.lists(st.sampled_from(range(len(vectors))), min_size=bad, max_size=bad,
                               unique=True))
    lie = data.draw(st.floats(width=32, allow_nan=False, allow_infinity=False))
    honest = np.array([vector for m, vector in enumerate(vectors) if m not in liars])
    sent = [np.full_like(vector, lie) if m in liars else vector for m, vector in enumerate(vectors)]
    found = RULES[name](sent, bad, center)
    # a sum of doubles is rounded
    slack = 1e-6 * np.abs(honest.astype(np.float64)).max(axis=0)
    assert (found >= honest.min(axis=0) - slack).all()
    assert (found <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("attack", sorted(ATTACKS))
@BY_RULE
def test_two_of_ten_move_the_result_by_less_than_an_honest_worker_is_away(name, attack):
    for seed in range(10):
        honest, mean = honest_and_bad(seed)
        spread = max(float(np.linalg.norm(vector - mean)) for vector in honest)
        found = RULES[name](with_bad(honest, mean, attack), 2, np.zeros_like(honest[0]))
        for _ in range(2):  # the centre follows from round to round
            found = RULES[name](with_bad(honest, mean, attack), 2, found)
        assert np.linalg.norm(found - mean) < spread


def test_krum_takes_no_vector_that_is_far_from_all_others():
    honest, mean = honest_and_bad(7)
    for first, second in itertools.permutations(ATTACKS["scale"](mean), 2):
        vectors = [first.astype(np.float32)] + honest + [second.astype(np.float32)]
        found = RULES["krum"](vectors, 2, mean)
        choices = [np.mean(np.array(kept, np.float64), axis=0).astype(np.float32)
                   for kept in itertools.combinations(honest, 6)]
        assert any(np.allclose(found, choice, rtol=1e-6, atol=1e-7) for choice in choices)


@given(cases())
def test_clipping_bounds_what_bad_vectors_do(case):
    """A clipping moves the centre by tau at most, and tau is no more than the largest distance L of
    an honest vector: L, then 2 L, then 4 L.
    """
    vectors, bad, center = case
    vectors = [np.clip(vector, -10, 10) for vector in vectors]
    center = np.clip(center, -10, 10)
    lengths = [float(np.linalg.norm(vector - center.astype(np.float64)))
               for vector in vectors[bad:]]
    sent = [np.full_like(vector, 3e38) for vector in vectors[:bad]] + vectors[bad:]
    found = RULES["centered_clipping"](sent, bad, center)
    reach = max(lengths) * (2 ** robust_rules.CLIPPINGS - 1)
    assert np.linalg.norm(found.astype(np.float64) - center) <= reach * (1 + 1e-6) + 1e-6


@BY_RULE
def test_equal_vectors_are_the_result(name):
    vector = np.array([1.5, -2.0, 0.0], np.float32)
    assert RULES[name]([vector] * 7, 2, vector).tolist() == vector.tolist()
    found = RULES[name]([vector] * 7, 2, np.zeros(3, np.float32))
    np.testing.assert_allclose(found, vector, rtol=1e-6)


@pytest.mark.parametrize("length", range(1, 34))
def test_the_comparisons_sort_every_list_of_zeros_and_ones(length):
    """Then they sort every list (Knuth 1998, 5.3.4, theorem Z)."""
    pairs = robust_rules._comparisons(length)
    dice = random.Random(length)
    lists = (itertools.product((0, 1), repeat=length) if length <= 12 else
             ([dice.randint(0, 1) for _ in range(length)] for _ in range(500)))
    for values in map(list, lists):
        expected = sorted(values)
        for low, high in pairs:
            assert low < high
            if values[low] > values[high]:
                values[low], values[high] = values[high], values[low]
        assert values == expected


def test_by_hand():
    """Seven workers, two of them bad; one coordinate."""
    vectors = [np.array([x], np.float32) for x in (100, 1, 2, 3, 4, 5, -100)]
    assert RULES["median"](vectors, 2, vectors[0]).tolist() == [3]
    assert RULES["trimmed_mean"](vectors, 2, vectors[0]).tolist() == [3]  # (2 + 3 + 4) / 3
    # near = 3; scores: 1: 1 + 4 + 9; 2: 1 + 1 + 4; 3: 1 + 1 + 4; 4: 1 + 1 + 4; 5: 1 + 4 + 9
    assert RULES["krum"](vectors, 2, vectors[0]).tolist() == [3]
    # from 3: distances 97, 2, 1, 0, 1, 2, 103; tau = 2; moves cancel
    assert RULES["centered_clipping"](vectors, 2, np.array([3], np.float32)).tolist() == [3]
    assert math.isclose(RULES["centered_clipping"](
        [np.array([x], np.float32) for x in (0, 1, 1)], 1, np.array([0], np.float32))[0],
        # tau = 1: 2/3; distances 2/3, 1/3, 1/3: tau = 1/3, 2/3 + (1/3 + 1/3 - 1/3) / 3 = 7/9;
        # distances 7/9, 2/9, 2/9: 7/9 + 2/27
        23 / 27, rel_tol=1e-6)
