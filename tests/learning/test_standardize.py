"""dataset.standardize: what a model sees, whose statistics count, and what comes out of a run."""

import logging
import re

import numpy as np
import pytest
import tensorflow as tf

from flq import config
from flq.errors import DataError
from flq.learning.datasets.columns import columns_of, standard
from flq.learning.learner import build_learner
from flq.learning.models import build_model, layout_of
from flq.parameters import constants_hash
from tests.vectors import same_bits

SCALES = np.array([1.0, 1000.0, 1e-4], np.float32)


def write(folder, seed, name="t.csv", labels="abc", header="x,y,z,kind"):
    random = np.random.RandomState(seed)
    kinds = np.arange(240) % len(labels)
    x = (kinds[:, None] * [1, -1, 2] + random.normal(size=(240, 3))) * SCALES + 5 * SCALES
    with open(str(folder / name), "w") as file:
        file.write(header + "\n")
        for row, kind in zip(x.astype(np.float32), kinds):
            file.write(",".join(repr(float(value)) for value in row) + f",{labels[kind]}\n")


def settings(folder, **changed):
    values = {"dataset.name": "csv:t.csv?label=kind", "dataset.data_dir": str(folder),
              "model.name": "softmax", "total_workers": 2, "standardize": True}
    values.update(changed)
    return config.build(values)


def learner(folder, workers=(0, 1), **changed):
    return build_learner(settings(folder, **changed), workers, evaluate=True)


def columns_in_file(folder):
    data = np.loadtxt(str(folder / "t.csv"), delimiter=",", skiprows=1, usecols=(0, 1, 2))
    return data.astype(np.float32)


@pytest.mark.parametrize("name", ["softmax", "mlp", "tests.learning.test_models:Subclassed"])
def test_a_model_sees_features_without_their_scale(name):
    x = np.random.RandomState(0).normal(3, 100, (64, 64)).astype(np.float32)
    mean, deviation = standard(columns_of(x))
    if ":" in name:
        from tests.learning.test_models import Subclassed
        inner = Subclassed(5)
        from flq.learning.models.standardize import standardized
        model = standardized(inner, (64,), mean, deviation)
    else:
        model = build_model(name, (64,), 5, (mean, deviation))
        inner = model.layers[-1]
    assert np.allclose(model(x).numpy(), inner((x - mean) / deviation).numpy(), atol=1e-4)
    layout = layout_of(model)
    assert layout.constant_shapes == ((64,), (64,)) and layout.non_trainable_shapes == ()
    assert layout.num_params == sum(int(np.prod(weights.shape)) for weights in
                                    inner.trainable_variables)


def test_statistics_are_those_of_all_training_samples_and_not_of_a_shard(tmp_path):
    write(tmp_path, 1)
    both, one = learner(tmp_path), learner(tmp_path, workers=(1,))
    assert both.constants == one.constants
    mean, deviation = np.frombuffer(both.constants, "<f4").reshape(2, 3)
    x = columns_in_file(tmp_path)
    kinds = np.arange(240) % 3
    train = np.ones(240, bool)
    for kind in range(3):
        train[np.flatnonzero(kinds == kind)[4::5]] = False
    assert np.allclose(mean, x[train].astype(np.float64).mean(axis=0), rtol=1e-6)
    assert np.allclose(deviation, x[train].astype(np.float64).std(axis=0), rtol=1e-6)


def test_a_worker_with_data_of_its_own_takes_the_masters_statistics(tmp_path):
    (tmp_path / "master").mkdir()
    (tmp_path / "worker").mkdir()
    write(tmp_path / "master", 1)
    write(tmp_path / "worker", 2)
    master = learner(tmp_path / "master", (), partition="local")
    worker = learner(tmp_path / "worker", partition="local")
    assert worker.constants != master.constants and worker.layout == master.layout
    assert worker.partition_hash == master.partition_hash != ""
    params, none = master.initial()
    before = worker.local_update(params, none, 0, 0)
    assert worker.hold_constants(constants_hash(master.constants), lambda: master.constants)
    assert worker.constants == master.constants
    assert not same_bits(worker.local_update(params, none, 0, 0).update, before.update)


@pytest.mark.parametrize("changed", [{"labels": "abd"}, {"labels": "ab"},
                                     {"header": "x,z,y,kind"}, {"header": "x,y,u,kind"}])
def test_files_with_other_columns_or_classes_do_not_agree(tmp_path, changed):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "one", 1)
    write(tmp_path / "other", 1, **changed)
    hashes = {learner(tmp_path / folder, partition=partition).partition_hash
              for folder in ("one", "other") for partition in ("local", "iid")}
    assert len(hashes) == 4 and "" not in hashes


def test_training_with_one_large_feature_learns_only_with_it(tmp_path, caplog):
    write(tmp_path, 1)
    accuracy = {}
    with caplog.at_level(logging.WARNING, logger="flq.learning"):
        for standardize in (True, False):
            caplog.clear()
            made = learner(tmp_path, standardize=standardize)
            params, none = made.initial()
            for round_ in range(15):
                result = made.local_update(params, none, 0, round_)
                params = params - np.float32(0.1) * result.update * result.steps
            accuracy[standardize] = made.evaluate(params, none).accuracy
            said = [message for message in caplog.messages if message.startswith("column y: ")]
            assert len(said) == (0 if standardize else 1)
            assert all(re.match(r"column y: values up to \d\.\d+e\+03 can make training diverge at "
                                r"model.local_lr 0.1; set dataset.standardize to true; python -m "
                                r"flq check-data shows every column\Z", line) for line in said)
    assert accuracy[True] > 0.8 > accuracy[False] + 0.1, accuracy


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
def test_the_trained_model_takes_features_as_they_are_and_can_be_saved(tmp_path):
    write(tmp_path, 1)
    made = learner(tmp_path)
    model = made.new_model()
    model.set_weights(made.weights(*made.initial()))
    x = columns_in_file(tmp_path)[:10]
    path = str(tmp_path / "model.keras")
    if int(tf.__version__.split(".")[1]) < 12:
        path = str(tmp_path / "model.h5")
    model.save(path)
    again = tf.keras.models.load_model(path, compile=False)
    assert same_bits(again(x).numpy(), model(x).numpy())
    assert np.isfinite(model(x).numpy()).all()


def test_mixed_precision_standardizes_in_float32(tmp_path):
    write(tmp_path, 1)
    try:
        made = learner(tmp_path, **{"jetson_optimization.enable_mixed_precision": True})
        result = made.local_update(*made.initial(), 0, 0)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(result.update).all() and result.loss < 10


def softmax_at_the_end(input_shape, num_classes):
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape), tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(num_classes, activation="softmax")])


def relu_at_the_end(input_shape, num_classes):
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape), tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(num_classes, activation="relu")])


@pytest.mark.parametrize("name, warned", [("softmax_at_the_end", True), ("relu_at_the_end", False)])
def test_probabilities_in_the_place_of_logits_are_a_warning(name, warned, caplog):
    with caplog.at_level(logging.WARNING, logger="flq.learning"):
        build_model(f"{__name__}:{name}", (8, 8, 1), 3)
    assert [message.partition(":")[2] for message in caplog.messages] == ([
        f"{name} gives probabilities, and FLQ expects logits: remove the softmax behind its last "
        "layer, or training is slow"] if warned else [])


def test_probabilities_are_a_warning_once_whatever_the_copies(caplog):
    settings = config.build({"dataset.name": "digits", "total_workers": 2,
                             "model.name": f"{__name__}:softmax_at_the_end"})
    with caplog.at_level(logging.WARNING, logger="flq.learning"):
        build_learner(settings, (0, 1), evaluate=True, replicas=2).new_model()
    assert sum("gives probabilities" in message for message in caplog.messages) == 1


def fussy(input_shape, num_classes):
    class Fussy(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = tf.keras.layers.Dense(num_classes)

        def call(self, x, training=None):
            if not hasattr(x, "numpy"):
                raise RuntimeError("only numbers")
            return self.dense(tf.reshape(x, [-1, 3]))
    return Fussy()


def test_a_model_that_cannot_stand_behind_a_layer_is_blamed_in_one_line(tmp_path):
    with pytest.raises(DataError, match="fussy failed; expected a model that can stand behind"):
        build_model(f"{__name__}:fussy", (3,), 2, (np.zeros(3, np.float32),) * 2)
