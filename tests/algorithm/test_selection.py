"""Who may upload, against one slow pass over the bids."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from flq.algorithm.selection import Candidate, select
from flq.records import Option
from tests.oracles import selection as oracle

# Weights and gains that are exact in binary, so that ties are ties.
_bid = st.tuples(st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 8),
                 st.sampled_from([64, 128, 256, 1000]), st.booleans())
_bids = st.dictionaries(st.integers(0, 30), _bid, max_size=8)


def _candidates(bids):
    return [
        Candidate(worker, weight, overdue, Option(4, bits, float(gain)))
        for worker, (weight, gain, bits, overdue) in bids.items()
    ]


def _granted(bids, sel_clients=0, budget=0):
    return sorted(select(_candidates(bids), sel_clients, budget))


@given(_bids, st.integers(0, 5), st.sampled_from([0, 1, 63, 64, 200, 500, 2000]))
def test_selection_is_the_slow_one(bids, sel_clients, budget):
    slow = {
        worker: (weight * weight * gain, bits, overdue)
        for worker, (weight, gain, bits, overdue) in bids.items()
    }
    assert _granted(bids, sel_clients, budget) == oracle.select(slow, sel_clients, budget)


@given(_bids, st.integers(0, 5), st.sampled_from([0, 64, 200, 500, 2000]),
       st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_the_order_of_the_bids(bids, sel_clients, budget, random):
    shuffled = list(bids.items())
    random.shuffle(shuffled)
    assert select(_candidates(bids), sel_clients, budget) == select(_candidates(dict(shuffled)),
                                                                    sel_clients, budget)


@given(_bids, st.integers(0, 5), st.sampled_from([0, 1, 64, 200, 500, 2000]))
def test_no_limit_is_passed_and_somebody_is_always_selected(bids, sel_clients, budget):
    granted = select(_candidates(bids), sel_clients, budget)
    assert bool(granted) == bool(bids)
    assert not sel_clients or len(granted) <= sel_clients
    spent = sum(option.bits for option in granted.values())
    assert not budget or spent <= budget or (len(granted) == 1
                                             and all(bits > budget
                                                     for _, _, bits, _ in bids.values()))


def test_nothing_set_selects_everybody():
    assert _granted({3: (1, 0, 100, False), 1: (1, 5, 100, False)}) == [1, 3]


def test_the_best_n_by_weighted_gain():
    # w^2 gain: 0.25 * 8 = 2, 1 * 1 = 1, 0.0625 * 16 = 1.
    bids = {1: (0.5, 8, 100, False), 2: (1.0, 1, 100, False), 3: (0.25, 16, 100, False)}
    assert _granted(bids, 1) == [1]
    assert _granted(bids, 2) == [1, 2]  # the tie goes to the smaller id


def test_the_overdue_come_first():
    bids = {1: (1.0, 100, 100, False), 2: (1.0, 1, 100, True), 3: (1.0, 2, 100, True)}
    assert _granted(bids, 1) == [3]
    assert _granted(bids, 2) == [2, 3]
    assert _granted(bids, 0, 200) == [2, 3]


def test_the_budget_buys_the_most_gain_per_bit():
    # Per bit: 10/1000, 6/400, 5/300.
    bids = {1: (1.0, 10, 1000, False), 2: (1.0, 6, 400, False), 3: (1.0, 5, 300, False)}
    assert _granted(bids, 0, 700) == [2, 3]
    assert _granted(bids, 0, 1000) == [2, 3]
    assert _granted(bids, 0, 1400) == [2, 3]   # 1 does not fit beside them
    assert _granted(bids, 0, 350) == [3]
    assert _granted(bids, 1, 1400) == [3]      # both limits hold


def test_who_does_not_fit_is_passed_over():
    bids = {1: (1.0, 90, 100, False), 2: (1.0, 60, 100, False), 3: (1.0, 10, 40, False)}
    assert _granted(bids, 0, 150) == [1, 3]


def test_a_budget_below_the_smallest_bid_grants_the_best_one():
    bids = {1: (1.0, 1, 100, False), 2: (1.0, 9, 300, False)}
    assert _granted(bids, 0, 99) == [2]  # 9/300 against 1/100
    assert _granted({}, 0, 99) == []


def test_two_equal_bids_in_every_order():
    for order in itertools.permutations([1, 2, 3]):
        assert _granted(dict.fromkeys(order, (1.0, 4, 100, False)), 2) == [1, 2]
