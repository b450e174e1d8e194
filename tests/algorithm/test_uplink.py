"""A proposal and its two futures: gain, width, clock, silence, what is not finite, and the chain of
hashes.
"""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import config
from flq.algorithm import uplink
from flq.algorithm.lazy import NEVER_COMMITTED, LazyTerms
from flq.compression import codec, payload
from flq.errors import FrameError
from flq.modes import MODES
from flq.parameters import Layout
from flq.records import LocalResult
from tests.algorithm.proposals import (
    NOT_LAZY,
    SIZES,
    P,
    decoded,
    draw_of,
    propose,
    result_of,
    settings_of,
    update_of,
)
from tests.oracles import context_stream, memories
from tests.oracles.sums import squared_norm
from tests.vectors import same_bits


def test_gain_and_residual_norm_by_hand():
    # u = (4, 1), h = 0, bbit with b = 2: grid -4, 0, 4; c = (4, 0); ||d||^2 = 17, ||d - c||^2 = 1.
    proposal = propose(uplink.initial_state(settings_of("bbit", "reference", (2,)), 2, 2, b"r"),
                       np.array([4, 1], np.float32), 0, settings_of("bbit", "reference", (2,)))
    assert proposal.gain == 16 and proposal.residual_norm == 1
    assert proposal.committed.last_error2 == 1 and proposal.kept.last_error2 == 0
    # Without a memory the gain is ||u||^2.
    proposal = propose(uplink.initial_state(settings_of("bbit", "none", (2,)), 2, 2, b"r"),
                       np.array([4, 1], np.float32), 0, settings_of("bbit", "none", (2,)))
    assert proposal.gain == 17


def test_a_gain_is_never_negative():
    # u = (1, 0, ..., 0), laq with b = 2: each zero becomes 1/3, 1 + 12/9 of error against a norm of
    # 1.
    u = np.zeros(21, np.float32)
    u[0] = 1
    settings = settings_of("laq", "reference", (21,))
    assert propose(uplink.initial_state(settings, 21, 2, b"r"), u, 0, settings).gain == 0


@pytest.mark.parametrize("memory", ["reference", "residual", "none"])
def test_laq_takes_one_bit_more_when_it_loses_half(memory):
    """||d - c||^2 > 0.5 ||d||^2: b + 1 from the next round, committed or not; never above 16; other
    quantisers never.
    """
    u = np.zeros(21, np.float32)
    u[0] = 1
    settings = settings_of("laq", memory, (21,))
    proposal = propose(uplink.initial_state(settings, 21, 2, b"r"), u, 0, settings)
    assert proposal.bits == 2
    assert uplink.settle(proposal, True).bits == 3 and uplink.settle(proposal, False).bits == 3
    # Each zero costs 1/9 of the norm: five lose more than half, four do not.
    for zeros, bits in ((5, 3), (4, 2)):
        few = settings_of("laq", memory, (zeros + 1,))
        proposal = propose(uplink.initial_state(few, zeros + 1, 2, b"r"), u[:zeros + 1], 0, few)
        assert uplink.settle(proposal, True).bits == uplink.settle(proposal, False).bits == bits
    calm = propose(uplink.initial_state(settings, 21, 8, b"r"), u, 0, settings)
    assert uplink.settle(calm, True).bits == 8
    for name, bits in (("bin", 1), ("bbit", 2)):
        settings = settings_of(name, memory, (21,))
        proposal = propose(uplink.initial_state(settings, 21, bits, b"r"), u, 0, settings)
        assert uplink.settle(proposal, True).bits == bits


def test_the_clock_counts_rounds_since_the_last_commit():
    settings = settings_of("laq", "reference")
    state = uplink.initial_state(settings, P, 4, b"r")
    assert state.clock == NEVER_COMMITTED
    clocks = []
    for round_, accepted in enumerate([False, True, False, False, True, True]):
        state = uplink.settle(propose(state, update_of(round_), round_, settings), accepted)
        clocks.append(state.clock)
    assert clocks == [NEVER_COMMITTED, 0, 1, 2, 0, 0]


@pytest.mark.parametrize("memory, spoil",
                         [(memory, spoil) for memory in ("reference", "residual", "none")
                          for spoil in ("update", "non_trainable", "loss")] + [("reference", "sum"),
                                                                       ("residual", "sum")])
def test_what_is_not_finite_is_a_silent_round_that_changes_only_the_clock(memory, spoil):
    settings = settings_of("laq", memory)
    state = uplink.settle(
        propose(uplink.initial_state(settings, P, 4, b"r"), update_of(0), 0, settings), True)
    update, values, loss = update_of(1), np.zeros(2, np.float32), 1.0
    if spoil == "update":
        update[3] = np.nan
    elif spoil == "non_trainable":
        values[1] = np.inf
    elif spoil == "loss":
        loss = float("nan")
    else:
        update[:] = 3.4e38
        sign = -1 if memory == "reference" else 1
        state = state._replace(memory=np.full(P, sign * 3.4e38, settings.memory.dtype))
    proposal = uplink.propose(state, LocalResult(update, values, loss, 1), 1, settings, NOT_LAZY,
                              draw_of(1))
    assert proposal.skip and proposal.reason == "nonfinite" and proposal.body is None
    for accepted in (True, False):
        after = uplink.settle(proposal, accepted)
        assert after.clock == 1
        assert after._replace(clock=0, memory=None) == state._replace(clock=0, memory=None)
        if memory != "none":
            assert same_bits(after.memory, state.memory, np.float64)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("h, reason", [(3.39e38, "nonfinite"), (2.39e38, "")])
def test_a_reference_stays_in_the_range_of_float32(sign, h, reason):
    """d = (1e36, 3e38), laq with b = 2: 1e36 becomes 1e38, for which a reference of 3.39e38 has no
    room.
    """
    settings = settings_of("laq", "reference", (2,))
    state = uplink.initial_state(settings, 2, 2, b"r")._replace(memory=np.array([sign * h, 0]))
    assert propose(state, np.array([sign * (h + 1e36), sign * 3e38], np.float32), 0,
                   settings).reason == reason


def test_a_silent_worker_keeps_its_reference_and_the_error_of_its_last_commit():
    settings = settings_of("laq", "reference")
    state = uplink.settle(
        propose(uplink.initial_state(settings, P, 4, b"r"), update_of(0), 0, settings), True)
    lazy = NOT_LAZY._replace(thr_scale=1.0, history_sum=1e9)
    proposal = propose(state, update_of(1), 1, settings, lazy)
    assert proposal.skip and proposal.reason == "lazy"
    after = uplink.settle(proposal, False)
    assert same_bits(after.memory, state.memory, np.float64)
    assert (after.clock, after.last_error2, after.reference_hash) == (1, state.last_error2,
                                                                      state.reference_hash)


def test_the_lazy_rule_sees_this_rounds_numbers():
    """The threshold is put one part in a million on either side of the worker's own ||c||^2."""
    settings = settings_of("laq", "reference")
    state = uplink.settle(
        propose(uplink.initial_state(settings, P, 4, b"r"), update_of(0), 0, settings), True)
    free = propose(state, update_of(1), 1, settings)
    c = decoded(free, settings).tolist()
    innovation2 = squared_norm(c)
    errors = free.committed.last_error2 + state.last_error2
    assert math.isclose(
        free.committed.last_error2,
        squared_norm([x - y for x, y in zip((update_of(1) - state.memory).tolist(), c)]),
        rel_tol=1e-5)
    for factor, silent in ((1 - 1e-6, False), (1 + 1e-6, True)):
        # (M w)^2 ||c||^2 against 0.5 (history + 3 (M w)^2 (eps + eps_hat)), M w = 2
        history = 2 * 4 * innovation2 * factor - 3 * 4 * errors
        lazy = LazyTerms(0.5, history, 100, 1, 3.0, 2.0)
        assert propose(state, update_of(1), 1, settings, lazy).skip == silent


@pytest.mark.parametrize("entropy_coding", [False, True])
def test_the_chain_is_the_hash_of_what_was_committed(entropy_coding):
    """r_0 = SHA-256(run, worker, epoch), r <- SHA-256(r || frame body); the body holds the
    non-trainable values too.
    """
    settings = settings_of("laq", "reference", entropy_coding=entropy_coding)
    first = uplink.first_reference_hash("run-1", 3, 0)
    state, bodies = uplink.initial_state(settings, P, 4, first), []
    for round_ in range(6):
        values = np.array([round_, 0.5], np.float32)
        proposal = uplink.propose(state, result_of(update_of(round_), values), round_, settings,
                                  NOT_LAZY, draw_of(round_))
        if round_ % 3 != 1:
            bodies.append(proposal.body.data + values.astype("<f4").tobytes())
        state = uplink.settle(proposal, round_ % 3 != 1)
        assert state.reference_hash == memories.chain(
            "run-1", 3, 0, bodies, lambda *key: "{}/{}/{}".format(*key).encode("ascii"))
    assert len({
        uplink.first_reference_hash(*key)
        for key in [("a", 1, 0), ("a", 1, 1), ("a", 2, 0), ("b", 1, 0)]
    }) == 4
    assert uplink.next_reference_hash(first, b"body") == hashlib.sha256(first + b"body").digest()


@given(st.lists(st.booleans(), min_size=1, max_size=10))
def test_both_sides_hold_the_same_reference(verdicts):
    """A master that only sees bodies and verdicts rebuilds h and the chain."""
    settings = settings_of("laq", "reference")
    chain = uplink.first_reference_hash("run", 0, 0)
    state, h = uplink.initial_state(settings, P, 3, chain), np.zeros(P)
    for round_, accepted in enumerate(verdicts):
        proposal = propose(state, update_of(round_), round_, settings)
        state = uplink.settle(proposal, accepted)
        if accepted:
            encoded = codec.from_body(proposal.body, settings.quantizer, proposal.bits, SIZES)
            h = h + codec.decode(encoded, SIZES)
            chain = uplink.next_reference_hash(
                chain, payload.pack(proposal.body.data, np.zeros(0, np.float32)))
        assert same_bits(state.memory, h, np.float64) and state.reference_hash == chain


def test_a_proposal_leaves_the_state_alone():
    settings = settings_of("laq", "reference")
    state = uplink.settle(
        propose(uplink.initial_state(settings, P, 4, b"r"), update_of(0), 0, settings), True)
    before = state.memory.copy()
    once, again = propose(state, update_of(1), 1, settings), propose(state, update_of(1), 1,
                                                                     settings)
    assert once.body == again.body
    assert once.committed.reference_hash == again.committed.reference_hash
    assert same_bits(state.memory, before, np.float64)


@pytest.mark.parametrize("name, memory", [(row.name, memory) for row in MODES.values()
                                          for memory in row.memories
                                          if row.name not in ("fedavg", "laq8")])
def test_a_history_is_what_was_committed(name, memory):
    """It moves with the verdict alone, both sides make it of the levels, and the levels are those
    of a run without one.
    """
    rate = 0.3 if memory == "reference" else 1.0
    plain, settings = (settings_of(name, memory, (P,), True, rate, kept) for kept in (False, True))
    bits = settings.quantizer.mode.bits
    state, other = (uplink.initial_state(one, P, bits, b"r" * 32) for one in (settings, plain))
    master = uplink.history(settings, None)
    slow = [0] * P
    assert state.activity.tolist() == slow and state.activity.dtype == np.uint8
    assert other.activity is None and uplink.history(plain, None) is None
    for round_ in range(8):
        proposal = propose(state, update_of(round_), round_, settings)
        alike = propose(other, update_of(round_), round_, plain)
        top = settings.quantizer.max_level(proposal.bits)
        came = codec.from_body(proposal.body, settings.quantizer, proposal.bits, (P,), master)
        usual = codec.from_body(alike.body, plain.quantizer, alike.bits, (P,))
        assert came.levels.tolist() == usual.levels.tolist()
        after = context_stream.next_activity(slow, came.levels.tolist(), top)
        assert proposal.committed.activity.tolist() == after
        assert proposal.kept.activity.tolist() == slow
        memory_after, activity_after = uplink.commit(settings, proposal.kept, proposal.body,
                                                     proposal.bits)
        assert activity_after.tolist() == after
        assert (memory_after is None) == (memory == "none")
        accepted = round_ % 3 != 1
        if accepted:
            slow, master = after, codec.next_activity(master, came)
        state, other = (uplink.settle(one, accepted) for one in (proposal, alike))
        assert state.activity.tolist() == master.tolist() == slow
    assert (max(slow) > 0) == (settings.quantizer.max_level(bits) > 1)


def test_an_upload_beside_another_history_is_refused():
    settings = settings_of("rd", "reference", (1024,), True, keeps_history=True)
    state = uplink.initial_state(settings, 1024, 8, b"r")
    update = np.where(np.arange(1024) % 7 == 0, 1, 1e-3).astype(np.float32)
    for round_ in range(2):
        proposal = propose(state, update * (1 + round_), round_, settings)
        state = uplink.settle(proposal, True)
    assert proposal.body.beside_history
    with pytest.raises(FrameError) as refusal:
        codec.from_body(proposal.body, settings.quantizer, 8, (1024,),
                        uplink.history(settings, None))
    assert refusal.value.reason == "other_history"


@pytest.mark.parametrize("keys, expected", [
    ({}, 0), ({"entropy_coding": True}, 0), ({"entropy_coding": "context"}, 4 * 2 ** 19),
    ({"entropy_coding": "context", "mode": "rd"}, 4 * 2 ** 19),
    ({"entropy_coding": "context", "mode": "fedavg"}, 0),
    ({"entropy_coding": "context", "master_side_information_mb": 2}, 4 * 2 ** 19),
    ({"entropy_coding": "context", "master_side_information_mb": 1}, 0),
    ({"entropy_coding": "context", "master_side_information_mb": 0}, 0),
])
def test_the_histories_of_all_workers_have_room_at_the_master_or_none_is_kept(keys, expected):
    """A byte a weight and worker, 4 workers with 2^19 weights."""
    built, layout = config.build({"total_workers": 4, **keys}), Layout(((2 ** 19,),))
    settings = uplink.settings_from(built, layout)
    assert uplink.side_information_bytes(built, layout) == expected
    assert settings.keeps_history == (expected > 0)
    assert settings.entropy_coding == (keys.get("mode") != "fedavg")
