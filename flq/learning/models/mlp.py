"""Two hidden layers of 200: the "2NN" of McMahan et al.

2017 (199,210 parameters on 28 x 28 x 1 and 10 classes).
"""

from typing import Any, Tuple

from flq.learning.models.sizes import dense
from flq.parameters import size_of


def build(input_shape: Tuple[int, ...], num_classes: int) -> Any:
    """A tf.keras.Model for samples of any shape that outputs logits."""
    import tensorflow as tf

    layers = tf.keras.layers
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        layers.Flatten(),
        layers.Dense(200, activation="relu"),
        layers.Dense(200, activation="relu"),
        layers.Dense(num_classes),
    ])


def num_params(input_shape: Tuple[int, ...], num_classes: int) -> int:
    """p of that model."""
    return dense(size_of(input_shape), 200) + dense(200, 200) + dense(200, num_classes)
