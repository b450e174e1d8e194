"""Bounds on uploads: what is refused and what is not."""

import numpy as np
import pytest

from flq.algorithm import bounds, memories
from flq.algorithm.bounds import Examined
from flq.compression import codec, configured
from flq.config import load
from flq.kernels import squared_norm

KEY = bytes(range(16))
STATE = np.ones(3, np.float32)


def upload(worker, length, direction=0, memory=memories.REFERENCE, turns=1, state=STATE):
    """An upload of that length along one axis."""
    c = np.zeros(50, np.float32)
    c[direction] = length
    return Examined(worker, bounds.measure(KEY, memory, c, state), turns)


def after(*rounds, memory=memories.REFERENCE):
    observed = bounds.first_observed(KEY)
    for accepted in rounds:
        observed = bounds.observe(observed, memory, accepted)
    return observed


def refused(observed, *uploads, ratio=5.0, floor=10.0, memory=memories.REFERENCE):
    return [(found.worker, found.reason)
            for found in bounds.refusals(observed, memory, uploads, ratio, lambda: floor)]


def test_without_a_history_the_uploads_of_the_round_are_compared_with_each_other():
    usual = [upload(worker, 1.0, worker) for worker in range(4)]
    assert refused(after(), *usual) == []
    assert refused(after(), *usual, upload(9, 1e30)) == [(9, "norm")]
    assert refused(after(), *usual, upload(9, 4.9)) == []


def test_two_that_are_there_alone_are_compared_with_the_floor():
    assert refused(after(), upload(0, 49.0), upload(1, 51.0)) == [(1, "norm")]


def test_what_was_accepted_bounds_what_follows():
    observed = after([upload(worker, 1.0, worker) for worker in range(3)])
    assert refused(observed, upload(7, 5.5, 9)) == [(7, "norm")]
    assert refused(observed, upload(7, 5.5, 9), ratio=6.0) == []
    assert refused(observed, upload(7, 1e30, 9), ratio=0.0) == []


def test_a_reference_that_drifts_is_stopped_at_the_bound():
    """Each step is short; their sum is not."""
    rounds, taken = [[upload(worker, 1.0, worker) for worker in range(3)]], 0
    still = [upload(worker, 0.0) for worker in range(3)]  # their references are as long as ever
    while refused(after(*rounds), upload(9, 1.5, 9), *still) == []:
        rounds.append([upload(9, 1.5, 9), *still])
        taken += 1
    assert taken == 3, "1.5 x 4 is above 5 x 1.0, and 1.5 x 3 is not"


def test_a_slow_reference_may_take_more_steps_and_never_becomes_longer():
    slow = memories.reference(0.1)
    rounds, accepted = [[upload(worker, 1.0, worker) for worker in range(3)]], 0
    for _ in range(100):
        if not refused(after(*rounds, memory=slow), upload(9, 3.0, 9), memory=slow):
            rounds.append([upload(9, 3.0, 9), *(upload(worker, 1.0, worker + 20 + accepted)
                                                for worker in range(3))])
            accepted += 1
    assert 0.1 * 3.0 * accepted <= 5.5


def test_a_worker_whose_reference_is_reset_begins_at_0():
    observed = after([*(upload(worker, 1.0, worker) for worker in range(10, 15)),
                      upload(2, 4.0, 2)])
    assert refused(observed, upload(2, 4.0, 2)) == [(2, "norm")]
    assert refused(bounds.forget(observed, [2]), upload(2, 4.0, 2)) == []


def test_a_newcomer_to_a_run_that_has_converged_is_no_attack():
    start = [upload(worker, 1.0, worker, memories.NONE) for worker in range(3)]
    late = [[upload(worker, 0.001, worker, memories.NONE) for worker in range(3)]
            for _ in range(bounds.WINDOW)]
    observed = after(start, *late, memory=memories.NONE)
    assert refused(observed, upload(9, 2.0, 0, memories.NONE), memory=memories.NONE) == []
    assert refused(observed, upload(9, 3.0, 0, memories.NONE),
                   memory=memories.NONE) == [(9, "norm")]


def test_a_residual_may_hold_the_updates_of_the_turns_that_were_refused():
    residual = memories.RESIDUAL
    observed = after([upload(worker, 1.0, memory=residual) for worker in range(3)],
                     memory=residual)
    assert refused(observed, upload(0, 12.0, memory=residual, turns=3), memory=residual) == []
    assert refused(observed, upload(0, 12.0, memory=residual, turns=2),
                   memory=residual) == [(0, "norm")]
    assert refused(observed, upload(0, 1e3, memory=residual, turns=10**6),
                   memory=residual) == [(0, "norm")]


def test_non_trainable_values_are_bounded_too():
    usual = [upload(worker, 1.0, worker) for worker in range(3)]
    wild = upload(9, 1.0, state=np.array([1e20, 0, 0], np.float32))
    assert refused(after(), *usual, wild) == [(9, "state")]
    assert refused(after(usual), wild) == [(9, "state")]


def test_a_worker_with_most_of_the_weight_is_too_heavy_among_three():
    assert bounds.too_heavy({0: 1e6, 1: 1.0}, 0.5) == []
    assert bounds.too_heavy({0: 1e6, 1: 1.0, 2: 1.0}, 0.5) == [0]
    assert bounds.too_heavy({0: 2.0, 1: 1.0, 2: 1.0}, 0.5) == []


@pytest.mark.parametrize("mode", ["laq", "bbit", "bin", "qsgd", "rd", "fedavg"])
@pytest.mark.parametrize("shape", ["normal", "sparse", "heavy"])
def test_an_honest_gain_is_within_the_bound(mode, shape):
    """For every width, and memories whose gain is bounded."""
    algorithm = load(None, ["mode=" + mode]).config.flq_algorithm
    quantizer, dice = configured(mode, algorithm), np.random.RandomState(3)
    d = dice.standard_normal(4000)
    if shape == "sparse":
        d *= dice.random_sample(4000) < 0.01
    elif shape == "heavy":
        d = d**5
    d = d.astype(np.float32)
    for bits in range(quantizer.min_bits, min(quantizer.max_bits, 8) + 1):
        encoded = codec.encode(quantizer, d, (4000,), bits, dice.random_sample)
        c = codec.decode(encoded, (4000,))
        gain = memories.REFERENCE.gain(squared_norm(d), squared_norm(d - c))
        assert gain <= bounds.GAIN_RATIO * squared_norm(c)
