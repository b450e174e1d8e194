"""A data set of your own: a function that returns a dict of arrays.

    python flq_master.py --set dataset.name=examples.custom_dataset:load --set model.name=mlp
    python flq_worker.py --worker_id 0 --allow examples.custom_dataset

x_train, x_test: [n, ...], float, or uint8 images, which are divided by 255. y_train, y_test: n
integers from 0 that number the classes, of which there are at most 65,536.
Optional: client_train, n integers or texts that say who produced a sample (for partition natural),
and num_classes, when the largest label may be missing from a file. A function with a parameter
data_dir is given dataset.data_dir. Master and workers each call it, so it must return the same on
every machine.

The same arrays in a file need no code: python -m examples.custom_dataset rings.npz writes them, and
--set dataset.name=npz:rings.npz reads them.
"""

import sys

import numpy as np


def load():
    """Three rings in the plane with noise, seen by 12 sensors: 600 points to train on, 300 to test
    on.
    """
    random = np.random.RandomState(7)
    y = np.arange(900) % 3
    angle, radius = random.uniform(0, 2 * np.pi, 900), 1 + y + random.normal(0, 0.15, 900)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    sensor = (angle / (2 * np.pi) * 12).astype(np.int64)
    return {
        "x_train": x[:600], "y_train": y[:600], "x_test": x[600:], "y_test": y[600:],
        "client_train": sensor[:600]
    }


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **load())
