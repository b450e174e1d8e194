"""The statistics of features, against sums of Python's, and when a feature is too large."""

import math
import statistics

import numpy as np
import pytest

from flq.learning.datasets import columns as columns_module
from flq.learning.datasets.columns import columns_of, scale_warning, standard, steep
from flq.learning.datasets.dataset import Dataset

X = np.random.RandomState(3).normal(5, 200, (301, 3)).astype(np.float32)


def dataset(x, features=()):
    y = np.zeros(len(x), np.int32)
    return Dataset(x, y, x, y, 1, None, 1.0, features)


@pytest.mark.parametrize("block", [1, 900, 2 ** 20])
def test_mean_and_deviation_are_those_of_every_value(block, monkeypatch):
    monkeypatch.setattr(columns_module, "_BLOCK", block)
    found = columns_of(X)
    for place in range(3):
        values = [float(value) for value in X[:, place]]
        assert (found.low[place], found.high[place]) == (min(values), max(values))
        assert math.isclose(found.mean[place], statistics.mean(values), rel_tol=1e-12)
        assert math.isclose(found.deviation[place], statistics.pstdev(values), rel_tol=1e-12)


def test_a_feature_of_images_is_a_colour_and_is_scaled():
    images = np.random.RandomState(1).randint(0, 256, (7, 5, 4, 3)).astype(np.uint8)
    found = columns_of(images, 255.0)
    for colour in range(3):
        values = [int(value) / 255.0 for value in images[..., colour].flat]
        assert math.isclose(found.mean[colour], statistics.mean(values), rel_tol=1e-12)
        assert math.isclose(found.deviation[colour], statistics.pstdev(values), rel_tol=1e-12)


def test_a_constant_is_only_shifted():
    x = np.full((1000, 2), 0.1, np.float32)
    x[:, 1] = np.arange(1000)
    mean, deviation = standard(columns_of(x))
    assert mean.dtype == deviation.dtype == np.float32
    assert mean[0] == np.float32(0.1) and deviation[0] == 1.0
    assert deviation[1] == np.float32(np.arange(1000).std())


def test_values_at_the_ends_of_float32():
    x = np.array([[3e38, 1e-38], [-3e38, 2e-38]], np.float32)
    mean, deviation = standard(columns_of(x))
    assert np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()


@pytest.mark.parametrize("value, local_lr, too_large", [
    (6.0, 0.1, False), (7.0, 0.1, True), (7.0, 0.05, False), (1000.0, 0.1, True),
])  # yapf: disable
def test_a_feature_is_too_large_where_softmax_need_not_converge(value, local_lr, too_large):
    x = np.ones((10, 3), np.float32)
    x[:, 1] = value
    assert steep(columns_of(x), local_lr).tolist() == ([1] if too_large else [])
    warning = scale_warning(dataset(x, ("a", "b", "c")), local_lr)
    assert (warning is not None) == too_large
    if warning:
        assert warning == (f"column b: values up to {value:.3g} can make training diverge at "
                           f"model.local_lr {local_lr:g}; set dataset.standardize to true")


def test_gradient_descent_diverges_where_the_warning_begins():
    """One feature, two classes, the softmax model: the bound is that of its curvature."""
    def losses(x):
        w, found = 1e-3, []  # w x and -w x are the logits of the two classes: both labels as often
        for _ in range(60):
            found.append(np.log(np.cosh(w * x)))
            w -= 0.1 * x * np.tanh(w * x)  # of w and of -w together, the curvature is E[x^2]
        return found
    assert losses(math.sqrt(0.95 * 2 / 0.1))[-1] < 1e-6 < losses(math.sqrt(1.3 * 2 / 0.1))[-1]


def test_pixels_and_small_values_need_no_warning():
    assert scale_warning(dataset(np.full((5, 4, 4, 1), 255, np.uint8)), 0.1) is None
    assert scale_warning(dataset(np.ones((5, 4), np.float32)), 0.1) is None
    assert scale_warning(dataset(np.full((5, 4), 1e3, np.float32)), 0.1).startswith(
        "feature 0 (the first is 0) and 3 more: ")
