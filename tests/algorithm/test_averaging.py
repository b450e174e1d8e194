"""The average that a run keeps, against the weights of its source."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flq.algorithm.averaging import Average, average_after
from flq.pieces import PIECE
from tests.vectors import same_bits

ROUNDS, P, N = 12, 7, 2


def _played(part):
    """(what was averaged, the average after ROUNDS rounds)."""
    draw = np.random.RandomState(3)
    points = [Average(draw.standard_normal(P).astype(np.float32),
                      draw.standard_normal(N).astype(np.float32)) for _ in range(ROUNDS)]
    average = Average(np.full(P, 100, np.float32), np.full(N, 100, np.float32))
    for round_, new in enumerate(points):
        average = average_after(average, round_, new, part)
    return points, average


@pytest.mark.parametrize("part", [0.05, 0.1, 0.25, 1.0])
def test_the_weights_are_those_of_polynomial_decay(part):
    points, average = _played(part)
    # What is left of round k in the end: its weight, times what each later round left.
    weights = [1 / (1 + part * k) for k in range(ROUNDS)]
    shares = [weight * np.prod([1 - later for later in weights[k + 1:]])
              for k, weight in enumerate(weights)]
    assert math.isclose(sum(shares), 1), "nothing is left of what was there before round 0"
    for place, kept in enumerate(average):
        expected = sum(share * point[place].astype(np.float64)
                       for share, point in zip(shares, points))
        assert kept.dtype == np.float32
        np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-6)


def test_with_1_it_is_the_mean_of_all_rounds():
    points, average = _played(1.0)
    np.testing.assert_allclose(average.params, np.mean([point.params for point in points], 0),
                               rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", [0.02, 0.1, 0.5])
def test_the_mean_age_is_that_part_of_the_rounds(part):
    rounds, age = 2000, 0.0
    for round_ in range(rounds):
        age = (1 - 1 / (1 + part * round_)) * (age + 1)
    # (k + 1) / (1 / s + 1), exactly, once the start is forgotten
    assert age == pytest.approx(rounds * part / (1 + part), rel=0.02)


def test_where_none_is_kept_none_is_made():
    new = Average(np.ones(P, np.float32), np.ones(N, np.float32))
    assert average_after(None, 3, new, 0.1) is None


def test_it_changes_nothing_that_was_given():
    new = Average(np.ones(P, np.float32), np.ones(N, np.float32))
    old = Average(np.zeros(P, np.float32), np.zeros(N, np.float32))
    average_after(old, 4, new, 0.5)
    assert same_bits(old.params, np.zeros(P, np.float32)) and same_bits(new.params, np.ones(P))


def test_a_long_average_is_that_of_its_entries():
    draw = np.random.RandomState(3)
    mean, new = (Average(draw.standard_normal(2 * PIECE + 9).astype(np.float32),
                         np.zeros(0, np.float32)) for _ in range(2))
    weight = np.float32(1 / (1 + 0.3 * 5))
    expected = mean.params + weight * (new.params - mean.params)
    assert same_bits(average_after(mean, 5, new, 0.3).params, expected)


def test_what_overflows_is_no_warning_on_any_thread():
    """The master makes it beside the driver's thread, where a warning would be lost or printed."""
    most = np.finfo(np.float32).max
    old, new = (Average(np.array([x], np.float32), np.zeros(0, np.float32)) for x in (most, -most))
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(average_after, old, 3, new, 0.1).result()
    assert found.params.tolist() == [-np.inf]
