"""Two 3 x 3 convolutions and one hidden layer: 55,338 parameters on 28 x 28 x 1, 9,258 on 8 x 8 x
1, 10 classes.
"""

from typing import Any, Tuple

from flq.learning.models.images import require_images
from flq.learning.models.sizes import conv3x3, dense


def build(input_shape: Tuple[int, ...], num_classes: int) -> Any:
    """A tf.keras.Model for images of at least 4 x 4 that outputs logits."""
    import tensorflow as tf

    require_images("cnn_small", input_shape)
    layers = tf.keras.layers
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dense(num_classes),
    ])


def num_params(input_shape: Tuple[int, ...], num_classes: int) -> int:
    """p of that model."""
    require_images("cnn_small", input_shape)
    height, width, channels = input_shape
    return (conv3x3(channels, 16) + conv3x3(16, 32) +
            dense(height // 4 * (width // 4) * 32, 32) + dense(32, num_classes))
