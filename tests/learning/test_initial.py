"""Initial weights: Glorot's bounds with Keras's fans, zeros, and the same bytes everywhere."""

import hashlib
import math

import numpy as np
import pytest
import tensorflow as tf

from flq.learning.initial import initial_params
from flq.parameters import Layout, unflatten

LAYOUT = Layout(((3, 3, 16, 32), (32,), (1568, 32), (32,), (5, 8, 4)), ((32,),))


def test_kernels_fill_glorots_interval_and_biases_are_zero():
    params = initial_params(LAYOUT, "glorot_uniform", seed=1)
    assert params.dtype == np.float32 and params.shape == (LAYOUT.num_params,)
    for tensor, fans in zip(unflatten(params, LAYOUT.shapes),
                            (9 * 16 + 9 * 32, None, 1568 + 32, None, 5 * 8 + 5 * 4)):
        if fans is None:
            assert not tensor.any()
            continue
        bound = math.sqrt(6 / fans)
        assert 0.9 * bound < np.abs(tensor).max() <= bound
        assert abs(tensor.mean()) < 4 * bound / math.sqrt(3 * tensor.size)
        assert np.var(tensor) == pytest.approx(bound ** 2 / 3, rel=0.2)


@pytest.mark.parametrize("shape", [(3, 3, 16, 32), (1568, 32)])
def test_the_interval_is_that_of_keras(shape):
    keras = np.abs(tf.keras.initializers.GlorotUniform(seed=1)(shape).numpy()).max()
    ours = np.abs(initial_params(Layout((shape,)), "glorot_uniform", seed=1)).max()
    assert ours == pytest.approx(keras, rel=0.01)


def test_zeros():
    assert not initial_params(LAYOUT, "zeros", seed=1).any()


def test_the_seed_decides():
    first, again, other = (initial_params(LAYOUT, "glorot_uniform", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_golden_weights():
    params = initial_params(LAYOUT, "glorot_uniform", seed=1)
    assert hashlib.sha256(np.ascontiguousarray(params,
                                               "<f4")).hexdigest()[:16] == "6fb22cc896b2dad1"
