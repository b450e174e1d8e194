"""Images in a folder with a subfolder for each label: `images:FOLDER?size=HEIGHTxWIDTH`.

TensorFlow's own decoders read PNG, JPEG and BMP: every worker has them.
"""

import itertools
import os
import re
import struct
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from flq.errors import DataError
from flq.learning.datasets.csv_file import TEST_EVERY, set_aside
from flq.learning.datasets.dataset import MAX_CLASSES, Dataset, from_arrays
from flq.learning.datasets.names import Source, check_exists

FORM = "a folder with a subfolder of PNG, JPEG or BMP files for each label"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_LONGEST_FILE = 2 ** 26
_MOST_PIXELS = 2 ** 26  # of one image as it is stored: a small file can say that it is huge
_LONGEST_SIDE = 4096    # of what a model is given

CheckImages = Callable[[int, int], None]
"""Called with the number of images and the numbers of each."""


def check_images(source: Source) -> None:
    """Refuse at once, without TensorFlow, a folder that is not of this form. Raises DataError."""
    _wanted_shape(source)
    _folders(source)


def load_images(source: Source, check: Optional[CheckImages] = None) -> Dataset:
    """Images as uint8 [n, height, width, channels] with the names of their folders as `classes`.

    FOLDER/train and FOLDER/test are the two sets where both are there; otherwise test=FOLDER has
    the test, or each fifth image of a label, by file name, is kept for it. Subfolders are numbered
    in the order of their names, or of classes=. check: may refuse the size that is asked for.
    Raises DataError with the file.
    """
    size, channels = _wanted_shape(source)
    train, test, names = _folders(source)
    kept, aside = _files(train, names), _files(test, names) if test else []
    if not test:
        fifth = set_aside(np.array([label for _, label in kept], np.int64))
        aside = list(itertools.compress(kept, fifth))
        kept = list(itertools.compress(kept, ~fifth))
    for part, found in (("train", kept), ("test", aside)):
        if not found:
            raise DataError(f"{source.path} has no image to {part} with", FORM, "none",
                            f"without test=FOLDER every {TEST_EVERY}th image of a label is for the "
                            "test")
    if check is not None and size is not None:  # without a size they are as the files are
        check(len(kept) + len(aside), size[0] * size[1] * (channels or 3))
    read = _Reader(size, channels)
    arrays: Dict[str, Any] = {"num_classes": len(names)}
    for part, found in (("train", kept), ("test", aside)):
        arrays["x_" + part] = read.all([path for path, _ in found])
        arrays["y_" + part] = np.array([label for _, label in found], np.int64)
    return from_arrays(arrays, source.path)._replace(classes=tuple(names))


def _wanted_shape(source: Source) -> Tuple[Optional[Tuple[int, int]], int]:
    """(height, width) or None, and the channels, 0 for those of the files."""
    size, channels = source.options.get("size"), source.options.get("channels")
    match = re.match(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})\Z", size) if size else None
    if size is not None and (match is None or max(map(int, match.groups())) > _LONGEST_SIDE):
        raise DataError("the option size cannot take this value",
                        f"HEIGHTxWIDTH of at most {_LONGEST_SIDE} each, such as 32x32", size)
    if channels not in (None, "1", "3"):
        raise DataError("the option channels cannot take this value", "1 (grey) or 3 (colour)",
                        channels)
    return (int(match.group(1)), int(match.group(2))) if match else None, int(channels or 0)


def _folders(source: Source) -> Tuple[str, Optional[str], Sequence[str]]:
    """The folder of the training images, the one of the test, and the names of the classes."""
    check_exists(source.path, FORM, source.written)
    if source.test_path is not None:
        check_exists(source.test_path, FORM, source.options["test"])
    train, test = source.path, source.test_path
    halves = [os.path.join(source.path, part) for part in ("train", "test")]
    if test is None and all(map(os.path.isdir, halves)):
        train, test = halves
    names = _listed_classes(source) or _subfolders(train)
    if not names:
        raise DataError(f"{train} has no subfolder", FORM, "none")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{train} has too many subfolders", f"at most {MAX_CLASSES}", len(names))
    for folder in filter(None, (train, test)):
        stray = [name for name in _subfolders(folder) if name not in names]
        if stray:
            raise DataError(f"{os.path.join(folder, stray[0])} is the folder of no class",
                            ", ".join(names[:12]), stray[0],
                            "both sets need the same subfolders, those of classes= where it is set")
    return train, test, names


def _listed_classes(source: Source) -> Sequence[str]:
    """The names in classes=. None leads out of the folder: a worker's owner grants the folder, and
    the master names the classes.
    """
    names = source.listed("classes")
    for name in names:
        if name in (os.curdir, os.pardir) or os.path.basename(name) != name:
            raise DataError("the option classes= cannot take this value",
                            "names of subfolders, without a path", name)
    return names


def _subfolders(folder: str) -> List[str]:
    try:
        return sorted(name for name in os.listdir(folder)
                      if not name.startswith(".") and os.path.isdir(os.path.join(folder, name)))
    except OSError as error:
        raise DataError(f"cannot read {folder}", FORM, error.strerror)


def _files(folder: str, names: Sequence[str]) -> List[Tuple[str, int]]:
    """(path, label) of every image, in the order of labels and names."""
    found = []
    for label, name in enumerate(names):
        inner = os.path.join(folder, name)
        if os.path.isdir(inner):
            found += [(os.path.join(inner, file), label) for file in sorted(os.listdir(inner))
                      if file.lower().endswith(_SUFFIXES) and not file.startswith(".")]
    return found


class _Reader(object):
    """Decodes files to one shape, that of the first where none is asked for."""

    def __init__(self, size: Optional[Tuple[int, int]], channels: int) -> None:
        self._size, self._channels = size, channels
        self._shape: Optional[Tuple[int, ...]] = None
        self._first = ""

    def all(self, paths: Sequence[str]) -> np.ndarray:
        images: Optional[np.ndarray] = None
        for place, path in enumerate(paths):
            image = self._image(path)
            if images is None:
                try:
                    images = np.empty((len(paths),) + image.shape, np.uint8)
                except MemoryError:
                    raise DataError(f"{len(paths)} images of {_sides(image.shape)} do not fit into "
                                    "memory", hint="make them smaller: size=HEIGHTxWIDTH")
            images[place] = image
        assert images is not None
        return images

    def _image(self, path: str) -> np.ndarray:
        import tensorflow as tf

        data = _contents(path)
        try:
            with tf.device("CPU:0"):
                image = self._decoded(tf, data, path)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            raise DataError(f"cannot decode {path}", "a PNG, JPEG or BMP image",
                            str(error).splitlines()[0][:200])
        if self._shape is None:
            self._shape, self._first = image.shape, path
        if image.shape != self._shape:
            option = "size=HEIGHTxWIDTH" if image.shape[:2] != self._shape[:2] else "channels=3"
            raise DataError(f"{path} has another shape than {self._first}", _sides(self._shape),
                            _sides(image.shape), f"let FLQ make them equal: {option}")
        return image

    def _decoded(self, tf: Any, data: bytes, path: str) -> np.ndarray:
        if data[:2] == b"\xff\xd8":
            height, width = tf.image.extract_jpeg_shape(data).numpy()[:2].tolist()
        else:
            height, width = _declared_size(data)
        if not 0 < height * width <= _MOST_PIXELS:
            raise DataError(f"{path} has an impossible size", f"1 to {_MOST_PIXELS} pixels",
                            f"{height} x {width}")
        if data[:2] == b"\xff\xd8":
            # the accurate method gives the same pixels on every processor
            image = tf.io.decode_jpeg(data, self._channels, dct_method="INTEGER_ACCURATE")
        else:
            image = tf.io.decode_image(data, self._channels, expand_animations=False)
        if self._size is not None and tuple(image.shape[:2]) != self._size:
            image = tf.cast(tf.round(tf.image.resize(image, self._size, "area")), tf.uint8)
        pixels: np.ndarray = image.numpy()
        return pixels


def _contents(path: str) -> bytes:
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _LONGEST_FILE:
            raise DataError(f"cannot decode {path}", f"a file of at most {_LONGEST_FILE} bytes",
                            "no file" if not os.path.isfile(path) else os.path.getsize(path))
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"cannot read {path}", "an image", error.strerror)


def _declared_size(data: bytes) -> Tuple[int, int]:
    """(height, width) as a PNG or BMP says them; (1, 1) of anything else, which no decoder takes.
    """
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack(">II", data[16:24])
            return height, width
        if data[:2] == b"BM":
            width, height = struct.unpack("<ii", data[18:26])
            return abs(height), abs(width)
    except struct.error:
        pass
    return 1, 1


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
