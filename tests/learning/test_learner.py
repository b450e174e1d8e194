"""Learner: the right shard for every worker, and the same bits whoever computes, wherever and
beside whom.
"""

import hashlib
import json
import logging
import re
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from flq import config
from flq.errors import DataError
from flq.learning import learner as learner_module
from flq.learning.datasets import load_dataset
from flq.learning.initial import initial_params
from flq.learning.learner import build_learner
from flq.learning.partition import partition, partition_hash
from flq.protocol import messages
from tests.learning.learners import learner

PROGRAM = """
import hashlib
from flq import config
from flq.learning.learner import build_learner
learner = build_learner(config.build({}), [2], evaluate=False)
params, non_trainable = learner.initial()
for round_ in range(3):
    result = learner.local_update(params, non_trainable, 2, round_)
    params = params - result.update
print(hashlib.sha256(params).hexdigest(), result.loss)
"""


def digest(result):
    return hashlib.sha256(result.update).hexdigest() + repr(result.loss)


def test_knows_the_whole_partition_and_its_own_model():
    subject = learner(workers=(1,), dataset__partition="non_iid", system__total_workers=6)
    shards = partition(
        load_dataset("digits").y_train, None,
        config.build({"dataset.partition": "non_iid", "system.total_workers": 6}))
    assert [subject.num_samples(worker) for worker in range(6)] == [len(shard) for shard in shards]
    assert subject.partition_hash == partition_hash(shards)
    assert subject.num_local_steps(1) == 5
    assert subject.builtin_model and subject.layout.num_params == 9258


def test_a_worker_alone_trains_as_it_does_among_all():
    alone, among = learner(workers=(1,)), learner()
    params, non_trainable = among.initial()
    for round_ in range(3):
        assert digest(alone.local_update(params, non_trainable, 1, round_)) == digest(
            among.local_update(params, non_trainable, 1, round_))
    assert digest(among.local_update(params, non_trainable, 1,
                                     0)) != digest(among.local_update(params, non_trainable, 2, 0))


def test_a_master_trains_nobody_and_evaluates():
    master = learner(workers=())
    assert [master.num_samples(worker) for worker in range(4)] == [360, 359, 359, 359]
    assert master.evaluate(*master.initial()) == learner().evaluate(*learner().initial())


def test_initial_weights_of_a_built_in_model_are_drawn():
    subject = learner(dataset__seed=5)
    params, non_trainable = subject.initial()
    np.testing.assert_array_equal(params, initial_params(subject.layout, "glorot_uniform", 5))
    assert non_trainable.size == 0
    assert not learner(model__init="zeros").initial()[0].any()


def test_initial_weights_of_a_users_model_are_its_own_even_after_training():
    subject = learner(model__name="examples.custom_model:build")
    assert not subject.builtin_model
    params, non_trainable = subject.initial()
    assert params[72:80].tolist() == [1.0] * 8, "Keras starts gamma at 1"
    subject.local_update(params * 2, non_trainable, 0, 0)
    params[:] = 0
    again, _ = subject.initial()
    assert again[:72].any() and again[72:80].tolist() == [1.0] * 8


def test_local_partition_is_the_machines_own_file():
    subject = learner(workers=(3,), dataset__partition="local")
    assert subject.num_samples(3) == 1437 and subject.partition_hash == ""
    assert np.isfinite(subject.local_update(*subject.initial(), worker=3, round_=0).update).all()


def test_fewer_samples_than_workers_is_one_line():
    with pytest.raises(DataError, match="fewer training samples than workers"):
        build_learner(config.build({"system.total_workers": 2000}), [0], False)


def test_the_same_call_gives_the_same_bits_from_any_replica_while_others_train():
    one, two = learner(replicas=1), learner(replicas=2)
    params, non_trainable = one.initial()
    calls = [(worker, round_) for round_ in range(5) for worker in range(4)]
    expected = {call: digest(one.local_update(params, non_trainable, *call)) for call in calls}
    found = []

    def train(mine):
        for call in mine:
            found.append((call, digest(two.local_update(params, non_trainable, *call))))
            two.evaluate(params, non_trainable)

    threads = [
        threading.Thread(target=train, args=(calls[start:] + calls[:start],))
        for start in (0, 7, 13)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 * len(calls)
    assert all(expected[call] == value for call, value in found)


def test_two_processes_give_the_same_bits():
    outputs = {
        subprocess.check_output([sys.executable, "-W", "ignore", "-c", PROGRAM],
                                stderr=subprocess.DEVNULL) for _ in range(2)
    }
    assert len(outputs) == 1
    subject = learner()
    params, non_trainable = subject.initial()
    for round_ in range(3):
        result = subject.local_update(params, non_trainable, 2, round_)
        params = params - result.update
    assert outputs.pop().decode().split() == [hashlib.sha256(params).hexdigest(), repr(result.loss)]


def test_arguments_are_left_alone():
    subject = learner()
    params, non_trainable = subject.initial()
    before = params.copy()
    result = subject.local_update(params, non_trainable, 0, 0)
    result.update[:] = 0
    np.testing.assert_array_equal(params, before)
    assert subject.local_update(params, non_trainable, 0, 0).update.any()


def test_the_model_learns():
    subject = learner()
    params, non_trainable = subject.initial()
    for round_ in range(40):
        params = params - 0.25 * np.mean(
            [subject.local_update(params, non_trainable, worker, round_).update
             for worker in range(4)], axis=0)
    assert subject.evaluate(params, non_trainable).accuracy > 0.8


def test_data_and_model_of_ones_own():
    subject = learner(dataset__name="examples.custom_dataset:load", dataset__partition="natural",
                      model__name="mlp")
    params, non_trainable = subject.initial()
    for round_ in range(60):
        params = params - 0.25 * np.mean(
            [subject.local_update(params, non_trainable, worker, round_).update
             for worker in range(4)], axis=0)
    assert subject.evaluate(params, non_trainable).accuracy > 0.9


def test_device_is_json():
    device = json.loads(json.dumps(learner().device()))
    assert {"host", "machine", "python", "tensorflow", "gpus", "memory_mb"} <= set(device)
    assert device["memory_mb"] > 100
    registration = {
        "protocol": 1, "worker_id": 0, "instance": "0", "num_samples": 1, "partition_hash": "",
        "shapes_hash": "", "params_hash": "", "device": device
    }
    assert messages.REGISTRATION.parse(registration).device == device  # a master takes it


def test_a_shard_is_loaded_without_the_whole_set_in_memory_twice(tmp_path):
    learner()  # TensorFlow is loaded and configured, which is not what is measured
    images = np.zeros((60000, 28, 28), np.uint8)
    path = str(tmp_path / "set.npz")
    np.savez_compressed(path, x_train=images, y_train=np.arange(60000) % 10, x_test=images[:10],
                        y_test=np.arange(10))
    size = images.nbytes
    del images
    tracemalloc.start()
    try:
        build_learner(config.build({"dataset.name": "npz:" + path, "model.name": "softmax"}), [0],
                      evaluate=False)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < peak < 1.6 * size  # the set, a quarter of it and what building a model takes
    # at most the quarter: TensorFlow may use NumPy's memory for it or its own
    assert kept < 0.5 * size


def test_what_takes_seconds_is_told_when_it_begins_and_when_it_is_done(caplog):
    with caplog.at_level(logging.INFO, "flq.learning"):
        learner(workers=(1,), dataset__seed=41)
    told = [re.sub(r"[0-9]+\.[0-9]", "N", message) for message in caplog.messages]
    # the data first: TensorFlow is loaded into the memory that the rest of the set leaves
    steps = ["reading the data set digits", "loading TensorFlow", "building the model cnn_small"]
    assert told == [step + end for step in steps for end in (" ...", ": done in N s")]


@pytest.mark.parametrize("name, value", [("dataset__name", "mnits"),
                                         ("dataset__name", "npz:missing.npz"),
                                         ("dataset__name", "no_such_module:load"),
                                         ("model__name", "cnnn"),
                                         ("model__name", "no_such_module:build"),
                                         ("flq_algorithm__mode", "no_such_module:MINE")])
def test_what_is_not_there_is_told_before_tensorflow_is_loaded(caplog, name, value):
    with caplog.at_level(logging.INFO, "flq.learning"), pytest.raises(DataError):
        learner(workers=(0,), **{name: value})
    assert caplog.messages == []


class RaisesInTraining(tf.keras.Model):
    def __init__(self, input_shape, num_classes):
        super(RaisesInTraining, self).__init__()
        self._layers_of_it = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(num_classes)]

    def call(self, x, training=False):
        if training:
            raise RuntimeError("only tested")
        for layer in self._layers_of_it:
            x = layer(x)
        return x


def test_a_model_that_fails_when_it_is_trained_is_told_in_one_line():
    name = "tests.learning.test_learner:RaisesInTraining"
    with pytest.raises(
            DataError, match=name +
            " failed; expected a model that can be trained .*only tested.*test_learner.py"):
        learner(workers=(0,), model__name=name)


def test_code_that_may_use_tensorflow_gives_its_data_once_tensorflow_is_set_up(caplog):
    with caplog.at_level(logging.INFO, "flq.learning"):
        learner(workers=(1,), dataset__name="examples.custom_dataset:load",
                dataset__seed=43, model__name="mlp")
    assert [message.split(" ...")[0] for message in caplog.messages if "..." in message][:2] == [
        "loading TensorFlow", "reading the data set examples.custom_dataset:load"]


def held_back(monkeypatch):
    """The rounds whose order of samples is drawn, and the event that a draw has begun."""
    drawn, begun = [], threading.Event()
    draw = learner_module.batch_orders

    def noted(*arguments):
        begun.set()
        drawn.append(arguments[-2:])
        return draw(*arguments)

    monkeypatch.setattr(learner_module, "batch_orders", noted)
    return drawn, begun


@pytest.mark.parametrize("settings", [{}, {"model__local_epochs": 1}], ids=["steps", "epochs"])
def test_a_round_that_was_prepared_is_the_same_and_is_not_drawn_again(monkeypatch, settings):
    subject = learner(workers=(1,), **settings)
    params, non_trainable = subject.initial()
    expected = [digest(subject.local_update(params, non_trainable, 1, k)) for k in range(4)]
    drawn, begun = held_back(monkeypatch)
    subject.prepare(1, 2)
    assert begun.wait(60)
    # round 2 as it was prepared; 0 is another one than was, 1 comes without a call
    for prepared, played in ((None, 2), (3, 0), (None, 1)):
        if prepared is not None:
            subject.prepare(1, prepared)
        assert digest(subject.local_update(params, non_trainable, 1, played)) == expected[played]
    assert drawn.count((1, 2)) == 1


def test_nothing_is_prepared_where_workers_wait_for_the_processor(monkeypatch):
    subject = learner(workers=(1, 2))
    drawn, _ = held_back(monkeypatch)
    subject.prepare(1, 2)
    params, non_trainable = subject.initial()
    subject.local_update(params, non_trainable, 2, 0)
    assert drawn == [(2, 0)]
