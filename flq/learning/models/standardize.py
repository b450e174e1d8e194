"""The features' own scale taken out of a model's input: dataset.standardize.

A frozen first layer holds each feature's mean and deviation. Values of frozen layers are the
master's: they travel once to a worker that has others, their hash proves it, the run's store keeps
them, and the model that comes out of a run takes features as they are in the data.
"""

from typing import Any, Optional, Tuple

import numpy as np


def standardized(model: Any, input_shape: Tuple[int, ...], mean: np.ndarray,
                 deviation: np.ndarray) -> Any:
    """A tf.keras.Model that gives the model (x - mean) / deviation, by the last axis of x.

    mean, deviation: float32[input_shape[-1]].
    """
    import tensorflow as tf

    inputs = tf.keras.Input(shape=input_shape)
    layer = _layer_class()(trainable=False, dtype="float32", name="standardize")
    outputs = model(layer(inputs))
    layer.set_weights([mean, deviation])
    return tf.keras.Model(inputs, outputs)


_class: Optional[Any] = None


def _layer_class() -> Any:
    """The layer, made when TensorFlow is first needed; Keras finds it by its name in a saved model.
    """
    global _class
    if _class is None:
        import tensorflow as tf

        @tf.keras.utils.register_keras_serializable("flq")
        class Standardize(tf.keras.layers.Layer):  # type: ignore[misc]
            """(x - mean) / deviation. Keras's Normalization copies its values when it is built, so
            that those of the master would not reach it."""

            def build(self, input_shape: Any) -> None:
                shape = (int(input_shape[-1]),)
                self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros",
                                            trainable=False)
                self.deviation = self.add_weight(name="deviation", shape=shape, initializer="ones",
                                                 trainable=False)
                super().build(input_shape)

            def call(self, inputs: Any) -> Any:
                return (tf.cast(inputs, tf.float32) - self.mean) / self.deviation

        _class = Standardize
    return _class
