"""The rule of silence: hand-worked numbers, the window's edges, and the rule as LAQ prints it."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flq.algorithm import lazy
from flq.algorithm.lazy import LazyTerms
from tests.oracles import lazy as oracle

TERMS = LazyTerms(thr_scale=1.0, history_sum=2.0, max_skips=100, warmup=1, lazy_eps=0.0,
                  relative_weight=1.0)


def _norms(values, window):
    """What the master keeps after rounds 0, 1, ... with these ||v||^2."""
    kept = ()
    for value in values:
        kept = lazy.push_norm(kept, value, window)
    return kept


def test_the_window_by_hand():
    # ||v^0||^2 .. ||v^3||^2 = 1, 4, 9, 16; D = 3, ck = 0.75, xi = 0.25.
    # k = 4: v^3, v^2, v^1 count: 0.25 * (16 + 9 + 4) = 7.25; v^0 has left.
    assert lazy.history_sum(_norms([1, 4, 9, 16], 3), 0.75, 3) == 7.25
    # k = 3: 0.25 * (9 + 4 + 1) = 3.5. k = 2: v^-1 is 0: 0.25 * (4 + 1) = 1.25. k = 1: 0.25. k = 0:
    # 0.
    assert lazy.history_sum(_norms([1, 4, 9], 3), 0.75, 3) == 3.5
    assert lazy.history_sum(_norms([1, 4], 3), 0.75, 3) == 1.25
    assert lazy.history_sum(_norms([1], 3), 0.75, 3) == 0.25
    assert lazy.history_sum(_norms([], 3), 0.75, 3) == 0
    # D = 1: the last one alone.
    assert lazy.history_sum(_norms([1, 4, 9], 1), 0.75, 1) == 0.75 * 9


@given(st.lists(st.floats(0, 1e6), max_size=12), st.integers(1, 6), st.floats(0, 2))
def test_the_window_is_the_oracles_sum(values, window, ck):
    assert lazy.history_sum(_norms(values, window), ck,
                            window) == oracle.history_sum(values, window, ck)


def test_a_decision_by_hand():
    # M w = 2, ||c||^2 = 0.5: left side 4 * 0.5 = 2.
    # History 7.25, lazy_eps 3, eps 0.25, eps_hat 0.125: 7.25 + 3 * 4 * 0.375 = 11.75.
    terms = LazyTerms(thr_scale=0.0, history_sum=7.25, max_skips=100, warmup=1, lazy_eps=3.0,
                      relative_weight=2.0)

    def skips(thr_scale):
        return lazy.should_skip(terms._replace(thr_scale=thr_scale), 5, 0, 0.5, 0.25, 0.125)

    assert not skips(0)                 # off
    assert not skips(2 / 11.75 - 1e-9)  # 2 >= threshold
    assert skips(2 / 11.75 + 1e-9)      # 2 < threshold
    assert skips(0.25)                  # 2 < 2.9375
    assert not skips(0.125)             # 2 >= 1.46875


def test_equality_sends():
    assert not lazy.should_skip(TERMS, 5, 0, 2.0, 0, 0)
    assert lazy.should_skip(
        TERMS, 5, 0,
        math.nextafter(2.0, 0) if hasattr(math, "nextafter") else 2.0 - 2.0**-52, 0, 0)
    # Nothing moved and nothing is new: 0 < 0 is false, so it sends.
    assert not lazy.should_skip(TERMS._replace(history_sum=0.0), 5, 0, 0.0, 0, 0)


def test_the_clock_and_the_warm_up():
    terms = TERMS._replace(max_skips=3, warmup=4)
    assert [lazy.should_skip(terms, 5, clock, 1.0, 0, 0)
            for clock in (0, 2, 3, 4)] == [True, True, False, False]
    assert [lazy.should_skip(terms, round_, 0, 1.0, 0, 0)
            for round_ in (0, 3, 4, 5)] == [False, False, True, True]
    assert not lazy.should_skip(TERMS, 5, lazy.NEVER_COMMITTED, 0.0, 0, 0)
    assert not lazy.should_skip(TERMS, 0, 0, 0.0, 0, 0)


def test_silence_lasts_at_most_C_rounds():
    """Clock 0 after a commit; with C = 3 and nothing ever new: three silent rounds, then an upload.
    """
    terms, clock, sent = TERMS._replace(max_skips=3), 0, []
    for round_ in range(1, 13):
        if lazy.should_skip(terms, round_, clock, 0.0, 0, 0):
            clock += 1
        else:
            sent.append(round_)
            clock = 0
    assert sent == [4, 8, 12]


_part = st.floats(0, 1e3)


@given(_part, _part, _part, st.floats(0.1, 10), _part, st.floats(0, 3), st.floats(0, 4),
       st.integers(0, 4), st.integers(0, 4))
def test_the_decision_is_the_oracles(innovation2, error2, last_error2, m_w, history, thr_scale,
                                     lazy_eps, clock, round_):
    terms = LazyTerms(thr_scale, history, 3, 2, lazy_eps, m_w)
    left = m_w ** 2 * innovation2
    right = thr_scale * (history + lazy_eps * m_w ** 2 * (error2 + last_error2))
    assume(left == right == 0 or abs(left - right) > 1e-9 * right)
    assert lazy.should_skip(terms, round_, clock, innovation2, error2, last_error2) == oracle.skips(
        innovation2, error2, last_error2, m_w, history, thr_scale, lazy_eps, clock, 3, round_, 2)


@given(st.lists(st.lists(st.floats(-2, 2), min_size=3, max_size=3), min_size=1, max_size=9), _part,
       _part, _part, st.floats(0.01, 1), st.integers(2, 20), st.integers(1, 5), st.floats(0.1, 1))
def test_with_plain_sgd_it_is_laqs_rule(directions, innovation2, error2, last_error2, alpha,
                                        workers, window, ck):
    """w = 1/M, one full step, lr = alpha M on the mean: (7a) on the models theta^{k+1} = theta^k -
    alpha M v^k.
    """
    model, models, kept = [0.0, 0.0, 0.0], [[0.0, 0.0, 0.0]], ()
    for v in directions:
        model = [x - alpha * workers * g for x, g in zip(model, v)]
        models.append(model)
        kept = lazy.push_norm(kept, sum(g * g for g in v), window)
    history = lazy.history_sum(kept, ck, window)
    assume(
        abs(innovation2 - history - 3 * (error2 + last_error2)) > 1e-6 *
        (1 + innovation2 + history))
    terms = LazyTerms(1.0, history, 100, 1, 3.0, relative_weight=1.0)
    assert lazy.should_skip(terms, len(directions), 0, innovation2, error2,
                            last_error2) == oracle.laq_7a(innovation2, error2, last_error2, models,
                                                          alpha, workers, [ck / window] * window)


@pytest.mark.parametrize("lazy_eps", [0.0, 3.0])
def test_the_weight_scales_both_the_innovation_and_its_error(lazy_eps):
    """With an empty history M w cancels."""
    decisions = {
        lazy.should_skip(TERMS._replace(history_sum=0.0, lazy_eps=lazy_eps, relative_weight=w), 5,
                         0, 1.0, 0.2, 0.2) for w in (0.01, 1.0, 100.0)
    }
    assert decisions == {lazy_eps == 3.0}
