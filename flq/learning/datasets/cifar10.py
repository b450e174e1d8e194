"""CIFAR-10, 32 x 32 colour images in 10 classes, 50,000 and 10,000 (Krizhevsky 2009)."""

from typing import Dict, Optional

import numpy as np

from flq.errors import DataError
from flq.learning.datasets.dataset import Dataset, from_arrays, read_npz
from flq.learning.datasets.files import download, find_file

_SHAPES = {"x_train": (50000, 32, 32, 3), "x_test": (10000, 32, 32, 3)}


def load(data_dir: Optional[str]) -> Dataset:
    """cifar10.npz from the data folder, else Keras's loader: its cache holds pickles, which only
    Keras reads, after checking their hash.
    """
    path = find_file(data_dir, ["cifar10.npz"])
    if path is not None:
        return _checked(read_npz(path), path)
    return _checked(download("cifar10", data_dir, "cifar10.npz"), "Keras's cifar10")


def _checked(arrays: Dict[str, np.ndarray], source: str) -> Dataset:
    dataset = from_arrays(arrays, source)
    for name, shape in _SHAPES.items():
        x = getattr(dataset, name)
        if x.shape != shape or x.dtype != np.uint8:
            raise DataError(f"{source}: {name} is not that of CIFAR-10", f"uint8 {shape}",
                            f"{x.dtype} {x.shape}")
    return dataset
