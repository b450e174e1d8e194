"""What a data set is, and the one gate that every data set passes: named arrays -> Dataset."""

import hashlib
import tokenize
import warnings
import zipfile
import zlib
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from flq.errors import DataError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
NPZ = f"an npz file with {', '.join(ARRAYS)}, no pickled objects"
_OPTIONAL = ("client_train", "num_classes")
# a model's last layer has an output for each: a stray label must not decide how large it is
MAX_CLASSES = 65536
# What NumPy, zipfile and zlib raise for a file that is missing, cut off, damaged or of another
# format.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, MemoryError,
               NotImplementedError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile,
               zlib.error)


class Dataset(NamedTuple):
    """Training and test samples in memory.

    x_train, x_test: [n, ...], images uint8 [n, height, width, channels] as stored, other data
    float32. y_train, y_test: int32[n], labels 0..num_classes-1. clients_train: [n], who produced a
    training sample (any dtype that sorts), or None. scale: a model sees x / scale (255 for images,
    1 for float data). features, classes: names of the columns and of the labels, where the data
    have any: machines must agree on them.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    clients_train: Optional[np.ndarray] = None
    scale: float = 1.0
    features: Tuple[str, ...] = ()
    classes: Tuple[str, ...] = ()


def read_npz(path: str) -> Dict[str, np.ndarray]:
    """All arrays of an npz file, never unpickling. Raises DataError with the path."""
    try:
        # Not np.load: on a damaged file it leaves the file open, and NumPy 1.19 prints a second
        # error.
        with zipfile.ZipFile(path) as archive:
            return {name[:-len(".npy")]: _read_npy(archive, name) for name in archive.namelist()}
    except _UNREADABLE as error:
        reason = getattr(error, "strerror",
                         None) or str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"cannot read {path}", NPZ, reason)


def _read_npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def from_arrays(arrays: Mapping[str, Any], source: str, image_scale: float = 255.0) -> Dataset:
    """Named arrays of any origin -> a checked Dataset.

    arrays: x_train, y_train, x_test, y_test; optionally client_train [n] and num_classes (else the
    largest label + 1), at most MAX_CLASSES. uint8 [n, height, width] gets a channel axis; uint8
    data is divided by image_scale before it meets a model, float data is used as it is. Raises
    DataError, naming source.
    """
    missing = [name for name in ARRAYS if name not in arrays]
    unknown = set(arrays) - set(ARRAYS) - set(_OPTIONAL)
    if missing or unknown:
        raise DataError(f"{source} has other keys than a data set", ", ".join(ARRAYS + _OPTIONAL),
                        ", ".join(sorted(map(str, arrays))))
    x_train, x_test = (_samples(arrays[name], name, source) for name in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise DataError(f"{source}: x_test is of another kind than x_train",
                        f"{x_train.dtype} {x_train.shape[1:]}",
                        f"{x_test.dtype} {x_test.shape[1:]}")
    y_train = _labels(arrays["y_train"], "y_train", len(x_train), source)
    y_test = _labels(arrays["y_test"], "y_test", len(x_test), source)
    if "num_classes" in arrays:
        num_classes = _num_classes(arrays["num_classes"], source)
    else:
        num_classes = min(max(int(y_train.max()), 0) + 1, MAX_CLASSES)
    for name, labels in (("y_train", y_train), ("y_test", y_test)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise DataError(f"{source}: {name} has a label out of range", f"0 to {num_classes - 1}",
                            f"{low} to {high}", "number the classes from 0 on")
    clients = arrays.get("client_train")
    if clients is not None:
        clients = _array(clients, "client_train", source)
        if clients.shape != (len(x_train),) or clients.dtype.kind not in "iuUS":
            raise DataError(f"{source}: client_train does not name a client per sample",
                            f"{len(x_train)} integers or texts", f"{clients.dtype} {clients.shape}")
    scale = float(image_scale) if x_train.dtype == np.uint8 else 1.0
    return Dataset(x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32), num_classes,
                   clients, scale)


def check_sha256(arrays: Mapping[str, np.ndarray], sha256: str, source: str) -> None:
    """Compare the bytes of the four arrays, in the order of ARRAYS, with a published data set.

    Raises DataError.
    """
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(np.ascontiguousarray(arrays.get(name, ())))
    if digest.hexdigest() != sha256:
        raise DataError(f"{source} is not the published data set",
                        "SHA-256 of its arrays " + sha256, digest.hexdigest(),
                        "get the file again, or use npz:FILE for data of your own")


def _array(values: Any, name: str, source: str) -> np.ndarray:
    """What np.asarray gives; a user's function may return anything under a name."""
    try:
        with warnings.catch_warnings():
            # NumPy 1.19 makes objects of rows of several lengths, which are refused later
            warnings.simplefilter("ignore")
            return np.asarray(values)
    except Exception as error:  # whatever NumPy or the object itself raises
        raise DataError(f"{source}: {name} is no array", "numbers, with rows of one length",
                        (str(error).splitlines() or [type(error).__name__])[0])


def _samples(values: Any, name: str, source: str) -> np.ndarray:
    x = _array(values, name, source)
    if x.ndim < 2 or x.size == 0 or (x.dtype != np.uint8 and x.dtype.kind != "f"):
        raise DataError(f"{source}: {name} cannot be used as samples",
                        "uint8 or float values of shape [n, ...], n > 0", f"{x.dtype} {x.shape}")
    if x.dtype == np.uint8:
        return x[..., np.newaxis] if x.ndim == 3 else x
    # what does not fit becomes infinite, and is refused
    with np.errstate(over="ignore", invalid="ignore"):
        x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise DataError(f"{source}: {name} has NaN or infinite values",
                        "finite numbers in the range of float32")
    return x


def _labels(values: Any, name: str, length: int, source: str) -> np.ndarray:
    y = _array(values, name, source)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (length,) or y.dtype.kind not in "iu":
        raise DataError(f"{source}: {name} does not label every sample", f"{length} integers",
                        f"{y.dtype} {y.shape}")
    return y


def _num_classes(value: Any, source: str) -> int:
    number = _array(value, "num_classes", source)
    if number.size != 1 or number.dtype.kind not in "iu" or not 1 <= number.item() <= MAX_CLASSES:
        got = number.item(
        ) if number.size == 1 and number.dtype.kind in "iuf" else f"{number.dtype} {number.shape}"
        raise DataError(f"{source}: num_classes is not a number of classes",
                        f"one integer from 1 to {MAX_CLASSES}", got)
    return int(number.item())
