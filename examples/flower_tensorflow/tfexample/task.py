"""The model and the data of the TensorFlow quickstart."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

import flq.learning  # noqa: E402

DIGITS = Path(flq.learning.__file__).parent / "datasets" / "digits.npz"


def load_model(learning_rate=0.005):
    """The quickstart's network, for images of 8 x 8: 21,386 weights."""
    model = keras.Sequential([
        keras.Input(shape=(8, 8, 1)),
        layers.Conv2D(32, kernel_size=(3, 3), padding="same", activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(64, kernel_size=(3, 3), padding="same", activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ])
    model.compile(optimizer=keras.optimizers.Adam(learning_rate),
                  loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_data(partition_id, num_partitions):
    """Images and labels for training and for the test: every num_partitions-th sample."""
    with np.load(DIGITS) as data:
        rows = slice(partition_id, None, num_partitions)
        return (data["x_train"][rows].astype(np.float32).reshape(-1, 8, 8, 1) / 16,
                data["y_train"][rows].astype(np.int64),
                data["x_test"][rows].astype(np.float32).reshape(-1, 8, 8, 1) / 16,
                data["y_test"][rows].astype(np.int64))
