"""The names of data sets in files of the user's own: `npz:FILE`, `csv:FILE?label=COLUMN`,
`images:FOLDER`."""

import errno
import os
from typing import Dict, NamedTuple, Optional, Sequence
from urllib.parse import unquote

from flq.errors import DataError
from flq.learning.datasets.files import data_dir_or_default
from flq.user_code import did_you_mean

# The options of each kind, with what they mean.
OPTIONS: Dict[str, Dict[str, str]] = {
    "npz": {},
    "csv": {
        "label": "the column with the labels", "client": "the column that says who made a sample",
        "ignore": "columns that are no features", "classes": "the labels in the order of their "
        "numbers", "test": "a file of the same form with the test samples"
    },
    "images": {
        "size": "HEIGHTxWIDTH to which each image is resized", "channels": "1 (grey) or 3 (colour)",
        "classes": "the subfolders in the order of their numbers",
        "test": "a folder of the same form with the test images"
    },
}


class Source(NamedTuple):
    """Where a data set lies. kind: a key of OPTIONS. written: its kind and path as the user wrote
    them. path: of its file or folder, test_path: of the one in the option `test`. options: all of
    them, decoded."""

    kind: str
    written: str
    path: str
    test_path: Optional[str]
    options: Dict[str, str]

    def listed(self, option: str) -> Sequence[str]:
        """The names in an option that lists some, separated by commas."""
        return [part.strip() for part in self.options.get(option, "").split(",") if part.strip()]


def parse(name: str, data_dir: Optional[str]) -> Optional[Source]:
    """`KIND:PATH?OPTION=VALUE&...` -> where that lies; None for a name of another form.

    Paths start at data_dir, else FLQ_DATA_DIR, else the current folder. In a value %XX stands for a
    character, so that it can hold `&` (%26). Raises DataError for an option that the kind does not
    have.
    """
    kind, colon, rest = name.partition(":")
    if not colon or kind not in OPTIONS:
        return None
    known = OPTIONS[kind]
    path, mark, query = rest.partition("?") if known else (rest, "", "")
    options: Dict[str, str] = {}
    for part in filter(None, query.split("&")):
        option, equals, value = part.partition("=")
        if option not in known or not equals or option in options:
            twice = "twice" if option in options else part
            raise DataError(f"{name} has an option that cannot be used",
                            ", ".join(f"{each}=..." for each in known), twice,
                            did_you_mean(option, known))
        options[option] = unquote(value)
    if not path:
        raise DataError(f"{name} names no {'folder' if kind == 'images' else 'file'}",
                        f"{kind}:PATH", "nothing behind the colon")
    test = options.get("test")
    return Source(kind, f"{kind}:{path}", located(path, data_dir),
                  located(test, data_dir) if test else None, options)


def check_exists(path: str, expected: str, written: str) -> None:
    """Raises DataError where there is nothing at the path. written: how the user named it."""
    if not os.path.exists(path):
        folder, file = os.path.split(path)
        there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        near = did_you_mean(file, there, written[:len(written) - len(file)])
        raise DataError(
            f"cannot read {path}", expected, os.strerror(errno.ENOENT), near
            or "paths start at dataset.data_dir, else FLQ_DATA_DIR, else the current folder")


def located(path: str, data_dir: Optional[str]) -> str:
    """Where a path of a name leads."""
    return os.path.join(data_dir_or_default(data_dir) or "", os.path.expanduser(path))
