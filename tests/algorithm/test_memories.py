"""What a worker remembers: LAQ's recursion, error feedback, no mass lost, a frozen update that is
learnt; and the three directions.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import config, modes, rng
from flq.algorithm import aggregation, uplink
from flq.algorithm import memories as rules
from flq.algorithm.aggregation import Committed
from flq.algorithm.memories import MEMORIES, REFERENCE
from tests.algorithm.proposals import SIZES, P, decoded, propose, settings_of, update_of
from tests.algorithm.test_aggregation import committed_by_worker, items
from tests.algorithm.test_references import Softmax
from tests.oracles import aggregation as aggregation_oracle
from tests.oracles import memories
from tests.oracles import quantisers as oracle
from tests.oracles.sums import squared_norm
from tests.vectors import same_bits


def direction(memory, reference_sum, total_weight, weighted, selected_weight, rho):
    """v, None where the optimiser must not step."""
    v = np.full(weighted.size, np.nan, np.float32)
    steps = memory.direction(reference_sum, total_weight, weighted, selected_weight, rho, v)
    assert steps or np.isnan(v).all()
    return v if steps else None


ALL = [("laq", 4), ("laq", 2), ("bbit", 4), ("bbit", 2), ("bin", 1), ("fedavg", 32)]


def _slow(name, bits, sizes=SIZES):
    """Q of one vector, tensor by tensor, from the oracles."""
    def quantise(d):
        c, start = [], 0
        for size in sizes:
            part = d[start:start + size]
            if name == "laq":
                c += oracle.laq_decode(oracle.radius(part), oracle.laq_levels(part, bits), bits)
            elif name == "bbit":
                c += oracle.bbit_decode(oracle.radius(part), oracle.bbit_levels(part, bits), bits)
            elif name == "bin":
                c += oracle.bin_decode(oracle.bin_scale(part), oracle.bin_levels(
                    part, [])) if part else []
            else:
                c += part
            start += size
        return c
    return quantise


@pytest.mark.parametrize("name, bits", ALL)
def test_reference_memory_is_the_recursion_of_laq(name, bits):
    """h += Q(u - h) on a commit, nothing otherwise: 30 rounds, every third refused, bit for bit."""
    settings, quantise = settings_of(name, "reference"), _slow(name, bits)
    state, slow_h = uplink.initial_state(settings, P, bits, b"r"), [0.0] * P
    for round_ in range(30):
        state = state._replace(bits=bits)  # laq's own widening is tested below
        update = update_of(round_)
        proposal = propose(state, update, round_, settings)
        c, committed = memories.laq_step(update.tolist(), slow_h, quantise)
        accepted = round_ % 3 != 2
        assert same_bits(decoded(proposal, settings), c)
        assert same_bits(uplink.settle(proposal, True).memory, committed, np.float64)
        assert same_bits(uplink.settle(proposal, False).memory, slow_h, np.float64)
        slow_h = committed if accepted else slow_h
        state = uplink.settle(proposal, accepted)


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1, modes.LOWEST_MEMORY_RATE])
@pytest.mark.parametrize("name, bits", ALL)
def test_a_reference_that_learns_slowly_is_the_recursion_of_diana(name, bits, rate):
    """h += a Q(u - h) on a commit, nothing otherwise: 30 rounds, every third refused, bit for bit.
    """
    settings, quantise = settings_of(name, "reference", rate=rate), _slow(name, bits)
    state, slow_g = uplink.initial_state(settings, P, bits, b"r"), [0.0] * P
    for round_ in range(30):
        state = state._replace(bits=bits)
        update = update_of(round_)
        proposal = propose(state, update, round_, settings)
        c, committed = memories.diana_step(update.tolist(), slow_g, rate, quantise)
        accepted = round_ % 3 != 2
        assert same_bits(decoded(proposal, settings), c)
        assert same_bits(uplink.settle(proposal, True).memory, committed, np.float64)
        assert same_bits(uplink.settle(proposal, False).memory, slow_g, np.float64)
        assert same_bits(
            uplink.commit(settings, proposal.kept, proposal.body, proposal.bits)[0],
            committed, np.float64)
        slow_g = committed if accepted else slow_g
        state = uplink.settle(proposal, accepted)


@pytest.mark.parametrize("name, bits", ALL)
def test_residual_memory_is_error_feedback(name, bits):
    """a = u + e; committed e <- a - Q(a), not committed e <- a: 30 rounds, every third refused, bit
    for bit.
    """
    settings, quantise = settings_of(name, "residual"), _slow(name, bits)
    state, slow_e = uplink.initial_state(settings, P, bits, b"r"), [0.0] * P
    for round_ in range(30):
        state = state._replace(bits=bits)
        update = update_of(round_)
        proposal = propose(state, update, round_, settings)
        c, after_commit, after_miss = memories.residual_step(update.tolist(), slow_e, quantise)
        assert same_bits(decoded(proposal, settings), c)
        assert same_bits(uplink.settle(proposal, True).memory, after_commit)
        assert same_bits(uplink.settle(proposal, False).memory, after_miss)
        accepted = round_ % 3 != 2
        slow_e = after_commit if accepted else after_miss
        state = uplink.settle(proposal, accepted)


@pytest.mark.parametrize("name, bits", ALL)
def test_without_memory_the_update_itself_is_quantised(name, bits):
    settings = settings_of(name, "none")
    state = uplink.initial_state(settings, P, bits, b"r")
    for round_ in range(5):
        proposal = propose(state._replace(bits=bits), update_of(round_), round_, settings)
        assert same_bits(decoded(proposal, settings), _slow(name, bits)(update_of(round_).tolist()))
        assert uplink.settle(proposal, True).memory is None and uplink.settle(proposal,
                                                                              False).memory is None
        state = uplink.settle(proposal, round_ % 2 == 0)


@pytest.mark.parametrize("name, bits", ALL)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_no_mass_is_lost_with_a_reference(name, bits, verdicts):
    """h is the sum of what was committed, added in float64 and in order, bit for bit (algorithm.md
    9).
    """
    settings = settings_of(name, "reference")
    state, total = uplink.initial_state(settings, P, bits, b"r"), np.zeros(P)
    for round_, accepted in enumerate(verdicts):
        proposal = propose(state, update_of(round_), round_, settings)
        if accepted:
            total = total + decoded(proposal, settings)
        state = uplink.settle(proposal, accepted)
        assert state.memory.dtype == np.float64 and same_bits(state.memory, total, np.float64)


@pytest.mark.parametrize("name, bits", ALL)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_no_mass_is_lost_with_a_residual(name, bits, verdicts):
    """The sum of the updates is the sum of what was committed plus what is left (Seide 2014)."""
    settings = settings_of(name, "residual")
    state, sent, given_ = uplink.initial_state(settings, P, bits, b"r"), np.zeros(P), np.zeros(P)
    for round_, accepted in enumerate(verdicts):
        given_ += update_of(round_)
        proposal = propose(state, update_of(round_), round_, settings)
        if accepted:
            sent += decoded(proposal, settings)
        state = uplink.settle(proposal, accepted)
    assert np.allclose(sent + state.memory, given_, rtol=0, atol=1e-5)


def _bound_laq(d, error, c, bits):
    """||d - c||_inf <= R / (2^b - 1)."""
    r = max(abs(x) for x in d)
    return max(abs(x) for x in error) <= r / (2 ** bits - 1) * (1 + 1e-6) + r * 2.0 ** -23


def _bound_bbit(d, error, c, bits):
    """||d - c||^2 <= ||d||^2 - R^2."""
    return squared_norm(error) <= squared_norm(d) * (1 + 1e-6) - max(abs(x) for x in d) ** 2


def _bound_bin(d, error, c, bits):
    """||d - c||^2 = ||d||^2 - ||c||^2."""
    return abs(squared_norm(error) - squared_norm(d) + squared_norm(c)) <= 1e-6 * squared_norm(d)


@pytest.mark.parametrize(
    "name, bits, bound", [("laq", bits, _bound_laq) for bits in (2, 3, 4, 8)] +
    [("bbit", bits, _bound_bbit)
     for bits in (2, 4, 8)] + [("bin", 1, _bound_bin)] + [("rd", bits, _bound_bin)
                                                          for bits in (2, 4, 8)])
def test_a_frozen_update_is_learnt_down_to_a_millionth(name, bits, bound):
    """The bounds of algorithm.md 9 hold in every round until ||u - h|| <= 1e-6 ||u||, and that
    comes.
    """
    p = 24
    settings = settings_of(name, "reference", (p,))
    u = (rng.Stream(4, rng.INIT).uniform(p) - 0.5).astype(np.float32)
    goal = 1e-12 * squared_norm(u.tolist())
    state = uplink.initial_state(settings, p, bits, b"r")
    for round_ in range(3000):
        d = (u - state.memory).astype(np.float32).tolist()
        if squared_norm(d) <= goal:
            return
        proposal = propose(state._replace(bits=bits), u, round_, settings)
        c = decoded(proposal, settings).tolist()
        error = [x - y for x, y in zip(d, c)]
        assert bound(d, error, c, bits)
        state = uplink.settle(proposal, True)
    raise AssertionError(
        f"||u - h||^2 is still {squared_norm(d) / squared_norm(u.tolist())} of ||u||^2")


def test_the_example_of_the_docstring():
    u, c = np.array([1.0], np.float32), {"reference": 0.5, "residual": 1.5}
    for name, d, committed, kept in [("reference", 0.7, 0.8, 0.3), ("residual", 1.3, -0.2, 1.3)]:
        memory = MEMORIES[name]
        held = memory.initial(1) + memory.dtype(0.3)
        difference, norm2 = memory.difference(u, held)
        after = memory.keep(held, difference)
        assert difference.dtype == np.float32 and difference == pytest.approx(d)
        assert norm2 == float(difference[0]) ** 2
        then, fits = memory.commit(after, np.array([c[name]], np.float32))
        assert after == pytest.approx(kept) and then == pytest.approx(committed) and fits


def test_the_names_are_those_of_the_configuration():
    assert tuple(MEMORIES) == modes.MEMORIES
    assert tuple(name for name, memory in MEMORIES.items()
                                          if memory.has_reference_sum) == modes.WITH_REFERENCES


def test_another_memory_is_one_value(monkeypatch):
    """A reference that forgets a half of itself with each commit: worker, state and master follow.
    """
    forgetful = REFERENCE._replace(
        commit=lambda h, c: (0.5 * h + c, True),
        accumulate=lambda total, weighted, out: np.add(0.5 * total, weighted, out=out))
    monkeypatch.setitem(MEMORIES, "reference", forgetful)
    run = Softmax("laq")
    run.play(2)
    proposal = propose(run.uplinks[0], run.gradient(0), 0, run.settings)
    c = decoded(proposal, run.settings)
    assert same_bits(proposal.committed.memory, 0.5 * run.uplinks[0].memory + c, np.float64)
    assert same_bits(
        uplink.commit(run.settings, proposal.kept, proposal.body, proposal.bits)[0],
        proposal.committed.memory, np.float64)
    assert run.difference <= run.bound


@pytest.mark.parametrize("memory, asked, rate", [("reference", 0.3, 0.3), ("reference", 1.0, 1.0),
                                                 ("residual", 0.3, 1.0), ("none", 0.3, 1.0)])
def test_the_configuration_names_the_rate(memory, asked, rate):
    algorithm = config.build({"memory": memory, "memory_rate": asked}).flq_algorithm
    configured = rules.configured(algorithm)
    assert configured.name == memory and configured.rate == rate
    assert (configured is MEMORIES[memory]) == (rate == 1)


def test_a_reference_may_hold_more_than_float32_as_long_as_h_does_not():
    """g = h / a: what leaves float32's range is h."""
    most, rule = float(np.finfo(np.float32).max), rules.reference(0.5)
    for g, fits in ((2 * most, True), (np.nextafter(2 * most, np.inf), False), (-2 * most, True),
                    (np.nextafter(-2 * most, -np.inf), False)):
        after, found = rule.commit(np.array([0.0, g]), np.zeros(2, np.float32))
        assert found == fits and after.tolist() == [0.0, g]
    assert not REFERENCE.commit(np.array([2 * most]), np.zeros(1, np.float32))[1]


@given(committed_by_worker, st.lists(st.floats(-1e5, 1e5), min_size=4, max_size=4),
       st.integers(1, 10**6), st.floats(1, 8), st.floats(modes.LOWEST_MEMORY_RATE, 1))
def test_the_direction_around_a_slow_reference_is_the_oracles(committed, g, others, rho, rate):
    """v is that of A = a sum n_m g_m, with the whole of c."""
    samples = {worker: float(n) for worker, (n, _) in committed.items()}
    vectors = {worker: c for worker, (_, c) in committed.items()}
    n = sum(samples.values()) + others
    weighted = aggregation.weighted_sum(items(committed), slice(0, 4))
    v = direction(rules.reference(rate), np.array(g), n, weighted, 0.0, rho)
    a = [rate * x for x in g]
    assert same_bits(v, aggregation_oracle.reference(a, n, samples, vectors, rho)[0])


@given(committed_by_worker, st.lists(st.floats(-1e5, 1e5), min_size=4, max_size=4),
       st.integers(1, 10**6), st.floats(1, 8))
def test_the_three_directions_are_the_oracles_bit_for_bit(committed, a, others, rho):
    samples = {worker: float(n) for worker, (n, _) in committed.items()}
    vectors = {worker: c for worker, (_, c) in committed.items()}
    selected = sum(samples.values())
    weighted = aggregation.weighted_sum(items(committed), slice(0, 4))
    n = selected + others
    v = direction(MEMORIES["reference"], np.array(a), n, weighted, selected, rho)
    assert v.dtype == np.float32
    assert same_bits(v, aggregation_oracle.reference(a, n, samples, vectors, rho)[0])
    residual = direction(MEMORIES["residual"], None, n, weighted, selected, 1.0)
    mean = direction(MEMORIES["none"], None, n, weighted, selected, 1.0)
    if not committed:
        assert residual is None and mean is None
    else:
        assert same_bits(residual, aggregation_oracle.residual(n, samples, vectors, 4))
        assert same_bits(mean, aggregation_oracle.mean_of_selected(samples, vectors, 4))


def test_directions_by_hand():
    # Workers 0 (n = 1) and 2 (n = 3) are selected, N = 8, c_0 = 4, c_2 = -2: D = 4 - 6 = -2.
    weighted = aggregation.weighted_sum([
        Committed(2, 3.0, np.array([-2], np.float32)),
        Committed(0, 1.0, np.array([4], np.float32))
    ], slice(0, 1))
    assert weighted.tolist() == [-2]
    # H = 16 / 8 = 2; v = 2 + 1.5 * -2 / 8 = 1.625.
    assert direction(MEMORIES["reference"], np.array([16.0]), 8.0, weighted, 4.0,
                                           1.5).tolist() == [1.625]
    assert direction(MEMORIES["residual"], None, 8.0, weighted, 4.0, 1.0).tolist() == [-0.25]
    assert direction(MEMORIES["none"], None, 8.0, weighted, 4.0, 1.0).tolist() == [-0.5]


def test_nobody_selected():
    nothing = aggregation.weighted_sum([], slice(0, 1))
    v = direction(MEMORIES["reference"], np.array([16.0]), 8.0, nothing, 0.0, 1.0)
    assert v.tolist() == [2]
    assert direction(MEMORIES["reference"], np.array([0.0]), 0.0, nothing, 0.0, 1.0) is None
    assert direction(MEMORIES["residual"], None, 8.0, nothing, 0.0, 1.0) is None
    assert direction(MEMORIES["none"], None, 8.0, nothing, 0.0, 1.0) is None
