"""The sum of what was selected, the correction, and the mean of non-trainable values."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.algorithm import aggregation
from flq.algorithm.aggregation import Bidder, Committed
from tests.oracles import aggregation as oracle

entries = st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4)
committed_by_worker = st.dictionaries(st.integers(0, 20), st.tuples(st.integers(1, 5000), entries),
                                      min_size=0, max_size=5)


def items(committed):
    return [
        Committed(worker, float(n), np.array(c, np.float32))
        for worker, (n, c) in committed.items()
    ]


@given(committed_by_worker)
def test_the_weighted_sum_is_the_oracles_bit_for_bit(committed):
    weighted = aggregation.weighted_sum(items(committed), slice(0, 4))
    assert weighted.dtype == np.float64
    assert weighted.tolist() == oracle.weighted_sum(
        {worker: float(n) for worker, (n, _) in committed.items()},
        {worker: c for worker, (_, c) in committed.items()}, 4)


def test_the_order_of_arrival_never_shows():
    # 1e16 + 1 - 1e16 is 0 or 1, depending on the order.
    uploads = [
        Committed(1, 1.0, np.array([1e16], np.float32)),
        Committed(2, 1.0, np.array([1.0], np.float32)),
        Committed(3, 1.0, np.array([-1e16], np.float32))
    ]
    sums = {
        float(aggregation.weighted_sum(order, slice(0, 1))[0])
        for order in itertools.permutations(uploads)
    }
    assert sums == {float(np.float64(np.float32(1e16)) + 1 - np.float64(np.float32(1e16)))}


# Members 1 (n = 10, raw gain 9), 2 (n = 20, raw gain 4), 3 (n = 30, missing), 4 (n = 40, raw gain
# 1). B = all four.
BIDDERS = [Bidder(1, 10.0, 9.0), Bidder(2, 20.0, 4.0), Bidder(3, 30.0, None), Bidder(4, 40.0, 1.0)]


def test_rho_by_count_by_hand():
    # Selected 1 and 2: 100 / 30.
    assert aggregation.correction("count", BIDDERS, [1, 2], 10.0) == pytest.approx(100 / 30)
    # With 4 silent, B = 1, 2, 3: 60 / 30.
    assert aggregation.correction("count", BIDDERS[:3], [1, 2], 10.0) == pytest.approx(2)
    assert aggregation.correction("count", BIDDERS, [1, 2, 3, 4], 10.0) == 1


def test_rho_by_bids_by_hand():
    # n sqrt(gain): 30, 40, missing, 40. Mean sqrt(gain): (3 + 2 + 1) / 3 = 2; the missing one
    # counts 60. Selected 1 and 2: (30 + 40 + 60 + 40) / (30 + 40) = 170 / 70.
    assert aggregation.correction("bids", BIDDERS, [1, 2], 10.0) == pytest.approx(170 / 70)
    # Selected 4: 170 / 40, above a cap of 4.
    assert aggregation.correction("bids", BIDDERS, [4], 10.0) == pytest.approx(170 / 40)
    assert aggregation.correction("bids", BIDDERS, [4], 4.0) == 4
    # Everybody bid and was selected: LAQ.
    assert aggregation.correction("bids", BIDDERS[:2], [1, 2], 10.0) == 1


def test_rho_without_a_correction_or_without_a_selection():
    assert aggregation.correction("none", BIDDERS, [1], 10.0) == 1
    assert aggregation.correction("bids", BIDDERS, [], 10.0) == 1
    assert aggregation.correction("count", BIDDERS, [], 10.0) == 1


def test_rho_when_no_gain_was_bid():
    """0 / 0 says nothing about the refused: no correction."""
    idle = [Bidder(1, 10.0, 0.0), Bidder(2, 20.0, 0.0), Bidder(3, 5.0, None)]
    assert aggregation.correction("bids", idle, [1], 4.0) == 1


_bidder = st.tuples(st.integers(1, 999), st.one_of(st.none(), st.floats(1e-6, 1e3)))


@given(st.dictionaries(st.integers(0, 9), _bidder, min_size=1, max_size=6), st.data())
def test_rho_is_the_oracles(members, data):
    bid = sorted(worker for worker, (_, gain) in members.items() if gain is not None)
    if not bid:
        return
    selected = data.draw(st.lists(st.sampled_from(bid), min_size=1, unique=True))
    bidders = [Bidder(worker, float(n), gain) for worker, (n, gain) in sorted(members.items())]
    total = sum(n for n, _ in members.values())
    gains = {worker: (members[worker][0] / total, members[worker][1]) for worker in bid}
    missing = {worker: n / total for worker, (n, gain) in members.items() if gain is None}
    by_bids = oracle.rho_bids(selected, gains, missing)
    by_count = oracle.rho_count({w: members[w][0] for w in selected},
                                {w: n for w, (n, _) in members.items()})
    for cap in (1.5, 1e9):
        assert math.isclose(aggregation.correction("bids", bidders, selected, cap),
                            min(by_bids, cap), rel_tol=1e-12)
        assert math.isclose(aggregation.correction("count", bidders, selected, cap),
                            min(by_count, cap), rel_tol=1e-12)


def test_the_cap_is_the_members_per_place_else_four():
    assert aggregation.effective_rho_max(None, 10, 4) == 2.5
    assert aggregation.effective_rho_max(None, 10, 0) == 4
    # fewer members than places: nothing is refused
    assert aggregation.effective_rho_max(None, 3, 4) == 1
    assert aggregation.effective_rho_max(7.0, 10, 4) == 7
    assert aggregation.effective_rho_max(None, 10, 0, 3) == 12
    assert aggregation.effective_rho_max(None, 10, 4, 3) == 2.5


def test_nontrainable_values_are_the_weighted_mean_over_the_selected():
    # (1 * 2 + 3 * 6) / 4 = 5
    uploaded = [(2, 3.0, np.array([6], np.float32)), (1, 1.0, np.array([2], np.float32))]
    mean = aggregation.mean_non_trainable(uploaded, np.array([9], np.float32))
    assert mean.dtype == np.float32 and mean.tolist() == [5]
    assert aggregation.mean_non_trainable([], np.array([9], np.float32)).tolist() == [9]
