"""Models of one's own for a device without memory: a layer raises a real ResourceExhaustedError while it trains."""

import os

import tensorflow as tf


class Narrow(tf.keras.layers.Layer):
    """Passes at most `most` samples at a time."""

    def __init__(self, most):
        super().__init__()
        self._most = most

    def call(self, x):
        with tf.control_dependencies([tf.numpy_function(self._refuse, [tf.shape(x)[0]], tf.int32)]):
            return tf.identity(x)

    def _refuse(self, samples):
        if samples > self._most:
            raise MemoryError("no room for {} samples".format(samples))  # TensorFlow makes it a ResourceExhaustedError
        return samples


class Softmax(tf.keras.Model):
    """softmax with a narrow place in front of it."""

    def __init__(self, most, num_classes):
        super().__init__()
        self._flatten, self._narrow = tf.keras.layers.Flatten(), Narrow(most)
        self._dense = tf.keras.layers.Dense(num_classes)

    def call(self, x, training=False):
        x = self._flatten(x)
        return self._dense(self._narrow(x) if training else x)


def room_for_16(input_shape, num_classes):
    return Softmax(16, num_classes)


def room_for_15(input_shape, num_classes):
    return Softmax(15, num_classes)


def room_for_0(input_shape, num_classes):
    return Softmax(0, num_classes)


def room_of_the_process(input_shape, num_classes):
    """As many samples as the environment variable ROOM says: machines of one run differ in memory."""
    return Softmax(int(os.environ.get("ROOM", "1000000")), num_classes)
