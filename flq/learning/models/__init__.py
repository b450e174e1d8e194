"""Models by name and `package.module:function`. TensorFlow is imported when one is built.

A new model is one file with `build(input_shape, num_classes) -> tf.keras.Model` and
`num_params(input_shape, num_classes) -> p`, and one line in MODELS and NUM_PARAMS each. A model
maps float32[batch, *input_shape] to logits[batch, num_classes].
"""

import logging
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

import numpy as np

from flq.errors import DataError
from flq.keys import OWN_MODEL
from flq.learning.models import cnn, cnn_small, mlp, softmax
from flq.learning.models.standardize import standardized
from flq.parameters import Layout
from flq.user_code import blamed, check_module, check_signature, did_you_mean, load_function

_log = logging.getLogger("flq.learning")

MODELS: Dict[str, Callable[[Tuple[int, ...], int], Any]] = {
    "cnn": cnn.build,
    "cnn_small": cnn_small.build,
    "mlp": mlp.build,
    "softmax": softmax.build,
}
NUM_PARAMS: Dict[str, Callable[[Tuple[int, ...], int], int]] = {
    "cnn": cnn.num_params,
    "cnn_small": cnn_small.num_params,
    "mlp": mlp.num_params,
    "softmax": softmax.num_params,
}
"""What each will take, before it is made."""


def check_model(name: str) -> None:
    """Refuse at once, without TensorFlow, what build_model could not build: an unknown name or a
    module that is not there. DataError.
    """
    if ":" in name:
        check_module(name)
    elif name == OWN_MODEL:
        raise DataError("the model of this run belongs to a program of the user's",
                        "a program with its learner (docs/frameworks.md)", f"model.name {name}",
                        "flq.master.serve and flq.worker.run serve it; the other commands cannot")
    elif name not in MODELS:
        raise DataError("unknown model", ", ".join(MODELS) + " or package.module:function", name,
                        did_you_mean(name, MODELS))


def build_model(name: str, input_shape: Tuple[int, ...], num_classes: int,
                standard: Optional[Tuple[np.ndarray, np.ndarray]] = None,
                warn: bool = True) -> Any:
    """A tf.keras.Model by its name: a key of MODELS, or `package.module:function`, called as
    function(input_shape, num_classes).

    standard: mean and deviation, float32[input_shape[-1]], that are taken out of its input. warn:
    whether the log says what looks wrong with it, of which a further copy tells nothing new. Raises
    DataError when there is no such model, or it does not give num_classes logits per sample.
    """
    check_model(name)
    model = MODELS[name](input_shape, num_classes) if name in MODELS else _own_model(
        name, input_shape, num_classes, warn)
    if standard is None:
        return model
    with blamed(name, "a model that can stand behind another layer"):
        return standardized(model, input_shape, *standard)


def _own_model(name: str, input_shape: Tuple[int, ...], num_classes: int, warn: bool) -> Any:
    import tensorflow as tf

    function = load_function(name)
    check_signature(name, function, "a function of (input_shape, num_classes)", input_shape,
                    num_classes)
    with blamed(name, "a tf.keras.Model"):
        model = function(input_shape, num_classes)
    if not isinstance(model, tf.keras.Model):
        raise DataError(f"{name} returned no model", "a tf.keras.Model", type(model).__name__)
    with blamed(name, f"logits for samples of shape {input_shape}"):
        # also creates the weights of a model without an Input
        logits = model(tf.zeros((1,) + input_shape))
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (1, num_classes):
        raise DataError(f"{name} gives no logits for this data set",
                        f"shape (batch, {num_classes})", shape or type(logits).__name__)
    wrong = sorted({str(variable.dtype)
                    for variable in trainable_variables(model)} - {"<dtype: 'float32'>"})
    if wrong or not model.trainable_variables:
        raise DataError(f"{name} cannot be trained", "trainable float32 weights", ", ".join(wrong)
                        or "none")
    if warn and _gives_probabilities(model, input_shape):
        _log.warning(
            "%s gives probabilities, and FLQ expects logits: remove the softmax behind its last "
            "layer, or training is slow", name)
    return model


def _gives_probabilities(model: Any, input_shape: Tuple[int, ...]) -> bool:
    """Whether the outputs of a few drawn samples are positive and sum to 1: those of logits would
    not all by chance."""
    samples = np.random.RandomState(0).uniform(size=(4,) + tuple(input_shape)).astype(np.float32)
    outputs = np.asarray(model(samples, training=False), np.float64)
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1.0, atol=1e-3))


def trainable_variables(model: Any) -> List[Any]:
    """The tf.Variables that are trained, in the model's order (that of the flat vectors)."""
    return [_tf_variable(variable) for variable in model.trainable_variables]


def non_trainable_variables(model: Any) -> List[Any]:
    """The float tf.Variables that training changes without a gradient, moving means and the like;
    integer and seed variables stay local.
    """
    return _untrained(model)[0]


def constant_variables(model: Any) -> List[Any]:
    """The float tf.Variables of frozen layers (`trainable = False`), which training leaves as they
    are.
    """
    return _untrained(model)[1]


def _untrained(model: Any) -> Tuple[List[Any], List[Any]]:
    """The float variables without a gradient: those that training may change, and those of frozen
    layers alone.
    """
    owned: Dict[bool, Set[int]] = {True: set(), False: set()}
    # in Keras 2 and 3: the model and every layer inside, however deep
    for layer in model._flatten_layers():
        # A layer's variables are those of the layers inside too, which may be frozen where it is
        # not, and the other way round.
        inner = {
            id(variable) for child in layer._flatten_layers(recursive=False, include_self=False)
            for variable in child.variables
        }
        owned[bool(layer.trainable)] |= {id(variable) for variable in layer.variables} - inner
    frozen = owned[False] - owned[True]
    changing: List[Any] = []
    constant: List[Any] = []
    for variable in model.non_trainable_variables:
        plain = _tf_variable(variable)
        if plain.dtype.is_floating:
            (constant if id(variable) in frozen else changing).append(plain)
    return changing, constant


def layout_of(model: Any) -> Layout:
    """What the flat vectors of a built model hold, by position."""
    return Layout(tuple(tuple(variable.shape) for variable in trainable_variables(model)),
                  tuple(tuple(variable.shape) for variable in non_trainable_variables(model)),
                  tuple(tuple(variable.shape) for variable in constant_variables(model)))


def _tf_variable(variable: Any) -> Any:
    """Keras 2 hands out the tf.Variable itself, Keras 3 a wrapper with it as `.value`."""
    return variable if hasattr(variable, "read_value") else variable.value
