"""Models with frozen layers, for 8 x 8 images."""

import numpy as np
import tensorflow as tf


def build(input_shape, num_classes):
    """A frozen Dense and a frozen BatchNormalization, drawn anew with each call whatever the seed,
    in a model inside; a live one behind.
    """
    layers = tf.keras.layers
    backbone = tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        layers.Flatten(),
        layers.Dense(12),
        layers.BatchNormalization()
    ])
    draw = np.random.RandomState()
    backbone.set_weights(
        [draw.uniform(0.5, 1.5, weights.shape) for weights in backbone.get_weights()])
    for layer in backbone.layers:
        layer.trainable = False
    return tf.keras.Sequential([tf.keras.Input(shape=input_shape), backbone, layers.Dense(6),
                                layers.BatchNormalization(), layers.Dense(num_classes)])


def frozen_whole(input_shape, num_classes):
    """The same with the backbone frozen as one."""
    model = build(input_shape, num_classes)
    model.layers[0].trainable = False
    return model


class Counting(tf.keras.layers.Layer):
    """Changes its variable whenever it is called, frozen or not."""

    def build(self, shape):
        self.calls = self.add_weight(name="calls", shape=(1,), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add([1.0])
        return x


class Noting(tf.keras.layers.Layer):
    """Trains, and holds a frozen layer and a value of its own that has no gradient."""

    def build(self, shape):
        self.inner = tf.keras.layers.Dense(5)
        self.inner.build(shape)
        self.inner.trainable = False
        self.noted = self.add_weight(name="noted", shape=(2,), initializer="zeros", trainable=False)

    def call(self, x):
        return self.inner(x)


def counting(input_shape, num_classes):
    model = tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        tf.keras.layers.Flatten(),
        Counting(),
        tf.keras.layers.Dense(num_classes)
    ])
    model.layers[1].trainable = False
    return model


def noting(input_shape, num_classes):
    return tf.keras.Sequential([
        tf.keras.Input(shape=input_shape),
        tf.keras.layers.Flatten(),
        Noting(),
        tf.keras.layers.Dense(num_classes)
    ])
