"""Which samples a local step sees: whole passes for local_epochs, a wrapping permutation for
local_steps.
"""

import hashlib

import numpy as np
import pytest

from flq import config
from flq.learning.batches import batch_orders, local_steps_of, num_local_steps
from tests.oracles.learning_oracle import cut


@pytest.mark.parametrize("num_samples, batch_size, epochs, steps, expected", [
    (10, 4, 1, None, 3),
    (10, 4, 3, None, 9),
    (12, 4, 3, None, 9),
    (10, 64, 2, None, 2),
    (10, 0, 2, None, 2),
    (10, 4, None, 7, 7),
    (1, 32, None, 5, 5),
])
def test_number_of_steps(num_samples, batch_size, epochs, steps, expected):
    assert num_local_steps(num_samples, batch_size, epochs, steps) == expected


@pytest.mark.parametrize("overrides, samples, steps",
                         [(("local_steps=7",), 10, 7),
                          (("local_epochs=2", "batch_size=32"), 100, 8),
                          (("local_epochs=1", "batch_size=0"), 100, 1)])
def test_the_number_of_local_steps_follows_from_the_samples(overrides, samples, steps):
    assert local_steps_of(config.load(None, list(overrides)).config, samples) == steps


@pytest.mark.parametrize("num_samples, batch_size", [(10, 4), (12, 4), (10, 0), (3, 32), (1, 1)])
def test_an_epoch_sees_every_sample_once(num_samples, batch_size):
    orders, batch = batch_orders(num_samples, batch_size, 3, None, seed=5, worker=1, round_=2)
    assert orders.dtype == np.int32 and orders.shape == (3, num_samples)
    assert batch == (min(batch_size, num_samples) or num_samples)
    for row in orders:
        assert sorted(row) == list(range(num_samples))
    assert sum(len(cut(row, batch)) for row in orders) == num_local_steps(
        num_samples, batch_size, 3, None)


def test_every_epoch_has_its_own_order():
    orders, _ = batch_orders(50, 8, 2, None, seed=5, worker=1, round_=2)
    assert (orders[0] != orders[1]).any()


@pytest.mark.parametrize("num_samples, batch_size, steps", [(10, 4, 6), (10, 4, 2), (3, 32, 5),
                                                            (10, 0, 3)])
def test_steps_run_through_one_permutation_and_start_over(num_samples, batch_size, steps):
    orders, batch = batch_orders(num_samples, batch_size, None, steps, seed=5, worker=1, round_=2)
    assert orders.dtype == np.int32 and orders.shape == (1, steps * batch)
    permutation = orders[0][:num_samples]
    if steps * batch >= num_samples:
        assert sorted(permutation) == list(range(num_samples))
    assert len(set(permutation)) == len(permutation)
    assert all(orders[0][i] == permutation[i % num_samples] for i in range(steps * batch))


def test_workers_rounds_and_seeds_draw_differently_and_the_same_again():
    def draw(seed, worker, round_):
        return batch_orders(100, 10, 1, None, seed, worker, round_)[0].tolist()

    assert draw(0, 1, 2) == draw(0, 1, 2)
    different = [draw(0, 1, 2), draw(1, 1, 2), draw(0, 2, 2), draw(0, 1, 3)]
    assert len({tuple(order[0]) for order in different}) == 4


def test_golden_order():
    orders, _ = batch_orders(1000, 32, 2, None, seed=3, worker=4, round_=5)
    assert hashlib.sha256(np.ascontiguousarray(orders,
                                               "<i4")).hexdigest()[:16] == "06fb24b057d4beef"
