"""Learners of a program's own: what travels of them, and what is refused in one line."""

import threading

import numpy as np
import pytest

import flq
from flq import config
from flq.errors import ConfigError, DataError
from flq.learning import own


class Halving(flq.Learner):
    """Each round halves what is trained; the last array moves to 3."""

    num_moving = 1

    def weights(self):
        return [np.full((2, 2), 8, np.float32), np.full(3, 4, np.float32), np.ones(1, np.float32)]

    def num_samples(self):
        return 5

    def train(self, weights, round_):
        for tensor in weights[:2]:
            tensor /= 2
        return weights[:2] + [np.full(1, 3, np.float64)], np.float32(0.25)

    def evaluate(self, weights):
        return 0.5, float(weights[0][0, 0]), 7


class Changed(object):
    """A learner of which some methods give something else."""

    def __init__(self, **answers):
        learner = Halving()
        for name in own.METHODS:
            setattr(self, name, getattr(learner, name))
        for name, answer in answers.items():
            setattr(self, name, answer)


def test_the_four_methods_are_those_that_the_page_names():
    assert own.METHODS == ("evaluate", "num_samples", "train", "weights")
    for name in own.METHODS:
        assert getattr(flq.Learner, name).__doc__
    with pytest.raises(TypeError):
        flq.Learner()


def test_what_travels_is_the_pseudo_gradient_and_the_moving_values():
    learner = own.OwnLearner({3: Halving()})
    assert learner.layout.shapes == ((2, 2), (3,)) and learner.layout.non_trainable_shapes == ((
        1,),)
    params, moving = learner.initial()
    assert params.tolist() == [8] * 4 + [4] * 3 and moving.tolist() == [1]
    result = learner.local_update(params, moving, 3, 0)
    assert result.update.dtype == np.float32 and result.update.tolist() == [4] * 4 + [2] * 3
    assert result.non_trainable.dtype == np.float32 and result.non_trainable.tolist() == [3]
    assert (result.loss, result.steps) == (0.25, 1)
    assert params.tolist() == [8] * 4 + [4] * 3, "what the learner changes is a copy"
    assert learner.initial()[0].tolist() == params.tolist()
    assert learner.num_samples(3) == 5 and not learner.builtin_model
    assert learner.evaluate(params, moving) == (0.5, 8.0, 7)
    assert {"host", "machine", "python"} <= set(learner.device())


def test_training_that_diverged_is_no_error_but_a_silence():
    wild = Changed(train=lambda weights, round_: ([np.full_like(tensor, 3e38) for tensor in weights
                                                   ], float("nan")))
    learner = own.OwnLearner({0: wild})
    result = learner.local_update(np.full(8, -3e38, np.float32), np.zeros(0, np.float32), 0, 0)
    assert np.isinf(result.update).all() and np.isnan(result.loss)


@pytest.mark.parametrize("answers, words", [
    ({"weights": list}, "weights gave nothing that FLQ can send"),
    ({"weights": lambda: [np.zeros(3)]}, "got float64"),
    ({"weights": lambda: 1 / 0}, "ZeroDivisionError"),
    ({"num_moving": 3}, "num_moving is not usable; expected a number from 0 to 2; got 3"),
    ({"num_moving": -1}, "num_moving is not usable"),
    ({"train": None}, "an object with the methods evaluate, num_samples, train, weights; got one "
                      "without train"),
])
def test_what_is_no_learner_is_refused_when_it_comes(answers, words):
    with pytest.raises(DataError) as refusal:
        own.OwnLearner({0: Changed(**answers)})
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("train, words", [
    (lambda weights, round_: weights, "the new weights and the mean loss"),
    (lambda weights, round_: (weights[:2], 0.0), "another number of arrays"),
    (lambda weights, round_: ([tensor.T for tensor in weights[:2]] + [np.zeros(2)], 0.0),
     "another shape"),
    (lambda weights, round_: (weights, "low"), "ValueError"),
    (lambda weights: (weights, 0.0), "TypeError"),
])
def test_training_that_gives_something_else_is_blamed_in_one_line(train, words):
    learner = own.OwnLearner({0: Changed(train=train, num_moving=1)})
    with pytest.raises(DataError) as refusal:
        learner.local_update(*learner.initial(), 0, 0)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("samples", [0, -1, 2.5, True, "many", None])
def test_a_number_of_samples_is_a_whole_one(samples):
    learner = own.OwnLearner({0: Changed(num_samples=lambda: samples)})
    with pytest.raises(DataError, match="num_samples gave no usable number"):
        learner.num_samples(0)


def test_keys_of_flqs_own_training_are_refused_where_they_were_changed():
    for setting in ("model.name=mlp", "partition=iid", "batch_size=8", "local_steps=3",
                    "local_lr=0.5", "l2=0.1", "init=zeros"):
        loaded = config.load(None, [setting])
        if setting == "partition=iid":  # what a full file says by default
            assert own.configured(loaded).config.dataset.partition == "local"
            continue
        with pytest.raises(ConfigError, match="does not fit a learner of your own"):
            own.configured(loaded)
    ready = own.configured(config.load(None, ["mode=bin", "lr=0.5"]))
    model = ready.config.model
    assert (model.name, model.local_steps, model.local_lr, model.lr) == ("own", 1, 1.0, 0.5)
    assert own.configured(ready) == ready


def test_a_run_of_flqs_own_is_told_from_one_of_a_program():
    own.require_own("own")
    with pytest.raises(ConfigError, match="start its master with flq.master.serve"):
        own.require_own("cnn")


class Prepared(Halving):
    """Tells in which order FLQ calls it."""

    def __init__(self):
        self.calls, self.begun, self.go_on = [], threading.Event(), threading.Event()
        self.go_on.set()

    def prepare(self, round_):
        self.begun.set()
        assert self.go_on.wait(60)
        self.calls.append(("prepare", round_))

    def train(self, weights, round_):
        self.calls.append(("train", round_))
        return super(Prepared, self).train(weights, round_)


def test_training_waits_for_what_is_being_prepared():
    user = Prepared()
    learner = own.OwnLearner({0: user})
    user.go_on.clear()
    learner.prepare(0, 3)
    assert user.begun.wait(60)
    training = threading.Thread(target=learner.local_update, args=learner.initial() + (0, 3))
    training.start()
    assert learner.is_preparing()
    user.go_on.set()
    training.join()
    assert user.calls == [("prepare", 3), ("train", 3)]


def test_what_prepare_raises_is_told_as_the_learners_fault():
    class Failing(Prepared):
        def prepare(self, round_):
            self.begun.set()
            raise ValueError("no such file")

    user = Failing()
    learner = own.OwnLearner({0: user})
    learner.prepare(0, 3)
    assert user.begun.wait(60)
    with pytest.raises(DataError, match="Failing.*no such file"):
        learner.local_update(*learner.initial() + (0, 3))


def test_nothing_is_prepared_by_others_than_a_learner_of_flqs_that_is_alone():
    alone, stranger, one, other = Halving(), Changed(), Prepared(), Prepared()
    stranger.prepare = lambda: pytest.fail("it has another meaning")
    for workers in ({0: alone}, {0: stranger}, {0: one, 1: other}):
        learner = own.OwnLearner(workers)
        learner.prepare(0, 1)
        learner.local_update(*learner.initial() + (0, 1))
    assert one.calls == [("train", 1)] and other.calls == []
