"""Whole rounds with a rule against bad workers, against the slow master of the oracles, and what a
liar can do in them.
"""

import math
import random

import numpy as np
import pytest

from flq import config as configuration
from flq.algorithm import memories, mending, robust
from flq.algorithm import round as rounds
from flq.algorithm.model_state import Answers, Departure, Upload
from flq.errors import ConfigError
from flq.parameters import Layout
from tests.oracles import rounds as oracle
from tests.oracles.robust import RULES, Bounded
from tests.vectors import same_bits

LAYOUT = Layout(((4,), (2, 1)), ((2,),))
P = LAYOUT.num_params
WORKERS = range(8)
BY_RULE = pytest.mark.parametrize("rule", sorted(RULES))


def config_of(**keys):
    return configuration.build(dict({"total_workers": len(WORKERS), "bad_workers": 1, "b_down": 0,
                                     "quorum": "all", "mode": "bbit", "cohorts": 1}, **keys))


def start(config, theta=None):
    theta = np.linspace(-1, 1, P).astype(np.float32) if theta is None else theta
    model = rounds.initial_state(config, LAYOUT, theta, np.zeros(2, np.float32))
    for worker in WORKERS:
        model = rounds.open_account(model, "run", worker, 10 + worker, True)
    return model


def answers_of(committed, skipped=(), missing=(), values=None):
    values = values or {}
    uploads = tuple(
        Upload(worker, np.asarray(c, np.float32), np.asarray(values.get(worker, (0, 0)),
                                                             np.float32),
               bytes([worker]) * 32, 1.0) for worker, c in committed.items())
    return Answers(uploads, tuple(skipped), (), tuple(missing))


def close(model, answers, config):
    return rounds.close_round(model, answers, config, LAYOUT, lambda num_samples: 5)


def script(seed, length, cohorts):
    """Rounds of (who leaves before it, committed, skipped, missing)."""
    dice = random.Random(seed)
    for round_ in range(length):
        turn = [worker for worker in WORKERS if (worker - round_) % cohorts == 0]
        fates = {worker: dice.choice("ccccsm") for worker in turn}
        committed = {
            worker: [float(np.float32(dice.uniform(-1, 1))) for _ in range(P)]
            for worker in turn if fates[worker] == "c"
        }
        yield (dice.choice(WORKERS) if dice.random() < 0.2 else None, committed,
               [worker for worker in turn if fates[worker] == "s"],
               [worker for worker in turn if fates[worker] == "m"])


@pytest.mark.parametrize("memory, rate", [("reference", 1.0), ("reference", 0.4),
                                          ("residual", 1.0), ("none", 1.0)])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("cohorts", [1, 2])
@BY_RULE
def test_rounds_are_the_slow_masters_bit_for_bit(rule, cohorts, optimizer, memory, rate):
    bad = 1 if memory == "reference" else 0
    config = config_of(aggregation=rule, memory=memory, memory_rate=rate, bad_workers=bad, lr=0.3,
                       server_optimizer=optimizer, clip_global=0.75, cohorts=cohorts)
    theta = np.linspace(-1, 1, P).astype(np.float32)
    bounded = Bounded(rule, bad, memory, rate, P)
    slow = oracle.SlowMaster(
        theta.tolist(), dict.fromkeys(WORKERS, 1), {
            "memory": memory, "beta": 0.9 if optimizer == "momentum" else None, "lr": 0.3,
            "clip": 0.75, "window": 10, "ck": 0.8, "sel_ref": None, "scale_max": 1.0
        }, lambda d: d, cohorts, config.model.averaging, bounded)
    model, moved = start(config, theta), 0
    for leaves, committed, skipped, missing in script(rule, 16 * cohorts, cohorts):
        if leaves in slow.references:
            slow.leave(leaves)
            model = rounds.depart(model, "run", [Departure(leaves, None)])
        closed = close(model, answers_of(committed, skipped, missing), config)
        v, norm2, _ = slow.close(committed, 1.0)
        model = closed.model
        assert same_bits(model.params + 0, np.array(slow.theta, np.float32) + 0)
        assert same_bits(model.broadcast + 0, np.array(slow.broadcast, np.float32) + 0)
        assert (closed.direction_norm2, closed.rho) == (norm2, 1.0)
        assert model.members == tuple(sorted(slow.references)) and model.reference_sum is None
        held = {worker: g.tolist() for worker, g in model.robust.references.items()}
        assert held == (bounded.committed if memory == "reference" else {})
        moved += v is not None
    assert moved > 8


def test_without_bad_workers_the_trimmed_mean_is_the_mean():
    """f = 0, equal weights, all of them there: the same direction, rounded in another order."""
    models = {}
    for aggregation in ("mean", "trimmed_mean"):
        config = config_of(aggregation=aggregation, memory="reference", bad_workers=0,
                           weighting="uniform", correction="none", lr=0.3)
        models[aggregation] = start(config)
        for _, committed, skipped, missing in script(1, 10, 1):
            models[aggregation] = close(models[aggregation],
                                        answers_of(committed, skipped, missing), config).model
    np.testing.assert_allclose(models["mean"].params, models["trimmed_mean"].params, rtol=1e-5)


@BY_RULE
def test_fewer_updates_than_the_rule_needs_make_no_step(rule):
    config = config_of(aggregation=rule, memory="reference", bad_workers=2, averaging=0.1)
    needed = robust.fewest(config.flq_algorithm)
    model = start(config)
    first = {worker: [1.0] * P for worker in range(needed - 1)}
    closed = close(model, answers_of(first, values={0: (7, 7)}), config)
    assert same_bits(closed.model.params, model.params) and closed.direction_norm2 == 0
    assert closed.model.members == tuple(first), "their references count from the next round on"
    assert closed.model.non_trainable.tolist() == [0, 0]
    closed = close(closed.model, answers_of({needed: [1.0] * P}, skipped=tuple(first)), config)
    assert closed.direction_norm2 == pytest.approx(P)
    left = rounds.depart(closed.model, "run", [Departure(needed, None)])
    assert close(left, answers_of({}, tuple(first)), config).direction_norm2 == 0


@BY_RULE
@pytest.mark.parametrize("memory", ["reference", "none"])
def test_a_liar_moves_no_non_trainable_value_out_of_the_honest_range(rule, memory):
    config = config_of(aggregation=rule, memory=memory)
    values = {worker: (1 + worker, 0.5) for worker in WORKERS}
    values[3] = (-3e38, 3e38)
    found = close(start(config), answers_of({worker: [1.0] * P for worker in WORKERS},
                                            values=values), config).model.non_trainable
    assert 1 <= found[0] <= 8 and found[1] == 0.5


@BY_RULE
def test_references_beyond_float32_stop_nothing(rule):
    """Two uploads of the largest float32 make a reference that is none."""
    config = config_of(aggregation=rule, memory="reference", bad_workers=2)
    model = start(config)
    for _ in range(3):
        committed = {worker: [0.5] * P for worker in WORKERS}
        for liar, sign in ((0, 1), (1, -1)):
            committed[liar] = [sign * 3e38] * P
        model = close(model, answers_of(committed), config).model
    assert np.abs(model.params).max() < 100


def test_samples_that_somebody_claims_do_not_raise_the_servers_rate():
    """With local_epochs the default rate follows the local steps, which follow the samples."""
    rates = {}
    for claimed in (10, 10**7):
        config = config_of(aggregation="median", memory="none", local_epochs=1, batch_size=5)
        model = start(config)
        model = rounds.resize(model, {2: claimed}, True)
        closed = rounds.close_round(model, answers_of({w: [1.0] * P for w in WORKERS}), config,
                                    LAYOUT, lambda samples: -(-samples // 5))
        rates[claimed] = closed.server_lr
    assert rates[10**7] <= 1.5 * rates[10] < 1


def test_a_step_back_forgets_the_references_and_keeps_the_centre_of_then():
    config = config_of(aggregation="centered_clipping", memory="reference")
    committed = {worker: [1.0 + worker] * P for worker in WORKERS}
    target = close(start(config), answers_of(committed), config).model
    model = close(target, answers_of(committed), config).model
    back = mending.rolled_back(model, target, "run")
    assert back.robust.references == {} and back.members == ()
    assert same_bits(back.robust.center, target.robust.center)
    assert not same_bits(back.robust.center, model.robust.center)


def test_the_mean_keeps_nothing():
    config = config_of(memory="reference")
    assert start(config).robust is None and robust.reference_bytes(config, P) == 0


@pytest.mark.parametrize("memory, needed", [("reference", 8 * 8 * 10**6), ("residual", 0)])
def test_references_that_take_too_much_memory_are_refused_in_one_line(memory, needed):
    config = config_of(aggregation="median", memory=memory, references_mb=61)
    assert robust.reference_bytes(config, 10**6) == needed
    robust.check_room(config, 999000 if needed else 10**9)
    if needed:
        with pytest.raises(ConfigError) as refused:
            robust.check_room(config, 10**6)
        assert "at most 61 MiB (system.references_mb); got 62 MiB" in str(refused.value)


def test_nothing_that_was_given_is_changed():
    config = config_of(aggregation="median", memory="reference")
    committed = {worker: [1.0 + worker] * P for worker in WORKERS}
    model = close(start(config), answers_of(committed), config).model
    before = {worker: g.copy() for worker, g in model.robust.references.items()}
    close(model, answers_of(committed), config)
    robust.commit(model.robust, memories.configured(config.flq_algorithm),
                  {0: np.ones(P, np.float32)})
    for worker, g in model.robust.references.items():
        assert same_bits(g, before[worker], np.float64)
    assert math.isfinite(float(model.params.sum()))
