"""Two blocks of two 3 x 3 convolutions, and one hidden layer: 467,818 parameters on 28 x 28 x 1 and
10 classes.
"""

from typing import Any, Tuple

from flq.learning.models.images import require_images
from flq.learning.models.sizes import conv3x3, dense


def build(input_shape: Tuple[int, ...], num_classes: int) -> Any:
    """A tf.keras.Model for images of at least 4 x 4 that outputs logits."""
    import tensorflow as tf

    require_images("cnn", input_shape)
    layers = tf.keras.layers
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(num_classes),
    ])


def num_params(input_shape: Tuple[int, ...], num_classes: int) -> int:
    """p of that model."""
    require_images("cnn", input_shape)
    height, width, channels = input_shape
    return (conv3x3(channels, 32) + conv3x3(32, 32) + conv3x3(32, 64) + conv3x3(64, 64) +
            dense(height // 4 * (width // 4) * 64, 128) + dense(128, num_classes))
