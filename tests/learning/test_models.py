"""The built-in models' shapes and sizes, and what is asked of a user's model."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from flq.errors import DataError
from flq.learning.models import MODELS, build_model, layout_of

SIZES = {
    "cnn": {(28, 28, 1): 467818, (8, 8, 1): 99178, (32, 32, 3): 591274},
    "cnn_small": {(28, 28, 1): 55338, (8, 8, 1): 9258, (32, 32, 3): 70986},
    "mlp": {(28, 28, 1): 199210, (8, 8, 1): 55210, (7,): 43810},
    "softmax": {(28, 28, 1): 7850, (8, 8, 1): 650, (7,): 80},
}


@pytest.mark.parametrize("name, input_shape",
                         [(name, shape) for name in MODELS for shape in SIZES[name]])
def test_number_of_parameters_and_logits(name, input_shape):
    model = build_model(name, input_shape, 10)
    layout = layout_of(model)
    assert layout.num_params == SIZES[name][input_shape]
    assert layout.non_trainable_shapes == ()
    logits = model(np.full((3,) + input_shape, 0.5, np.float32)).numpy()
    assert logits.shape == (3, 10) and (logits < 0).any(), "probabilities are never negative"


def test_layout_lists_kernels_and_biases_in_order():
    assert layout_of(build_model("cnn_small", (8, 8, 1), 4)).shapes == (
        (3, 3, 1, 16), (16,), (3, 3, 16, 32), (32,), (128, 32), (32,), (32, 4), (4,))


def test_batch_normalisation_travels_as_state():
    layout = layout_of(build_model("examples.custom_model:build", (8, 8, 1), 10))
    assert layout.shapes == ((3, 3, 1, 8), (8,), (8,), (128, 10), (10,))
    assert layout.non_trainable_shapes == ((8,), (8,))


def with_dropout(input_shape, num_classes):
    layers = tf.keras.layers
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(num_classes)
    ])


class Subclassed(tf.keras.Model):
    """Has no weights before it is called."""

    def __init__(self, num_classes):
        super().__init__()
        self.dense = tf.keras.layers.Dense(num_classes)

    def call(self, x, training=None):
        return self.dense(tf.reshape(x, [-1, 64]))


def subclassed(input_shape, num_classes):
    return Subclassed(num_classes)


@pytest.mark.parametrize("name", ["with_dropout", "subclassed"])
def test_seeds_stay_local_and_subclassed_models_are_built(name):
    layout = layout_of(build_model("tests.learning.test_models:" + name, (8, 8, 1), 10))
    assert layout.shapes == ((64, 10), (10,)) and layout.non_trainable_shapes == ()


def one_too_many(input_shape, num_classes):
    return with_dropout(input_shape, num_classes + 1)


def frozen(input_shape, num_classes):
    model = with_dropout(input_shape, num_classes)
    model.trainable = False
    return model


def double(input_shape, num_classes):
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        tf.keras.layers.Flatten(dtype="float64"),
        tf.keras.layers.Dense(num_classes, dtype="float64")
    ])


def no_model(input_shape, num_classes):
    return None


def without_arguments():
    return None


def three_arguments(input_shape, num_classes, width):
    return None


def raising(input_shape, num_classes):
    raise RuntimeError("no\nsuch layer")


def raising_in_keras(input_shape, num_classes):
    return tf.keras.Sequential([tf.keras.Input(shape=input_shape), tf.keras.layers.Dense("ten")])


class RaisesWhenCalled(tf.keras.Model):
    def __init__(self, input_shape, num_classes):
        super(RaisesWhenCalled, self).__init__()

    def call(self, x, training=False):
        raise RuntimeError("not ready")


class GivesNoTensor(RaisesWhenCalled):
    def call(self, x, training=False):
        return None


HERE = r"\(.*test_models.py:\d+\); logging.log_level DEBUG shows its traceback$"


@pytest.mark.parametrize("name, message", [
    ("without_arguments",
     r"without_arguments takes other arguments; expected a function of \(input_shape, "
     r"num_classes\); "
     r"got without_arguments\(\) \(too many positional arguments\)"),
    ("three_arguments",
     r"expected a function of \(input_shape, num_classes\); got three_arguments\(input_shape, "
     r"num_classes, width\) "
     ),
    ("raising",
     "raising failed; expected a tf.keras.Model; got RuntimeError: no such layer " + HERE),
    ("raising_in_keras",
     "raising_in_keras failed; expected a tf.keras.Model; got [A-Z][a-z]+Error: .*" + HERE),
    ("RaisesWhenCalled",
     r"failed; expected logits for samples of shape \(8, 8, 1\); got .*not ready.*" + HERE),
    ("GivesNoTensor", "gives no logits for this data set; expected .*; got NoneType"),
    ("no_modle", "test_models has no no_modle; did you mean tests.learning.test_models:no_model?"),
    ("one_too_many",
     r"gives no logits for this data set; expected shape \(batch, 10\); got \(1, 11\)"),
    ("frozen", "cannot be trained; expected trainable float32 weights; got none"),
    ("double", "cannot be trained; expected trainable float32 weights; got .*float64"),
    ("no_model", "returned no model; expected a tf.keras.Model; got NoneType"),
    ("no_such_function", "cannot import tests.learning.test_models:no_such_function"),
])
def test_models_that_cannot_be_used(name, message):
    with pytest.raises(DataError, match=message) as refused:
        build_model("tests.learning.test_models:" + name, (8, 8, 1), 10)
    assert "\n" not in str(refused.value) and "tests.learning.test_models:" + name in str(
        refused.value)


def test_what_a_users_code_raised_is_in_the_log(caplog):
    with caplog.at_level(logging.DEBUG, "flq.user_code"), pytest.raises(DataError):
        build_model("tests.learning.test_models:raising", (8, 8, 1), 10)
    assert "tests.learning.test_models:raising raised:" in caplog.text
    assert 'raise RuntimeError("no' in caplog.text


def test_a_bug_of_flqs_own_model_stays_one(monkeypatch):
    monkeypatch.setitem(MODELS, "softmax", raising)
    with pytest.raises(RuntimeError):
        build_model("softmax", (8, 8, 1), 10)


def test_a_name_near_a_known_one_is_suggested():
    with pytest.raises(DataError, match="got sofmax; did you mean softmax?"):
        build_model("sofmax", (8, 8, 1), 10)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
            DataError, match=
            "unknown model; expected cnn, cnn_small, mlp, softmax or package.module:function; got "
            "resnet"
    ):
        build_model("resnet", (8, 8, 1), 10)


@pytest.mark.parametrize("name", ["cnn", "cnn_small"])
@pytest.mark.parametrize("input_shape", [(64,), (28, 28), (3, 8, 1)])
def test_convolutions_need_images(name, input_shape):
    with pytest.raises(DataError, match=f"model {name} needs images"):
        build_model(name, input_shape, 10)
