"""Tables in CSV files: `csv:FILE?label=COLUMN&client=COLUMN`."""

import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.errors import DataError
from flq.learning.datasets.csv_rows import (
    FORM,
    MISSING,
    Report,
    Rows,
    cells_of,
    lines_of,
    listed,
    opened,
    shown,
)
from flq.learning.datasets.dataset import MAX_CLASSES, Dataset, from_arrays
from flq.learning.datasets.names import Source
from flq.user_code import did_you_mean

MAX_COLUMNS = 65536
TEST_EVERY = 5  # without a file for the test, each fifth row of a label is kept for it
_BLOCK = 4096   # rows that become an array together
_DELIMITERS = ",;\t"
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}(\.0*)?\Z")


class Header(NamedTuple):
    """The columns of a file. features: their names, in the order of the file."""

    delimiter: str
    columns: Sequence[str]
    features: Tuple[str, ...]


class Table(NamedTuple):
    """One file. x: float32[n, columns]; labels, clients: one text a row."""

    x: np.ndarray
    labels: List[str]
    clients: Optional[List[str]]


def check_csv(source: Source) -> None:
    """Refuse at once a file that is not there, or whose first line lacks a column that is named.

    Raises DataError.
    """
    for path in filter(None, (source.path, source.test_path)):
        _read_header(source, path)


def load_csv(source: Source, report: Optional[Report] = None) -> Dataset:
    """The rows of a file as a checked Dataset whose `features` and `classes` have names.

    Every column but those of label, client and ignore is a feature. report(error) is called for
    what is wrong in a row; without one it is raised. Raises DataError.
    """
    say = report if report is not None else _refuse
    header = _read_header(source, source.path)
    classes = source.listed("classes")
    table = _read(source, source.path, header.features, classes, say)
    test = None
    if source.test_path is not None:
        test = _read(source, source.test_path, header.features, classes, say)
    names = list(classes) or _class_names(table.labels + (test.labels if test else []))
    number = {name: index for index, name in enumerate(names)}
    y = np.array([number[_plain(label)] for label in table.labels], np.int64)
    clients = None if table.clients is None else np.array(table.clients)
    if test is not None:
        kept, x_test = np.ones(len(y), bool), test.x
        y_test = np.array([number[_plain(label)] for label in test.labels], np.int64)
    else:
        kept = ~set_aside(y)
        x_test, y_test = table.x[~kept], y[~kept]
        if not len(y_test):
            raise DataError(f"{source.path} has too few rows to keep some for the test",
                            f"{TEST_EVERY} rows of one label", f"{len(y)} rows",
                            "name a file for it: test=FILE")
    arrays = {"x_train": table.x[kept], "y_train": y[kept], "x_test": x_test, "y_test": y_test,
              "num_classes": len(names)}
    if clients is not None:
        arrays["client_train"] = clients[kept]
    return from_arrays(arrays, source.path)._replace(features=header.features,
                                                     classes=tuple(names))


def set_aside(y: np.ndarray) -> np.ndarray:
    """bool[n]: which rows are the test's, the fifth, tenth, ... of each label, in the file's order.
    """
    aside = np.zeros(len(y), bool)
    for label in np.unique(y):
        aside[np.flatnonzero(y == label)[TEST_EVERY - 1::TEST_EVERY]] = True
    return aside


def _class_names(labels: Sequence[str]) -> List[str]:
    """Whole numbers from 0 on are the classes' own; all other labels are numbered in their order.
    """
    distinct = {_plain(label) for label in labels}
    if all(_WHOLE.match(label) for label in distinct):
        numbers = sorted(map(int, distinct))
        if numbers[0] >= 0 and numbers[-1] < MAX_CLASSES:
            return [str(number) for number in range(numbers[-1] + 1)]
        return [str(number) for number in numbers]
    return sorted(distinct)


def _plain(label: str) -> str:
    """A whole number as its digits: what was an integer is often stored as 3.0."""
    return str(int(float(label))) if _WHOLE.match(label) else label


def _read_header(source: Source, path: str) -> Header:
    with opened(source, path) as file:
        first = next(lines_of(file, path), "")
    delimiter = max(_DELIMITERS, key=first.count)
    columns = [cell.strip() for cell in next(cells_of([first], delimiter), [])]
    at = f"{path} line 1"
    if not columns:
        raise DataError(f"{path} is empty", FORM, "no line")
    if len(columns) > MAX_COLUMNS:
        raise DataError(f"{at} has too many columns", f"at most {MAX_COLUMNS}", len(columns))
    for place, column in enumerate(columns, 1):
        if not column:
            raise DataError(f"{at}: column {place} has no name", "a name for every column", "none",
                            "pandas leaves such a column out with to_csv(..., index=False)")
        if columns.index(column) != place - 1:
            raise DataError(f"{at}: two columns have the name {shown(column)}", "different names",
                            f"columns {columns.index(column) + 1} and {place}")
    if "label" not in source.options:
        raise DataError(f"csv:{source.path} does not say which column is the label",
                        f"csv:{source.path}?label=COLUMN", listed(columns))
    training = path == source.path
    wanted = [source.options["label"]]
    wanted += [source.options["client"]] if training and "client" in source.options else []
    wanted += source.listed("ignore") if training else []
    for column in wanted:
        if column not in columns:
            near = did_you_mean(column, columns)
            raise DataError(f"{at} has no column {shown(column)}", listed(columns),
                            shown(column), near or "the first line must name the columns")
    others = {source.options["label"], source.options.get("client"), *source.listed("ignore")}
    features = tuple(column for column in columns if column not in others)
    if not features:
        raise DataError(f"{at} has no column left as a feature", "at least one", listed(columns))
    return Header(delimiter, columns, features)


def _read(source: Source, path: str, features: Sequence[str], classes: Sequence[str],
          report: Report) -> Table:
    """One file: its features in the order of `features`, whatever their order here."""
    header = _read_header(source, path)
    missing = sorted(set(features) - set(header.columns))
    if missing:
        raise DataError(f"{path} line 1 has no column {shown(missing[0])}", listed(features),
                        listed(header.columns), "both files need the same features")
    places = [header.columns.index(name) for name in features]
    label = header.columns.index(source.options["label"])
    client = source.options.get("client")
    client_place = header.columns.index(client) if client in header.columns else None
    known = set(classes)
    blocks: List[np.ndarray] = []
    labels: List[str] = []
    clients: List[str] = []
    distinct: Dict[str, str] = {}  # one text for each label, and not one for each row
    with opened(source, path) as file:
        rows = Rows(path, header.columns, header.delimiter, file, report)
        for line, cells in rows:
            value = distinct.setdefault(cells[label].strip(), cells[label].strip())
            wrong = _wrong_label(value, known, classes)
            if wrong is not None:
                report(DataError(f"{path} line {line}, column {shown(source.options['label'])}: "
                                 + wrong[0], *wrong[1:]))
                continue
            if len(distinct) > MAX_CLASSES:
                raise DataError(f"{path} line {line}: too many different labels",
                                f"at most {MAX_CLASSES}", "more",
                                "is this the column with the labels?")
            numbers = rows.numbers(line, cells, places)
            if numbers is None:
                continue
            if not labels or len(labels) % _BLOCK == 0:
                blocks.append(np.empty((_BLOCK, len(places)), np.float32))
            blocks[-1][len(labels) % _BLOCK] = numbers
            labels.append(value)
            if client_place is not None:
                clients.append(cells[client_place].strip())
    if not labels:
        raise DataError(f"{path} has no row that can be used", "rows of numbers below the header",
                        "none")
    x = np.concatenate(blocks)[:len(labels)]
    return Table(x, labels, clients if client_place is not None else None)


def _wrong_label(value: str, known: Any,
                 classes: Sequence[str]) -> Optional[Tuple[str, Any, Any, Optional[str]]]:
    if value.lower() in MISSING:
        return "the label is missing", "a label", shown(value), None
    if known:
        if _plain(value) in known:
            return None
        return ("a label that is not among classes", listed(classes), shown(value),
                did_you_mean(value, classes))
    if not _WHOLE.match(value):
        try:
            float(value)
        except ValueError:
            return None
        return ("this is no label of a class", "a whole number or a text", shown(value),
                "FLQ learns classes, no quantities")
    return None


def _refuse(error: DataError) -> None:
    raise error
