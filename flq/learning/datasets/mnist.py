"""MNIST, 28 x 28 grey digits, 60,000 and 10,000 (LeCun, Cortes, Burges 1998)."""

import os
from typing import Optional

from flq.errors import DataError
from flq.learning.datasets.dataset import Dataset, check_sha256, from_arrays, read_npz
from flq.learning.datasets.files import download, find_file, keras_cache

_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"


def load(data_dir: Optional[str]) -> Dataset:
    """mnist.npz from the data folder, else from the Keras cache, else downloaded by Keras."""
    path = find_file(data_dir, ["mnist.npz"])
    if path is not None:
        return _read(path)
    cached = os.path.join(keras_cache(), "mnist.npz")
    # Keras downloads a cached file again unless the zip has the hash it expects; equal arrays are
    # enough here.
    if os.path.exists(cached):
        try:
            return _read(cached)
        except DataError:
            pass  # a damaged cache: Keras replaces it below
    arrays = download("mnist", data_dir, "mnist.npz")
    check_sha256(arrays, _SHA256, "Keras's mnist")
    return from_arrays(arrays, "Keras's mnist")


def _read(path: str) -> Dataset:
    arrays = read_npz(path)
    check_sha256(arrays, _SHA256, path)
    return from_arrays(arrays, path)
