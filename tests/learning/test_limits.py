"""What a worker's owner grants a master's configuration, checked before anything of the size is
made.
"""

import numpy as np
import pytest

from flq import config
from flq.errors import ConfigError, DataError
from flq.keys import BY_PATH
from flq.learning import learner as learner_module
from flq.learning.learner import build_learner
from flq.learning.limits import Limits
from flq.learning.models import MODELS, NUM_PARAMS
from flq.learning.partition import partition
from tests.learning.test_models import SIZES

GRANTED = Limits.of(config.build({}))


def refusal(values, limits=GRANTED):
    with pytest.raises(ConfigError) as refused:
        build_learner(config.build(values), [0], evaluate=False, limits=limits)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_owner_sets_them():
    defaults = Limits(*(BY_PATH["security." + name].default for name in Limits._fields))
    assert defaults == GRANTED
    assert all(BY_PATH["security." + name].local for name in Limits._fields)
    assert Limits.of(config.build({"security.max_params": 5})).max_params == 5


@pytest.mark.parametrize("name, input_shape",
                         [(name, shape) for name in MODELS for shape in SIZES[name]])
def test_the_size_of_a_model_is_known_before_it_is_made(name, input_shape):
    assert NUM_PARAMS[name](input_shape, 10) == SIZES[name][input_shape]


def test_a_convolution_of_rows_is_refused_as_when_it_is_made():
    for name in ("cnn", "cnn_small"):
        with pytest.raises(DataError):
            NUM_PARAMS[name]((7,), 10)


@pytest.mark.parametrize("values, key, asked", [
    ({"local_steps": 10**6}, "max_round_samples", 32 * 10**6),
    ({"local_epochs": 10**4, "batch_size": 1}, "max_round_samples", 3600000),
    ({"batch_size": 10**6}, "max_batch_values", 360 * 64),
    ({"batch_size": 0}, "max_batch_values", 360 * 64),
    ({"model.name": "cnn"}, "max_params", 99178),
    ({"model.name": "examples.custom_model:build"}, "max_params", 1394),
])
def test_what_is_too_large_is_refused_with_the_key_that_grants_it(values, key, asked):
    limits = GRANTED._replace(**{key: asked - 1})
    said = refusal(values, limits)
    assert f"expected at most {asked - 1} " in said
    assert said.endswith(f"got {asked}; grant it with --set security.{key}={asked}")
    limits = GRANTED._replace(**{key: asked})
    if "local_steps" not in values:  # that one would also train
        build_learner(config.build(values), [0], evaluate=False, limits=limits)


def test_nothing_is_made_of_a_model_that_is_refused(monkeypatch):
    monkeypatch.setattr(learner_module, "build_model", None)
    assert "model cnn_small; expected at most 9257 weights" in refusal(
        {}, GRANTED._replace(max_params=9257))


def test_images_are_not_made_larger_than_the_owner_grants():
    check = GRANTED._replace(max_data_mb=1).check_images
    check(100, 100 * 100)
    with pytest.raises(ConfigError) as refused:
        check(1000, 4096 * 4096 * 3)
    assert "images of that size; expected at most 1 MiB; got 48000" in str(refused.value)


def test_the_defaults_grant_what_the_benchmarks_play():
    for values, shape, samples in (({"batch_size": 32}, (32, 32, 3), 5000),
                                   ({"batch_size": 256, "local_epochs": 10}, (28, 28, 1), 60000),
                                   ({"batch_size": 0}, (8, 8, 1), 1437)):
        GRANTED.check_training(config.build(values), shape, [samples])


def test_a_program_of_ones_own_grants_itself_everything():
    values = {"local_steps": 10**6, "model.name": "softmax"}
    assert "a round; expected at most 10000000 samples" in refusal(values)
    assert build_learner(config.build(values), [0], evaluate=False).layout.num_params == 650


def test_the_table_of_non_iid_is_bounded():
    labels = np.arange(4000)
    with pytest.raises(DataError) as refused:
        partition(labels, None, config.build({"partition": "non_iid", "total_workers": 4000}))
    assert "got 4000 x 4000" in str(refused.value)
