"""Data sets by name, `npz:FILE` and `package.module:function`, all loaded into one Dataset. NumPy only.

A new data set is one file with `load(data_dir) -> Dataset` and one line in DATASETS.
"""

import inspect
import os
from collections.abc import Mapping
from typing import Any, Callable, Dict, Optional

from flq.errors import DataError
from flq.learning.datasets import cifar10, digits, fmnist, mnist
from flq.learning.datasets.dataset import Dataset, from_arrays, read_npz
from flq.learning.datasets.files import data_dir_or_default
from flq.learning.user_code import load_function

DATASETS: Dict[str, Callable[[Optional[str]], Dataset]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "fmnist": fmnist.load,
    "cifar10": cifar10.load,
}


def load_dataset(name: str, data_dir: Optional[str] = None) -> Dataset:
    """Load a data set once, whole and checked.

    name: a key of DATASETS; `npz:FILE`, relative to data_dir (else FLQ_DATA_DIR, else the current folder);
    or `package.module:function`, called with no arguments, or with data_dir when it has a parameter of that
    name, and returning a dict of the arrays that an npz file would hold (see from_arrays).
    Raises DataError: one line that names the file and what is wrong with it.
    """
    if name in DATASETS:
        return DATASETS[name](data_dir)
    if name.startswith("npz:"):
        path = os.path.join(data_dir_or_default(data_dir) or "", os.path.expanduser(name[len("npz:"):]))
        return from_arrays(read_npz(path), path)
    if ":" in name:
        arrays = _call(load_function(name), name, data_dir)
        if not isinstance(arrays, Mapping):
            raise DataError("{} returned no data set".format(name), "a dict of x_train, y_train, x_test, y_test", type(arrays).__name__)
        return from_arrays(arrays, name)
    raise DataError("unknown data set", ", ".join(DATASETS) + ", npz:FILE or package.module:function", name)


def _call(function: Callable[..., Any], name: str, data_dir: Optional[str]) -> Any:
    try:
        signature = inspect.signature(function)
        arguments = {"data_dir": data_dir} if "data_dir" in signature.parameters else {}
        signature.bind(**arguments)
    except (TypeError, ValueError) as error:
        raise DataError("{} cannot be called".format(name), "a function without parameters, or with data_dir", error)
    return function(**arguments)
