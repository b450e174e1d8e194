"""Where the files of a published data set may lie, and Keras's download when they lie nowhere."""

import contextlib
import logging
import os
import sys
from typing import Dict, Iterator, Optional, Sequence

import numpy as np

from flq.errors import DataError
from flq.learning import banners
from flq.learning.datasets.dataset import ARRAYS

_log = logging.getLogger("flq.learning")


def data_dir_or_default(data_dir: Optional[str]) -> Optional[str]:
    """The folder from the configuration, else FLQ_DATA_DIR, else None."""
    return data_dir or os.environ.get("FLQ_DATA_DIR") or None


def find_file(data_dir: Optional[str], names: Sequence[str]) -> Optional[str]:
    """Path of the first of the files that the data folder has, else None."""
    folder = data_dir_or_default(data_dir)
    paths = [os.path.join(folder, name) for name in names] if folder else []
    return next((path for path in paths if os.path.exists(path)), None)


def keras_cache() -> str:
    """The folder that keeps what Keras has downloaded: $KERAS_HOME/datasets or ~/.keras/datasets.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return os.path.join(home, "datasets")


def download(keras_name: str, data_dir: Optional[str], file_name: str) -> Dict[str, np.ndarray]:
    """Keras's own loader, which fetches what its cache lacks.

    Raises DataError that says which file to put where.
    """
    folder = data_dir_or_default(data_dir)
    try:
        tf = banners.load_tensorflow()
        _log.info("%s is not on this machine: downloading it", file_name)
        with _bar_on_a_terminal():
            (x_train, y_train), (x_test, y_test) = getattr(tf.keras.datasets,
                                                           keras_name).load_data()
    except Exception as error:  # whatever a network, a proxy or a damaged cache makes Keras raise
        raise DataError(
            f"{file_name} is not on this machine and Keras cannot download it",
            f"{os.path.join(folder or 'DIR', file_name)} with {', '.join(ARRAYS)}", "{}: {}".format(
                type(error).__name__,
                str(error).split("\n")[0]), "put the file there" if folder else
            "put the file into a folder DIR and name it with dataset.data_dir or FLQ_DATA_DIR")
    return dict(zip(ARRAYS, (x_train, y_train, x_test, y_test)))


@contextlib.contextmanager
def _bar_on_a_terminal() -> Iterator[None]:
    """Keras draws a bar on standard output; where that is no terminal it would be many lines."""
    with contextlib.ExitStack() as stack:
        if not sys.stdout.isatty():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield
