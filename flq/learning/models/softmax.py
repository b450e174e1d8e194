"""Multinomial logistic regression: convex with model.l2 > 0, the model of LAQ's experiments (Sun
2019).
"""

from typing import Any, Tuple

from flq.learning.models.sizes import dense
from flq.parameters import size_of


def build(input_shape: Tuple[int, ...], num_classes: int) -> Any:
    """A tf.keras.Model for samples of any shape that outputs logits."""
    import tensorflow as tf

    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(num_classes),
    ])


def num_params(input_shape: Tuple[int, ...], num_classes: int) -> int:
    """p of that model."""
    return dense(size_of(input_shape), num_classes)
