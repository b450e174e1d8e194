"""Data sets by name, in files of the user's own and by `package.module:function`, all loaded into
one Dataset. NumPy only, but for images.

A new data set is one file with `load(data_dir) -> Dataset` and one line in DATASETS.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Callable, Dict, Optional

from flq.errors import DataError
from flq.learning.datasets import cifar10, digits, fmnist, mnist, names
from flq.learning.datasets.csv_file import check_csv, load_csv
from flq.learning.datasets.csv_rows import Report
from flq.learning.datasets.dataset import ARRAYS, NPZ, Dataset, from_arrays, read_npz
from flq.learning.datasets.image_folder import CheckImages, load_images
from flq.learning.datasets.image_folder import check_images as check_folder
from flq.user_code import blamed, check_module, check_signature, did_you_mean, load_function

DATASETS: Dict[str, Callable[[Optional[str]], Dataset]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "fmnist": fmnist.load,
    "cifar10": cifar10.load,
}


FORMS = ", ".join(DATASETS) + ", npz:FILE, csv:FILE?label=COLUMN, images:FOLDER"
"""What dataset.name can be, beside `package.module:function`."""


def load_dataset(name: str, data_dir: Optional[str] = None, report: Optional[Report] = None,
                 check_images: Optional[CheckImages] = None) -> Dataset:
    """Load a data set once, whole and checked.

    name: a key of DATASETS; `npz:FILE`, `csv:FILE?label=COLUMN` or `images:FOLDER`, relative to
    data_dir (else FLQ_DATA_DIR, else the current folder), with the options in names.OPTIONS; or
    `package.module:function`, called with no arguments, or with data_dir when it has a parameter of
    that name, and returning a dict of the arrays that an npz file would hold (see from_arrays).
    report(error): called for each thing that is wrong in a row of a CSV file, which is then left
    out. check_images(number, numbers of each): called before images are read, may refuse them.
    Raises DataError: one line that names the file and what is wrong with it.
    """
    check_dataset(name, data_dir)
    if name in DATASETS:
        return DATASETS[name](data_dir)
    source = names.parse(name, data_dir)
    if source is not None:
        if source.kind == "csv":
            return load_csv(source, report)
        if source.kind == "images":
            return load_images(source, check_images)
        return from_arrays(read_npz(source.path), source.path)
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
    source = names.parse(name, data_dir)
    if source is not None:
        if source.kind == "csv":
            check_csv(source)
        elif source.kind == "images":
            check_folder(source)
        else:
            names.check_exists(source.path, NPZ, source.written)
    elif ":" in name:
        check_module(name)
    elif name not in DATASETS:
        raise DataError("unknown data set", f"{FORMS} or package.module:function", name,
                        did_you_mean(name, DATASETS))


def computes_with_tensorflow(name: str, data_dir: Optional[str] = None) -> bool:
    """Whether load_dataset may use TensorFlow for more than its download: it then has to be set up
    before. Raises DataError for a name that says nothing.
    """
    source = names.parse(name, data_dir)
    return name not in DATASETS if source is None else source.kind == "images"


def _takes_data_dir(function: Callable[..., Any]) -> bool:
    try:
        return "data_dir" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some built-in functions Python does not know it
        return False
