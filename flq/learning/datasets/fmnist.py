"""Fashion-MNIST, 28 x 28 grey clothes in 10 classes, 60,000 and 10,000 (Xiao, Rasul, Vollgraf 2017,
arXiv:1708.07747).
"""

import gzip
import os
import zlib
from typing import Dict, Optional

import numpy as np

from flq.errors import DataError
from flq.learning.datasets.dataset import Dataset, check_sha256, from_arrays, read_npz
from flq.learning.datasets.files import download, find_file, keras_cache

_SHA256 = "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f"
_IDX_FILES = {"x_train": "train-images-idx3-ubyte.gz", "y_train": "train-labels-idx1-ubyte.gz",
              "x_test": "t10k-images-idx3-ubyte.gz", "y_test": "t10k-labels-idx1-ubyte.gz"}


def load(data_dir: Optional[str]) -> Dataset:
    """fmnist.npz or fashion_mnist.npz from the data folder, else the Keras cache, else downloaded
    by Keras.
    """
    path = find_file(data_dir, ["fmnist.npz", "fashion_mnist.npz"])
    if path is not None:
        return _checked(read_npz(path), path)
    cached = os.path.join(keras_cache(), "fashion-mnist")
    # Keras keeps the four IDX files and checks none of them.
    if os.path.isdir(cached):
        try:
            return _checked(_read_idx_files(cached), cached)
        except DataError:
            pass  # a damaged cache: Keras fetches what is missing, and the hash below decides
    return _checked(download("fashion_mnist", data_dir, "fmnist.npz"), cached)


def _checked(arrays: Dict[str, np.ndarray], source: str) -> Dataset:
    check_sha256(arrays, _SHA256, source)
    return from_arrays(arrays, source)


def _read_idx_files(folder: str) -> Dict[str, np.ndarray]:
    """The IDX format of LeCun: two zero bytes, type (8 is uint8), rank, big-endian dimensions, then
    the values.
    """
    arrays = {}
    for name, file_name in _IDX_FILES.items():
        path = os.path.join(folder, file_name)
        try:
            with gzip.open(path) as file:
                content = file.read()
            shape = np.frombuffer(content, ">u4", content[3], 4)
            arrays[name] = np.frombuffer(content, np.uint8,
                                         offset=4 + 4 * content[3]).reshape(shape)
        except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
            raise DataError(f"cannot read {path}", "a gzip-compressed IDX file", error)
    return arrays
