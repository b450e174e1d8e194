"""The text of a CSV file that may come from anywhere: its lines, and their cells as numbers.

What is wrong is one line with file, line and column. Python's csv module reads it: a worker needs
no pandas.
"""

import contextlib
import csv
import math
import os
import re
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, TextIO, Tuple

import numpy as np

from flq.errors import DataError
from flq.learning.datasets.names import Source, check_exists

FORM = "a CSV file in UTF-8 whose first line names the columns"
MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
MAX_LINE = 2 ** 22  # characters
_LARGEST = float(np.finfo(np.float32).max)

Report = Callable[[DataError], None]
"""What is done about something wrong in a row: raise it, or note it and leave the row out."""


@contextlib.contextmanager
def opened(source: Source, path: str) -> Iterator[TextIO]:
    """The text of a file; what Python raises while it is read becomes one line."""
    check_exists(path, FORM, source.written if path == source.path else source.options["test"])
    if not os.path.isfile(path):
        raise DataError(f"cannot read {path}", FORM, "no file")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        line, got = _undecodable(path)
        raise DataError(f"{path} line {line} is not UTF-8", FORM, got,
                        "save the file again as UTF-8")
    except csv.Error as error:
        raise DataError(f"cannot read {path}", FORM, error)
    except OSError as error:
        raise DataError(f"cannot read {path}", FORM, error.strerror)
    except MemoryError:
        raise DataError(f"{path} does not fit into memory", hint="use a part of it")


def _undecodable(path: str) -> Tuple[int, str]:
    """The first line that is not UTF-8, and the byte in it."""
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return 1, "UTF-16"
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, f"byte 0x{line[error.start]:02x} at place {error.start + 1}"
    return 1, "bytes of another encoding"


def lines_of(file: TextIO, path: str) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
        if len(line) >= MAX_LINE:
            raise DataError(f"{path} line {number} is too long",
                            f"fewer than {MAX_LINE} characters in a line", "more")
        yield line


def cells_of(lines: Iterable[str], delimiter: str) -> Any:
    """csv's reader of some lines. A quote may follow the space behind a delimiter."""
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)


class Rows(object):
    """The rows below the header, as (line, cells); those of another length are reported."""

    def __init__(self, path: str, columns: Sequence[str], delimiter: str, file: TextIO,
                 report: Report) -> None:
        self._path, self._columns, self._report = path, columns, report
        self._reader = cells_of(lines_of(file, path), delimiter)

    def __iter__(self) -> Iterator[Tuple[int, List[str]]]:
        next(self._reader)
        while True:
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{self._path} line {self._reader.line_num} cannot be read", FORM,
                                error)
            line = self._reader.line_num
            if not cells:
                continue  # an empty line, such as the last one
            if len(cells) != len(self._columns):
                self._report(
                    DataError(f"{self._path} line {line} has another number of cells than line 1",
                              len(self._columns), len(cells)))
                continue
            yield line, cells

    def numbers(self, line: int, cells: Sequence[str],
                places: Sequence[int]) -> Optional[List[float]]:
        """The features of a row, or None where one is no number and was reported."""
        picked = [cells[place] for place in places]
        try:
            values = list(map(float, picked))
        except ValueError:
            values = [math.nan]
        # float() would read 1_000 as a number
        if all(-_LARGEST <= value <= _LARGEST for value in values) and "_" not in "".join(picked):
            return values
        for place, cell in zip(places, picked):
            wrong = self._wrong_number(cell)
            if wrong is not None:
                self._report(
                    DataError(f"{self._path} line {line}, column "
                              f"{shown(self._columns[place])}: {wrong[0]}", *wrong[1:]))
        return None

    @staticmethod
    def _wrong_number(cell: str) -> Optional[Tuple[str, Any, Any, Optional[str]]]:
        if cell.strip().lower() in MISSING:
            return ("a value is missing", "a number", shown(cell),
                    "fill it in, remove the row, or leave the column out with ignore=")
        try:
            value = float(cell) if "_" not in cell else math.nan
        except ValueError:
            value = math.nan
        if -_LARGEST <= value <= _LARGEST:
            return None
        if math.isinf(value) or not math.isnan(value):
            return "too large", "a finite number in the range of float32", shown(cell), None
        hint = "leave the column out with ignore=, or code its values as numbers"
        if re.match(r"\s*-?[0-9]+,[0-9]+\s*\Z", cell):
            hint = "write decimals with a point"
        return "not a number", "a number", shown(cell), hint


def shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def listed(names: Sequence[str]) -> str:
    more = [] if len(names) <= 12 else [f"{len(names) - 12} more"]
    return ", ".join([name if len(name) <= 40 else name[:37] + "..." for name in names[:12]] + more)
