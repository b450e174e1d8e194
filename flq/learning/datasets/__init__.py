"""Data sets by name, `npz:FILE` and `package.module:function`, all loaded into one Dataset. NumPy
only.

A new data set is one file with `load(data_dir) -> Dataset` and one line in DATASETS.
"""

import errno
import inspect
import os
from collections.abc import Mapping
from typing import Any, Callable, Dict, Optional

from flq.errors import DataError
from flq.learning.datasets import cifar10, digits, fmnist, mnist
from flq.learning.datasets.dataset import ARRAYS, NPZ, Dataset, from_arrays, read_npz
from flq.learning.datasets.files import data_dir_or_default
from flq.user_code import blamed, check_module, check_signature, did_you_mean, load_function

DATASETS: Dict[str, Callable[[Optional[str]], Dataset]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "fmnist": fmnist.load,
    "cifar10": cifar10.load,
}


def load_dataset(name: str, data_dir: Optional[str] = None) -> Dataset:
    """Load a data set once, whole and checked.

    name: a key of DATASETS; `npz:FILE`, relative to data_dir (else FLQ_DATA_DIR, else the current
    folder); or `package.module:function`, called with no arguments, or with data_dir when it has a
    parameter of that name, and returning a dict of the arrays that an npz file would hold (see
    from_arrays).
    Raises DataError: one line that names the file and what is wrong with it.
    """
    check_dataset(name, data_dir)
    if name in DATASETS:
        return DATASETS[name](data_dir)
    if name.startswith("npz:"):
        path = _path_of(name, data_dir)
        return from_arrays(read_npz(path), path)
    function = load_function(name)
    options = {"data_dir": data_dir} if _takes_data_dir(function) else {}
    check_signature(name, function, "a function without arguments, or of data_dir", **options)
    with blamed(name, "a dict of " + ", ".join(ARRAYS)):
        arrays = function(**options)
    if not isinstance(arrays, Mapping):
        raise DataError(f"{name} returned no data set", "a dict of " + ", ".join(ARRAYS),
                        type(arrays).__name__)
    with blamed(name, "arrays of samples and labels"):
        return from_arrays(arrays, name)


def check_dataset(name: str, data_dir: Optional[str] = None) -> None:
    """Refuse at once what load_dataset could not load: an unknown name, or a file or a module that
    is not there. Raises DataError.
    """
    if name.startswith("npz:"):
        path = _path_of(name, data_dir)
        if not os.path.exists(path):
            folder, file = os.path.split(path)
            there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
            near = did_you_mean(file, there, name[:len(name) - len(file)])
            raise DataError(
                f"cannot read {path}", NPZ, os.strerror(errno.ENOENT), near
                or "paths start at dataset.data_dir, else FLQ_DATA_DIR, else the current folder")
    elif ":" in name:
        check_module(name)
    elif name not in DATASETS:
        raise DataError("unknown data set",
                        ", ".join(DATASETS) + ", npz:FILE or package.module:function", name,
                        did_you_mean(name, DATASETS))


def _path_of(name: str, data_dir: Optional[str]) -> str:
    return os.path.join(data_dir_or_default(data_dir) or "", os.path.expanduser(name[len("npz:"):]))


def _takes_data_dir(function: Callable[..., Any]) -> bool:
    try:
        return "data_dir" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some built-in functions Python does not know it
        return False
