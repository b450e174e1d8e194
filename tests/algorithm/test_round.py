"""Whole rounds on the master against the slow master of the oracles: joining, refused, silent,
missing, leaving.
"""

import math
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flq import config as configuration
from flq.algorithm import round as rounds
from flq.algorithm.lazy import NEVER_COMMITTED
from flq.algorithm.model_state import Answers, Departure, Upload
from flq.algorithm.uplink import first_reference_hash
from flq.parameters import Layout, params_hash
from flq.pieces import PIECE
from tests.oracles import aggregation, quantisers
from tests.oracles import rounds as oracle
from tests.vectors import same_bits

LAYOUT = Layout(((4,), (2, 1)), ((1,),))
P = LAYOUT.num_params
SAMPLES = {0: 10, 1: 25, 2: 5, 3: 40, 4: 20}
NO_VALUES = np.zeros(1, np.float32)


def _config(**keys):
    sections = {
        "memory": "flq_algorithm", "mode": "flq_algorithm", "correction": "flq_algorithm",
        "clip_global": "flq_algorithm", "scale_by_selected": "flq_algorithm",
        "sel_ref": "flq_algorithm", "scale_max": "flq_algorithm", "rho_max": "flq_algorithm",
        "b_down": "flq_algorithm", "downlink": "flq_algorithm", "weighting": "flq_algorithm",
        "server_optimizer": "model", "momentum": "model", "lr": "model", "D": "lazy_selection",
        "ck": "lazy_selection", "C": "lazy_selection", "sel_clients": "budget_selection",
        "cohorts": "system", "total_workers": "system", "averaging": "model"
    }
    keys.setdefault("total_workers", len(SAMPLES))
    keys.setdefault("memory", "reference")
    keys.setdefault("downlink", "laq")  # the one that the oracle of the round knows
    return configuration.build({sections[name] + "." + name: value for name, value in keys.items()})


def _start(config, theta=None, workers=SAMPLES):
    theta = np.linspace(-1, 1, P).astype(np.float32) if theta is None else theta
    model = rounds.initial_state(config, LAYOUT, theta, NO_VALUES)
    for worker in workers:
        model = rounds.open_account(model, "run", worker, SAMPLES[worker], False)
    return model


def _upload(worker, c, gain=1.0, values=(0.0,), chain=None):
    return Upload(worker, np.asarray(c, np.float32), np.asarray(values, np.float32), chain
                  or bytes([worker]) * 32, gain)


def _answers(committed=None, skipped=(), refused=None, missing=(), gains=None):
    gains = gains or {}
    uploads = tuple(
        _upload(worker, c, gains.get(worker, 1.0)) for worker, c in (committed or {}).items())
    return Answers(uploads, tuple(skipped), tuple((refused or {}).items()), tuple(missing))


def _close(model, answers, config):
    return rounds.close_round(model, answers, config, LAYOUT, lambda num_samples: 5)


def _quantise_down(b_down):
    def quantise(d):
        if b_down == 0:
            return d
        c = []
        for part in (d[:4], d[4:]):
            c += quantisers.laq_decode(quantisers.radius(part), quantisers.laq_levels(part, b_down),
                                       b_down)
        return c
    return quantise


def _script(seed, length, cohorts=1):
    """Rounds of (committed, skipped, refused with gains, missing, gains of the committed), every
    worker whose turn it is in one.
    """
    dice = random.Random(seed)
    script = []
    for round_ in range(length):
        turn = [worker for worker in SAMPLES if (worker - round_) % cohorts == 0]
        fates = {worker: dice.choice("ccsrm") for worker in turn}
        committed = {
            w: [float(np.float32(dice.uniform(-1, 1))) for _ in range(P)] for w in turn
            if fates[w] == "c"
        }
        gains = {w: dice.uniform(0.01, 4) for w in turn}
        script.append((committed, [w for w in turn if fates[w] == "s"], {
            w: gains[w] for w in turn if fates[w] == "r"
        }, [w for w in turn if fates[w] == "m"], gains))
    return script


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("keys", [
    {"memory": "reference", "correction": "none"},
    {"memory": "reference", "correction": "count"},
    {"memory": "reference", "correction": "bids"},
    {"memory": "reference", "correction": "bids", "sel_clients": 4, "b_down": 4},
    {"memory": "reference", "correction": "bids", "rho_max": 1.25, "clip_global": 0.125},
    {"memory": "residual"},
    {"memory": "residual", "clip_global": 0.25, "b_down": 4},
    {"memory": "none"},
    {"memory": "none", "scale_by_selected": True},
    {"memory": "reference", "scale_by_selected": True, "sel_ref": 3, "scale_max": 1.5},
], ids=lambda keys: ",".join("{}={}".format(*item) for item in sorted(keys.items())))
@pytest.mark.parametrize("cohorts", [1, 2, 3, 5])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_rounds_are_the_slow_masters_bit_for_bit(keys, optimizer, cohorts, seed):
    b_down = keys.get("b_down", 0)
    config = _config(**dict(
        {"server_optimizer": optimizer, "lr": 0.3, "D": 3, "ck": 0.6, "b_down": b_down,
         "cohorts": cohorts}, **keys))
    theta = np.linspace(-1, 1, P).astype(np.float32)
    flq = config.flq_algorithm
    slow = oracle.SlowMaster(
        theta.tolist(), SAMPLES, {
            "memory": flq.memory, "beta": 0.9 if optimizer == "momentum" else None, "lr": 0.3,
            "clip": flq.clip_global, "window": 3, "ck": 0.6,
            "sel_ref": flq.sel_ref if flq.scale_by_selected else None, "scale_max": flq.scale_max
        }, _quantise_down(b_down), cohorts, config.model.averaging)
    model = _start(config, theta)
    for committed, skipped, refused, missing, gains in _script(seed, 14 * cohorts, cohorts):
        rho = _slow_rho(config, slow, committed, skipped, refused, gains)
        closed = _close(model, _answers(committed, skipped, refused, missing, gains), config)
        assert math.isclose(closed.rho, rho, rel_tol=1e-12)
        v, norm2, rate = slow.close(committed, closed.rho)
        model = closed.model
        assert same_bits(model.params, slow.theta)
        assert same_bits(model.broadcast, slow.broadcast)
        assert same_bits(model.average.params, slow.average)
        for place, waiting in enumerate(model.waiting):
            assert same_bits(waiting.broadcast, slow.broadcasts[(slow.round + 1 + place) % cohorts])
        assert len(model.waiting) == cohorts - 1
        assert closed.direction_norm2 == norm2
        assert math.isclose(closed.server_lr, rate, rel_tol=1e-15)
        assert model.members == tuple(sorted(slow.references))
        assert model.total_weight == slow.weight_of_members
        if flq.memory == "reference":
            assert model.reference_sum.tolist() == slow.total
            assert closed.history_sum == slow.history_sum


def _slow_rho(config, slow, committed, skipped, refused, gains):
    """rho of algorithm.md 3, from the members that this round's commits make."""
    flq, places = config.flq_algorithm, config.budget_selection.sel_clients
    if flq.memory != "reference" or flq.correction == "none" or not committed:
        return 1.0
    members = len(set(slow.references) | set(committed))
    # nothing refused: rho = 1
    cap = flq.rho_max or (max(1.0, members / places) if places else 4.0 * slow.cohorts)
    bidders = slow.bidders(committed, skipped)
    if flq.correction == "count":
        return min(cap, aggregation.rho_count({w: SAMPLES[w] for w in committed}, bidders))
    bids = {w: (SAMPLES[w] / 100, gains[w]) for w in bidders if w in committed or w in refused}
    return min(
        cap,
        aggregation.rho_bids(committed, bids,
                             {w: SAMPLES[w] / 100 for w in bidders if w not in bids}))


def test_the_first_rounds_by_hand():
    """Reference memory, sgd with lr 1, no correction, one parameter shown; n = 10, 25, 5, 40, 20.
    """
    config = _config(correction="none", server_optimizer="sgd", lr=1.0, b_down=0)
    model = _start(config, np.zeros(P, np.float32))
    assert model.members == () and model.total_weight == 0
    # Round 0: 0 and 3 commit 2 and 4. N = 50; v = (10 * 2 + 40 * 4) / 50 = 3.6; A = 180.
    closed = _close(model, _answers({0: [2.0] * P, 3: [4.0] * P}, missing=[1, 2, 4]), config)
    assert closed.model.members == (0, 3) and closed.model.total_weight == 50
    assert closed.model.params[0] == np.float32(-3.6) and closed.model.reference_sum[0] == 180
    # Round 1: 1 joins with 1, 0 is refused, 3 is silent. N = 75; v = (180 + 25 * 1) / 75; A = 205.
    closed = _close(closed.model,
                    _answers({1: [1.0] * P}, skipped=[3], refused={0: 1.0}, missing=[2, 4]), config)
    assert closed.model.members == (0, 1, 3) and closed.model.reference_sum[0] == 205
    assert closed.model.params[0] == np.float32(np.float32(-3.6) - np.float32(205 / 75))
    # Round 2: nobody commits: v = H = 205 / 75.
    closed = _close(closed.model, _answers(skipped=[0, 1, 3], missing=[2, 4]), config)
    assert closed.direction_norm2 == pytest.approx(P * (205 / 75) ** 2) and closed.rho == 1
    # Round 3: 3 leaves with h = 4: A = 205 - 160 = 45, N = 35. Nobody commits: v = 45 / 35.
    left = rounds.depart(closed.model, "run", [Departure(3, np.full(P, 4, np.float32))])
    assert left.members == (0, 1) and left.reference_sum[0] == 45 and left.total_weight == 35
    closed = _close(left, _answers(skipped=[0, 1], missing=[2, 4]), config)
    assert closed.direction_norm2 == pytest.approx(P * (45 / 35) ** 2)


def test_the_correction_counts_members_only():
    """A newcomer that commits is in B and in S; one that was refused or is missing is in neither,
    as it is no member.
    """
    config = _config(correction="count", server_optimizer="sgd", lr=1.0)
    model = _close(_start(config), _answers({0: [1.0] * P, 3: [1.0] * P}), config).model
    # Members after: 0 (10), 3 (40), 1 (25). B = all three; S = {1}: rho = 75 / 25. 2 and 4 never
    # committed.
    closed = _close(model, _answers({1: [1.0] * P}, refused={0: 1.0, 2: 9.0}, missing=[3, 4]),
                    config)
    assert closed.rho == 3
    # 3 silent: B = {0, 1}: 35 / 25.
    closed = _close(model,
                    _answers({1: [1.0] * P}, skipped=[3], refused={0: 1.0, 2: 9.0}, missing=[4]),
                    config)
    assert closed.rho == pytest.approx(1.4)


def test_a_cohort_stands_for_all_members_and_nothing_happens_to_the_others():
    """Two cohorts, {0, 2, 4} and {1, 3}; n = 10, 25, 5, 40, 20; one parameter shown."""
    config = _config(server_optimizer="sgd", lr=1.0, cohorts=2, b_down=0)
    assert config.flq_algorithm.correction == "count"
    model = _start(config, np.zeros(P, np.float32))
    # Round 0: 0, 2 and 4 commit 1: v = 35 / 35. Nobody else is a member: rho = 1. A = 35.
    closed = _close(model, _answers({w: [1.0] * P for w in (0, 2, 4)}), config)
    assert closed.rho == 1 and closed.model.params[0] == -1
    # The cohort that plays next was sent the step, the other one holds what it had.
    assert closed.model.broadcast[0] == -1 and closed.model.waiting[0].broadcast[0] == 0
    # Round 1: 1 and 3 join with 2: N = 100, rho = 100 / 65; v = (35 + 100 / 65 * 130) / 100.
    closed = _close(closed.model, _answers({w: [2.0] * P for w in (1, 3)}), config)
    assert closed.rho == 100 / 65 and closed.model.reference_sum[0] == 165
    theta = np.float32(-1) - np.float32((35 + 100 / 65 * 130) / 100)
    assert closed.model.params[0] == closed.model.broadcast[0] == theta
    assert closed.model.waiting[0].broadcast[0] == -1  # what cohort 1 trained on
    assert [closed.model.accounts[w].clock for w in SAMPLES] == [0, 0, 0, 0, 0]
    # Round 2: 4 is silent, 2 is missing; 0 commits. B = all but 4: 80 / 10, capped at 4 J.
    closed = _close(closed.model, _answers({0: [1.0] * P}, skipped=[4], missing=[2]), config)
    assert closed.rho == 8
    accounts = closed.model.accounts
    assert [accounts[w].clock for w in SAMPLES] == [0, 0, 1, 0, 1]
    assert [accounts[w].absent for w in SAMPLES] == [0, 0, 1, 0, 0]
    # Round 3 is a turn of 1 and 3 alone: the others' clocks stand still. Nobody answers: v = H.
    closed = _close(closed.model, _answers(missing=[1, 3]), config)
    assert closed.direction_norm2 == pytest.approx(P * (175 / 100) ** 2) and closed.rho == 1
    assert [closed.model.accounts[w].clock for w in SAMPLES] == [0, 1, 1, 1, 1]
    assert [closed.model.accounts[w].absent for w in SAMPLES] == [0, 1, 1, 1, 0]


def test_clocks_absences_and_chains():
    config = _config()
    model = _close(_start(config), _answers({w: [1.0] * P for w in SAMPLES}), config).model
    assert {account.clock for account in model.accounts.values()} == {0}
    closed = _close(model, _answers({0: [1.0] * P}, skipped=[1], refused={2: 1.0}, missing=[3]),
                    config)
    accounts = closed.model.accounts
    assert [accounts[w].clock for w in range(4)] == [0, 1, 1, 1]
    assert [accounts[w].absent for w in range(4)] == [0, 0, 0, 1]
    assert all(accounts[w].reference_hash == model.accounts[w].reference_hash for w in (1, 2, 3))


def test_a_worker_is_overdue_until_its_first_commit_and_after_C_rounds():
    config = _config(C=2)
    model = _start(config)
    overdue = []
    for answers in (_answers({0: [1.0] * P}), _answers(skipped=[0]), _answers(skipped=[0]),
                    _answers({0: [1.0] * P})):
        overdue.append(rounds.is_overdue(model.accounts[0], config.lazy_selection.C))
        model = _close(model, answers, config).model
    overdue.append(rounds.is_overdue(model.accounts[0], config.lazy_selection.C))
    assert overdue == [True, False, False, True, False]
    assert model.accounts[1].clock == NEVER_COMMITTED and rounds.is_overdue(
        model.accounts[1], config.lazy_selection.C)


def test_the_weight_of_a_bid():
    """n_m / N, before membership n_m / (N + n_m)."""
    config = _config()
    model = _close(_start(config), _answers({0: [1.0] * P, 3: [1.0] * P}), config).model
    assert rounds.candidate_weight(model.total_weight, model.accounts[0]) == 10 / 50
    assert rounds.candidate_weight(model.total_weight, model.accounts[1]) == 25 / 75
    empty = _start(config)
    assert rounds.candidate_weight(empty.total_weight, empty.accounts[1]) == 1


def test_who_leaves_starts_again_from_nothing():
    config = _config(server_optimizer="sgd", lr=1.0)
    model = _close(_start(config), _answers({w: [1.0] * P for w in SAMPLES}), config).model
    left = rounds.depart(
        model, "run",
        [Departure(4, np.ones(P, np.float32)),
         Departure(1, np.ones(P, np.float32))])
    assert left.members == (0, 2, 3) and left.reference_sum.tolist() == [55.0] * P
    account = left.accounts[4]
    assert account.epoch == 1 and account.clock == NEVER_COMMITTED and not account.member
    assert account.reference_hash == first_reference_hash("run", 4, 1)
    again = _close(left, _answers({4: [0.5] * P}, skipped=[0, 2, 3]), config).model
    assert again.members == (0, 2, 3, 4) and again.reference_sum.tolist() == [65.0] * P


def test_a_departure_does_not_touch_sums_that_hold_no_reference():
    config = _config(memory="residual")
    model = _close(_start(config), _answers({w: [1.0] * P for w in SAMPLES}), config).model
    left = rounds.depart(model, "run", [Departure(4, None)])
    assert left.members == (0, 1, 2, 3) and left.reference_sum is None


def test_a_round_without_a_direction_steps_nothing_and_counts_as_zero():
    """v = 0 then: the optimiser's memory and theta stay, and the lazy window moves on (algorithm.md
    3 and 4).
    """
    config = _config(memory="residual", server_optimizer="momentum", lr=1.0, D=2, ck=1.0, b_down=0)
    model = _close(_start(config), _answers({0: [1.0] * P}), config).model
    closed = _close(model, _answers(missing=list(SAMPLES)), config)
    assert same_bits(closed.model.params, model.params)
    assert same_bits(closed.model.optimizer.m, model.optimizer.m)
    assert closed.direction_norm2 == 0
    # D = 2, xi = 1/2: the norm of round 0 is still in the window after round 1, and gone after
    # round 2.
    assert closed.history_sum == 0.5 * P
    assert _close(closed.model, _answers(missing=list(SAMPLES)), config).history_sum == 0


def test_clip_global_scales_the_direction_to_the_norm():
    config = _config(memory="none", server_optimizer="sgd", lr=1.0, clip_global=0.5)
    model = _start(config, np.zeros(P, np.float32))
    closed = _close(model, _answers({0: [3.0] + [0.0] * (P - 2) + [4.0]}), config)  # norm 5
    assert np.allclose(closed.model.params, [-0.3] + [0.0] * (P - 2) + [-0.4])
    assert closed.direction_norm2 == pytest.approx(0.25)
    assert closed.history_sum == pytest.approx(0.8 / 10 * 0.25)  # the history takes v as applied
    calm = _close(model, _answers({0: [0.3] + [0.0] * (P - 1)}), config)
    assert calm.model.params[0] == -np.float32(0.3)


def test_the_hash_is_that_of_the_broadcast_model_and_its_values():
    config = _config(server_optimizer="sgd", lr=1.0)
    uploads = (_upload(0, [1.0, 0.3, 0.2, 0.7, 0.1, 0.9],
                       values=[2.0]), _upload(3, [1.0] * P, values=[7.0]))
    closed = _close(_start(config), Answers(uploads, (), (), ()), config)
    assert closed.model.non_trainable.tolist() == [6.0]  # (10 * 2 + 40 * 7) / 50
    assert not same_bits(closed.model.broadcast, closed.model.params)  # 4 bits
    assert closed.model.params_hash == params_hash(closed.model.broadcast,
                                                   closed.model.non_trainable)
    assert closed.model.version == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_direction_that_is_not_finite_stops_the_round(bad):
    config = _config(server_optimizer="sgd", lr=1.0)
    model = _start(config)
    with np.errstate(all="ignore"), pytest.raises(rounds.NonFiniteError):
        _close(model, _answers({0: [bad] * P}), config)


def test_a_model_that_overflows_stops_the_round():
    config = _config(server_optimizer="sgd", lr=100.0)
    with np.errstate(all="ignore"), pytest.raises(rounds.NonFiniteError):
        _close(_start(config), _answers({0: [3e38] * P}), config)


def _moved(config, rounds_):
    """theta after each round, and the model at the end."""
    model, thetas = _start(config), []
    for round_ in range(rounds_):
        c = np.full(P, (-1) ** round_ * (1 + round_), np.float32)
        model = _close(model, _answers({0: c.tolist()}, [], {}, [1, 2, 3], {0: 1.0}), config).model
        thetas.append(model.params)
    return thetas, model


def test_the_average_is_the_result_and_changes_no_step():
    thetas, model = _moved(_config(memory="none", lr=0.5, averaging=0.25), 5)
    without, other = _moved(_config(memory="none", lr=0.5, averaging=0), 5)
    assert all(same_bits(one, two) for one, two in zip(thetas, without))
    assert same_bits(model.broadcast, other.broadcast) and model.params_hash == other.params_hash
    assert model.result is model.average
    assert other.average is None and other.result.params is other.broadcast
    assert other.result.non_trainable is other.non_trainable


def test_closing_changes_nothing_that_was_given():
    config = _config(server_optimizer="momentum")
    model = _close(_start(config), _answers({w: [1.0] * P for w in SAMPLES}), config).model
    kept = [
        model.params.copy(),
        model.broadcast.copy(),
        model.reference_sum.copy(),
        model.optimizer.m.copy()
    ]
    accounts, norms = dict(model.accounts), model.norms
    first = _close(model, _answers({0: [1.0] * P}, missing=[1, 2, 3, 4]), config)
    second = _close(model, _answers({0: [1.0] * P}, missing=[1, 2, 3, 4]), config)
    rounds.depart(model, "run", [Departure(0, np.ones(P, np.float32))])
    for now, before in zip((model.params, model.broadcast, model.reference_sum, model.optimizer.m),
                           kept):
        assert now.tobytes() == before.tobytes()
    assert model.accounts == accounts and model.norms == norms
    assert first.model.params_hash == second.model.params_hash


def test_the_threads_that_make_a_sum_keep_what_each_of_them_warns_of(monkeypatch):
    """NumPy 1 keeps in an errstate what it is to restore, so two threads must not share one."""
    began, both, ended = threading.Event(), threading.Event(), threading.Event()
    weighted_sum, mean = rounds.aggregation.weighted_sum, rounds.aggregation.mean_non_trainable
    driver, seen = threading.current_thread(), []

    def side_by_side(committed, part):
        if threading.current_thread() is driver:
            began.set()
            assert both.wait(60)
        else:
            both.set()
            assert ended.wait(60)
        return weighted_sum(committed, part)

    def after_the_sum(*arguments):
        seen.append(np.geterr()["over"])
        return mean(*arguments)

    def on_another_thread(function, *arguments):
        def begin():
            assert began.wait(60)
            return function(*arguments), np.geterr()["over"]

        if function.__name__ != "add":
            return rounds.at_once(function, *arguments)
        waiting = threads.submit(begin)

        def result():
            ended.set()
            found, over = waiting.result()
            seen.append(over)
            return found

        return result

    monkeypatch.setattr(rounds.aggregation, "weighted_sum", side_by_side)
    monkeypatch.setattr(rounds.aggregation, "mean_non_trainable", after_the_sum)
    config, layout = _config(), Layout(((2 * PIECE,),), LAYOUT.non_trainable_shapes)
    model = rounds.initial_state(config, layout, np.zeros(2 * PIECE, np.float32), NO_VALUES)
    model = rounds.open_account(model, "run", 0, SAMPLES[0], False)
    with ThreadPoolExecutor(1) as threads:
        rounds.close_round(model, _answers({0: np.ones(2 * PIECE)}), config, layout,
                           lambda num_samples: 5, start=on_another_thread)
    assert seen == ["warn", "ignore"]


@pytest.mark.parametrize("memory", ["reference", "residual", "none"])
def test_a_long_model_moves_as_each_of_its_entries(memory):
    """A round that is computed piece by piece, from a vector that repeats a short one."""
    config = _config(memory=memory, b_down=0)
    times = 2 * PIECE // P + 3
    closed = []
    for repeats in (1, times):
        layout = Layout(((P * repeats,),), LAYOUT.non_trainable_shapes)
        model = rounds.initial_state(config, layout,
                                     np.tile(np.linspace(-1, 1, P).astype(np.float32), repeats),
                                     NO_VALUES)
        for worker in SAMPLES:
            model = rounds.open_account(model, "run", worker, SAMPLES[worker], False)
        for committed, skipped, refused, missing, gains in _script(3, 4):
            long = {worker: np.tile(c, repeats) for worker, c in committed.items()}
            model = rounds.close_round(model, _answers(long, skipped, refused, missing, gains),
                                       config, layout, lambda num_samples: 5).model
        closed.append(model)
    short, long = closed
    assert same_bits(long.params, np.tile(short.params, times))
    if memory == "reference":
        assert same_bits(long.reference_sum, np.tile(short.reference_sum, times), np.float64)
