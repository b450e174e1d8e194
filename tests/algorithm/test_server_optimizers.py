"""sgd, momentum and Adam, coordinate by coordinate, and the rate they step with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import config
from flq.algorithm import server_optimizers
from tests.oracles import aggregation
from tests.oracles import server_optimizers as oracle
from tests.vectors import same_bits

_directions = st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1,
                       max_size=8)
THETA = [0.5, -0.25, 3.0]


def _model(**keys):
    return config.build({"model." + name: value for name, value in keys.items()}).model


def _optimizer(name, **keys):
    return server_optimizers.configured(_model(server_optimizer=name, **keys))


def _run(optimizer, directions, lr):
    state, theta = optimizer.init(3), np.array(THETA, np.float32)
    for v in directions:
        step, state = optimizer.apply(state, np.array(v, np.float32))
        assert step.dtype == np.float32
        theta = theta - np.float32(lr) * step
    return theta


@given(_directions, st.floats(1e-3, 1))
def test_sgd_is_the_oracle_bit_for_bit(directions, lr):
    assert same_bits(_run(_optimizer("sgd"), directions, lr), oracle.sgd(THETA, directions, lr))


@given(_directions, st.floats(1e-3, 1), st.floats(0, 0.999))
def test_momentum_is_the_oracle_bit_for_bit(directions, lr, beta):
    assert same_bits(_run(_optimizer("momentum", momentum=beta), directions, lr),
                     oracle.momentum(THETA, directions, lr, beta))


@given(_directions, st.floats(1e-3, 1), st.floats(0, 0.999), st.floats(0.5, 0.9999),
       st.floats(1e-6, 1))
def test_adam_is_the_oracle(directions, lr, beta1, beta2, epsilon):
    optimizer = _optimizer("adam", momentum=beta1, adam_beta2=beta2, adam_epsilon=epsilon)
    # float32 moments against double ones: a rounding of (1 - beta) v near a cancellation shows as a
    # part of the step.
    expected = oracle.adam(THETA, directions, lr, beta1, beta2, epsilon)
    steps = lr * len(directions) * 10
    assert np.allclose(_run(optimizer, directions, lr), expected, rtol=1e-5, atol=1e-5 * steps)


def test_momentum_by_hand():
    # beta = 0.5, v = 1, 1, 1: m = 1, 1.5, 1.75; lr = 0.5: theta = 0.5 - 0.5 * 4.25.
    theta = _run(_optimizer("momentum", momentum=0.5), [[1, 0, 0]] * 3, 0.5)
    assert theta[0] == 0.5 - 0.5 * 4.25


@pytest.mark.parametrize("v", [1e-2, 1.0, 50.0])
def test_adams_first_step_is_one_whatever_the_gradient(v):
    """Bias correction: m / (1 - b1) = v and sqrt(s / (1 - b2)) = |v| after one round, so the step
    is v / (|v| + eps).
    """
    optimizer = _optimizer("adam", momentum=0.9, adam_beta2=0.99, adam_epsilon=1e-3)
    step, state = optimizer.apply(optimizer.init(1), np.array([v], np.float32))
    assert step[0] == pytest.approx(v / (v + 1e-3), rel=1e-5)
    assert (state.power1, state.power2) == (0.9, 0.99)


def test_powers_are_repeated_products():
    optimizer = _optimizer("adam", momentum=0.9, adam_beta2=0.99)
    state, power1, power2 = optimizer.init(1), 1.0, 1.0
    for _ in range(50):
        _, state = optimizer.apply(state, np.ones(1, np.float32))
        power1, power2 = power1 * 0.9, power2 * 0.99
    assert (state.power1, state.power2) == (power1, power2)


@pytest.mark.parametrize("name", sorted(server_optimizers.SERVER_OPTIMIZERS))
def test_applying_changes_neither_the_state_nor_the_direction(name):
    optimizer = _optimizer(name)
    v = np.array([1, 2, 3], np.float32)
    _, state = optimizer.apply(optimizer.init(3), v)
    before = [vector.copy() for vector in (state.m, state.s)]
    first, _ = optimizer.apply(state, v)
    second, _ = optimizer.apply(state, v)
    assert same_bits(first, second) and v.tolist() == [1, 2, 3]
    assert all(same_bits(vector, old) for vector, old in zip((state.m, state.s), before))


def test_default_rates():
    # local_lr 0.05, 5 local steps on average.
    assert server_optimizers.server_lr(_model(server_optimizer="sgd", local_lr=0.05),
                                       5.0) == pytest.approx(0.25)
    assert server_optimizers.server_lr(
        _model(server_optimizer="momentum", momentum=0.9, local_lr=0.05),
        5.0) == pytest.approx(0.025)
    assert server_optimizers.server_lr(_model(server_optimizer="adam"), 5.0) == 0.01
    assert server_optimizers.server_lr(_model(server_optimizer="sgd", lr=0.7), 5.0) == 0.7


@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 12), st.floats(0, 4))
def test_scale_by_selected_is_the_oracles(selected, members, sel_ref, scale_max):
    keys = {
        "flq_algorithm.scale_by_selected": True, "flq_algorithm.sel_ref": sel_ref,
        "flq_algorithm.scale_max": scale_max
    }
    scale = server_optimizers.selected_scale(config.build(keys).flq_algorithm, selected, members)
    assert scale == aggregation.selected_rate(1.0, selected, sel_ref, members, scale_max)


def test_scale_by_selected_by_hand():
    def scale(selected, **keys):
        keys["scale_by_selected"] = keys.get("scale_by_selected", True)
        return server_optimizers.selected_scale(
            config.build({"flq_algorithm." + k: v for k, v in keys.items()}).flq_algorithm,
            selected, 8)

    assert scale(2) == 0.25                             # 2 of M = 8
    assert scale(0) == 0.125                            # at least one
    assert scale(2, sel_ref=4) == 0.5
    assert scale(8, sel_ref=4) == 1                     # scale_max 1
    assert scale(8, sel_ref=4, scale_max=1.5) == 1.5
    assert scale(2, scale_by_selected=False) == 1
