"""A and the workers' h_m over thousands of rounds: what is rounded, and how much of it there can be
(algorithm.md 3).

Softmax regression on whole shards, without noise: once theta rests, innovations are far smaller
than h, and laq, whose grid has no zero, sends one for every weight all the same.
"""

from fractions import Fraction

import numpy as np
import pytest

from flq import config as configuration
from flq.algorithm import round as rounds
from flq.algorithm import uplink
from flq.algorithm.model_state import Answers, Departure, Upload
from flq.parameters import Layout
from tests.algorithm.proposals import NOT_LAZY, decoded, draw_of, result_of
from tests.vectors import no_draw

FEATURES, CLASSES, SHARD, RATE, L2 = 4, 3, 20, 0.5, 0.1
LAYOUT = Layout(((FEATURES, CLASSES), (CLASSES,)))
P = LAYOUT.num_params
SAMPLES = {0: 30, 1: 10, 2: 25, 3: 17}  # the weights n_m
N = sum(SAMPLES.values())


class Softmax(object):
    """Workers and a master without wire or store: every worker commits in every round."""

    def __init__(self, mode, rate=1.0):
        draw = np.random.RandomState(3)
        self.x = {
            worker: draw.standard_normal((SHARD, FEATURES)) + draw.standard_normal(FEATURES)
            for worker in SAMPLES
        }
        self.y = {worker: np.eye(CLASSES)[draw.randint(0, CLASSES, SHARD)] for worker in SAMPLES}
        self.config = configuration.build({
            "flq_algorithm.mode": mode, "flq_algorithm.memory": "reference",
            "flq_algorithm.memory_rate": rate, "flq_algorithm.entropy_coding": False,
            "flq_algorithm.b_down": 0, "model.server_optimizer": "sgd", "model.lr": RATE
        })
        self.settings = uplink.settings_from(self.config, LAYOUT)
        zeros = np.zeros(P, np.float32)
        self.master = rounds.initial_state(self.config, LAYOUT, zeros, zeros[:0])
        for worker, n in SAMPLES.items():
            self.master = rounds.open_account(self.master, "run", worker, n, False)
        self.uplinks = {
            worker: uplink.initial_state(self.settings, P, self.config.flq_algorithm.b_up, b"r")
            for worker in SAMPLES
        }
        self.largest, self.commits = 0.0, 0  # of any |g_m|; rounds

    def gradient(self, worker):
        theta, x, y = self.master.broadcast.astype(np.float64), self.x[worker], self.y[worker]
        shares = np.exp(np.dot(x, theta[:-CLASSES].reshape(FEATURES, CLASSES)) + theta[-CLASSES:])
        error = (shares / shares.sum(1, keepdims=True) - y) / SHARD
        return np.concatenate([np.dot(x.T, error).ravel(), error.sum(0)]) + L2 * theta

    @property
    def true_gradient(self):
        return sum(n * self.gradient(worker) for worker, n in SAMPLES.items()) / N

    def play(self, count):
        for _ in range(count):
            uploads = []
            for worker in SAMPLES:
                proposal = uplink.propose(self.uplinks[worker], result_of(self.gradient(worker)),
                                          self.commits, self.settings, NOT_LAZY, no_draw)
                uploads.append(
                    Upload(worker, decoded(proposal, self.settings), proposal.non_trainable,
                           proposal.committed.reference_hash, proposal.gain))
                self.uplinks[worker] = uplink.settle(proposal, True)
                self.largest = max(self.largest, float(np.abs(self.uplinks[worker].memory).max()))
            answers = Answers(tuple(uploads), (), (), ())
            self.master = rounds.close_round(self.master, answers, self.config, LAYOUT,
                                             lambda n: 1).model
            self.commits += 1

    def depart(self, *workers):
        self.master = rounds.depart(
            self.master, "run",
            [Departure(worker, self.uplinks[worker].memory) for worker in workers])

    @property
    def difference(self):
        """The largest entry of sum n_m g_m, as the master has it, less that of what the members
        hold, computed with more digits than float64 has.
        """
        held = sum(SAMPLES[worker] * self.uplinks[worker].memory.astype(np.longdouble)
                   for worker in self.master.members)
        return float(np.abs(self.master.reference_sum - held).max())

    @property
    def bound(self):
        """2^-53 N max|g| for each addition to A and, of all workers together, to their h_m, and
        those of the sum of a round.
        """
        return (2 + len(SAMPLES)) * self.commits * 2.0 ** -53 * N * self.largest


@pytest.mark.parametrize("mode, rate", [("laq", 1.0), ("rd", 1.0), ("laq", 0.3)])
def test_the_gradient_falls_to_the_resolution_of_float32_and_stays_there(mode, rate):
    run = Softmax(mode, rate)
    run.play(400)
    for _ in range(26):
        # Theta rests when a step is below half a unit in its last place; v is as exact as float32
        # updates are.
        resolution = 2.0 ** -24 * (float(np.abs(run.master.params).max()) / RATE +
                                   rate * run.largest)
        assert np.abs(run.true_gradient).max() <= 2 * resolution
        assert run.difference <= run.bound
        run.play(100)
    assert run.master.version == 3000


@pytest.mark.parametrize("rate", [1.0, 0.3, 0.1])
def test_both_sides_hold_exactly_what_was_committed(rate):
    """300 rounds in which some commit, some leave and come back: g_m and sum n_m g_m have no
    rounding in them, so that h_m = a g_m and A = a sum n_m g_m belong together (algorithm.md 3).
    """
    samples = {0: 100003, 1: 10, 2: 25, 3: 17}
    config = configuration.build({
        "flq_algorithm.mode": "bin", "flq_algorithm.memory_rate": rate, "flq_algorithm.b_down": 0
    })
    settings, draw = uplink.settings_from(config, LAYOUT), np.random.RandomState(5)
    zeros = np.zeros(P, np.float32)
    master = rounds.initial_state(config, LAYOUT, zeros, zeros[:0])
    for worker, n in samples.items():
        master = rounds.open_account(master, "run", worker, n, False)
    held = {worker: uplink.initial_state(settings, P, 1, b"r") for worker in samples}
    exact = {worker: [Fraction(0)] * P for worker in samples}
    for round_ in range(300):
        if round_ % 40 == 30:
            leaving = (round_ // 40) % len(samples)
            master = rounds.depart(master, "run",
                                   [Departure(leaving, held[leaving].memory)])
            held[leaving] = uplink.initial_state(settings, P, 1, b"r")
            exact[leaving] = [Fraction(0)] * P
        uploads, update = [], draw.standard_normal(P)
        for worker in samples:
            proposal = uplink.propose(held[worker], result_of(update + draw.standard_normal(P)),
                                      round_, settings, NOT_LAZY, draw_of(round_))
            accepted = draw.random_sample() < 0.7
            if accepted:
                c = decoded(proposal, settings)
                uploads.append(
                    Upload(worker, c, proposal.non_trainable,
                           proposal.committed.reference_hash, proposal.gain))
                exact[worker] = [g + Fraction(float(x)) for g, x in zip(exact[worker], c)]
            held[worker] = uplink.settle(proposal, accepted)
            assert [Fraction(g) for g in held[worker].memory.tolist()] == exact[worker]
        before = [Fraction(g) for g in master.reference_sum.tolist()]
        closed = rounds.close_round(master, Answers(tuple(uploads), (), (), ()), config,
                                    LAYOUT, lambda n: 1)
        master = closed.model
        sums = [
            sum(samples[worker] * exact[worker][i] for worker in master.members) for i in range(P)
        ]
        assert [Fraction(g) for g in master.reference_sum.tolist()] == sums
        v2 = _direction_norm2(rate, before, sums, closed.rho,
                              sum(samples[worker] for worker in master.members))
        assert closed.direction_norm2 == pytest.approx(float(v2), rel=1e-6)


def _direction_norm2(rate, before, after, rho, total):
    """||v||^2 of v = (A + rho D) / N, A = a before, D what was added to it."""
    return sum(((Fraction(rate) * old + Fraction(rho) * (new - old)) / total)**2
               for old, new in zip(before, after))


def test_who_leaves_takes_along_what_it_brought():
    run = Softmax("laq")
    run.play(300)
    run.depart(2)
    assert run.master.members == (0, 1, 3) and np.abs(run.master.reference_sum).max() > 0.1
    assert run.difference <= run.bound
    run.depart(0, 3)
    assert run.difference <= run.bound


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0), (1,)])
def test_nothing_is_left_when_all_have_left(order):
    run = Softmax("laq")
    run.play(300)
    for worker in order[1:]:
        run.depart(worker)
    run.depart(*set(SAMPLES) - set(order[1:]))
    assert run.master.members == () and run.master.reference_sum.tolist() == [0.0] * P


def test_a_run_that_summed_in_float32_is_computed_as_it_was():
    """What an older version subtracted was a float32 h_m, and what its roundings left in A stayed
    there.
    """
    run = Softmax("laq")
    run.play(300)
    sums = run.master.reference_sum
    for worker in SAMPLES:
        h = run.uplinks[worker].memory.astype(np.float32)
        sums = sums - SAMPLES[worker] * h.astype(np.float64)
        run.master = rounds.depart(run.master, "run", [Departure(worker, h)])
    assert run.master.reference_sum.tolist() == sums.tolist() and np.abs(sums).max() > 0
