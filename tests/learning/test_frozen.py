"""Frozen layers: their values are no part of an update, everybody computes with the same ones, and
nothing may change them.
"""

import numpy as np
import pytest

from flq import config
from flq.errors import DataError, ProtocolError
from flq.learning.learner import build_learner
from flq.learning.models import build_model, layout_of
from flq.parameters import Layout, constants_hash
from tests.learning.learners import learner

HERE = "tests.learning.frozen_models:"


def nothing():
    raise AssertionError("values were fetched that were here")


def make(name="build", replicas=1):
    """A learner of its own: each draws its frozen weights anew."""
    return build_learner(config.build({"model.name": HERE + name, "model.local_steps": 3}), [0, 1],
                         evaluate=True, replicas=replicas)


@pytest.fixture(scope="module", autouse=True)
def configured():
    learner()  # before a model is built here


@pytest.mark.parametrize("name", ["build", "frozen_whole"])
def test_what_is_frozen_is_told_from_what_training_changes(name):
    layout = layout_of(build_model(HERE + name, (8, 8, 1), 10))
    assert layout.shapes == ((12, 6), (6,), (6,), (6,), (6, 10), (10,))
    assert layout.non_trainable_shapes == ((6,), (6,)), "the live normalisation's moving statistics"
    assert layout.constant_shapes == ((64, 12), (12,), (12,), (12,), (12,),
                                      (12,)) and layout.num_constants == 828


def test_a_value_of_a_layer_that_trains_travels_as_before():
    layout = layout_of(build_model(HERE + "noting", (8, 8, 1), 10))
    assert layout.shapes == ((5, 10), (10,))
    assert layout.non_trainable_shapes == ((2,),) and layout.constant_shapes == ((64, 5), (5,))


def test_models_without_frozen_layers_have_the_hash_that_they_had():
    assert Layout(((64, 10), (10,))).hash() == "2e295ad2a1b699ba"
    assert layout_of(build_model("examples.custom_model:build", (8, 8, 1), 10)).hash() == Layout(
        ((3, 3, 1, 8), (8,), (8,), (128, 10), (10,)), ((8,), (8,))).hash()
    assert Layout(((1,),), (), ((2,),)).hash() not in (Layout(
        ((1,),)).hash(), Layout(((1,),), ((2,),)).hash())


def test_two_that_drew_other_frozen_weights_agree_once_one_takes_the_others():
    master, worker = make(), make()
    params, non_trainable = master.initial()
    alone = master.local_update(params, non_trainable, 1, 0)
    assert alone.non_trainable.size == 12 and (alone.non_trainable != non_trainable).all()
    assert master.constants != worker.constants
    assert worker.evaluate(params, non_trainable) != master.evaluate(params, non_trainable)
    asked = []
    digest = constants_hash(master.constants)
    assert worker.hold_constants(digest,
                                 lambda: asked.append(1) or master.constants) and asked == [1]
    assert not worker.hold_constants(digest, nothing) and not master.hold_constants(digest, nothing)
    assert worker.constants == master.constants and len(worker.constants) == 4 * 828
    assert worker.evaluate(params, non_trainable) == master.evaluate(params, non_trainable)
    there = worker.local_update(params, non_trainable, 1, 0)
    np.testing.assert_array_equal(there.update, alone.update)
    np.testing.assert_array_equal(there.non_trainable, alone.non_trainable)


def test_every_copy_of_the_model_has_the_same_frozen_values():
    subject = make(replicas=2)
    params, non_trainable = subject.initial()
    with subject._trainer() as first, subject._trainer() as second:
        np.testing.assert_array_equal(first.constants, second.constants)
        assert first.evaluate(params, non_trainable) == second.evaluate(params, non_trainable)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-4], lambda data: data[4:] + data[:4], lambda data: b""])
def test_values_that_are_not_what_the_hash_says_are_not_taken(spoil):
    master, worker = make(), make()
    before = worker.constants
    with pytest.raises(ProtocolError, match="the values of the frozen layers are not the master's"):
        worker.hold_constants(constants_hash(master.constants), lambda: spoil(master.constants))
    assert worker.constants == before


def test_a_frozen_layer_that_changes_itself_is_refused():
    subject = make("counting")
    with pytest.raises(DataError, match="a frozen layer changed its own values in training"):
        subject.local_update(*subject.initial(), worker=0, round_=0)


def test_without_frozen_layers_there_is_nothing_to_agree_on():
    assert learner().layout.num_constants == 0
