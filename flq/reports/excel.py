"""A run as an Excel workbook: its rounds, its workers, its configuration and its summary."""

import io
import json
import math
import re
from collections import Counter
from datetime import datetime
from pathlib import PurePath
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import pandas
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Font, PatternFill
from openpyxl.utils import get_column_letter

from flq.records import Run, WorkerRound
from flq.reports.run_files import DIRECTIONS, PathLike, cumulative, replacing
from flq.reports.terminal import display_width

TEXT, INTEGER, REAL, PERCENT, RATIO, SECONDS, NUMBER = (
    "@", "#,##0", "0.0000", "0.00%", '0.0"x"', '#,##0.000" s"', "General")

_MAX_ROWS = 2 ** 20 - 1        # of one sheet, below its header
_MAX_COLUMNS = 2 ** 14         # of one sheet
_MAX_TEXT = 32767              # of one cell, in UTF-16 units
_MAX_EXACT = 2 ** 53           # Excel's numbers are float64
_WIDTHS = (9, 60)              # of a column, in letters
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# half of a pair too: no file can hold it
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Column(NamedTuple):
    """One column of a sheet: its header, an Excel number format and the values of its rows; None is
    an empty cell.
    """

    name: str
    number_format: str
    values: Sequence[Any]


class Sheet(NamedTuple):
    """One sheet: a name and columns of one length."""

    name: str
    columns: List[Column]


def workbook_name(run: Run, timestamp: datetime) -> str:
    """The file name of a run's workbook, flq_results_<dataset>_<mode>_<timestamp>.xlsx."""
    dataset = run.summary["dataset"]
    if dataset.startswith("npz:"):
        dataset = PurePath(dataset[len("npz:"):]).stem
    what = f"{_safe(dataset, 'data')}_{_safe(run.summary['mode'], 'mode')}"
    return f"flq_results_{what}_{timestamp:%Y%m%d_%H%M%S}.xlsx"


def _safe(text: str, otherwise: str) -> str:
    """A text that may be part of a file's name everywhere."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._")[:40] or otherwise


def write_workbook(path: PathLike, run: Run) -> None:
    """Write the sheets rounds, workers, worker_totals, devices where workers said what they are,
    configuration and summary.

    Bits and times are those of the row's round, the cumulative columns those up to and with it.
    Raises DataError when the disk refuses.
    """
    config = [(section + "." + name, value) for section, keys in run.config.items()
              for name, value in keys.items()]
    summary = {key: value for key, value in run.summary.items() if key != "devices"}
    write_sheets(path, [
        _rounds_sheet(run.rounds),
        _workers_sheet(run.worker_rounds),
        _totals_sheet(run.worker_rounds, run.rounds),
        *_device_sheets(run.summary.get("devices", {})),
        _pairs_sheet("configuration", config),
        _pairs_sheet("summary", list(_leaves("", summary)))
    ])


def write_sheets(path: PathLike, sheets: Sequence[Sheet]) -> None:
    """Write sheets with a frozen header. Rows beyond Excel's limit go to further sheets, <name>_2
    and so on.

    A text is written as a text whatever it starts with, in a header too, so that no cell becomes a
    formula; what no workbook can hold of it is replaced or, beyond Excel's limit, cut off.
    """
    with replacing(path) as file:
        book = Workbook(write_only=True)     # streams the rows: a long run has a million of them
        for sheet in sheets:
            rows = len(sheet.columns[0].values)
            for part, start in enumerate(range(0, max(1, rows), _MAX_ROWS), 1):
                name = sheet.name if part == 1 else f"{sheet.name}_{part}"
                _write_sheet(book.create_sheet(name), sheet.columns, start,
                             min(rows, start + _MAX_ROWS))
        # Not into the file itself: what openpyxl left open when the disk refused would write to it
        # after it was closed, and say so.
        data = io.BytesIO()
        book.save(data)
        file.write(data.getbuffer())


def _rounds_sheet(rounds: Sequence[Dict[str, Any]]) -> Sheet:
    def field(name: str, number_format: str, header: str = "") -> Column:
        return Column(header or name, number_format, [record[name] for record in rounds])

    def count(name: str, header: str = "") -> Column:
        return Column(header or name, INTEGER, [len(record[name]) for record in rounds])

    ids = [",".join(str(worker) for worker in record["selected"]) for record in rounds]
    bits = [field(f"{kind}_bits_{direction}", INTEGER, f"total_bits_{direction}_{kind}")
            for direction in DIRECTIONS for kind in ("nominal", "payload", "wire")]
    time = field("round_time_s", SECONDS, "round_time")
    running = [
        Column("cumulative_" + column.name.partition("_")[2], column.number_format,
               cumulative(column.values)) for column in bits + [time]
    ]
    return Sheet("rounds", [
        field("round", INTEGER),
        *([field("cohort", INTEGER)] if any(record["cohort"] for record in rounds) else []),
        field("accuracy", PERCENT),
        field("loss", REAL),
        field("train_loss", REAL),
        Column("selected_workers", TEXT, ids),
        count("selected", "num_selected"),
        count("skipped"),
        count("refused"),
        count("missing"),
        count("late"), *bits, time, *running,
        field("server_lr", NUMBER),
        field("rho", REAL)
    ])


def _workers_sheet(worker_rounds: Sequence[Dict[str, Any]]) -> Sheet:
    formats = {"state": TEXT, "gain": "0.000E+00", "loss": REAL, "residual_norm": "0.000E+00"}
    return Sheet("workers", [
        Column(name, formats.get(name, INTEGER), [row[name] for row in worker_rounds])
        for name in WorkerRound._fields
    ])


def _totals_sheet(worker_rounds: Sequence[Dict[str, Any]], rounds: Sequence[Dict[str,
                                                                                 Any]]) -> Sheet:
    """late: of a worker's missing rounds those whose update came after they had closed."""
    frame = pandas.DataFrame(list(worker_rounds), columns=list(WorkerRound._fields))
    states = ["accepted", "refused", "skipped", "missing"]
    late = Counter(worker for record in rounds for worker in record["late"])
    counts = pandas.crosstab(frame["worker"], frame["state"]).reindex(columns=states, fill_value=0)
    by_worker = frame.groupby("worker")
    return Sheet("worker_totals", [
        Column("worker", INTEGER, counts.index.tolist()),
        Column("rounds", INTEGER,
               by_worker.size().tolist()), *(Column(state, INTEGER, counts[state].tolist())
                                             for state in states),
        Column("late", INTEGER, [late[worker] for worker in counts.index]),
        Column("payload_bits", INTEGER, by_worker["payload_bits"].sum().tolist()),
        Column("num_samples", INTEGER, by_worker["num_samples"].last().tolist())
    ])


def _device_sheets(devices: Dict[str, Dict[str, Any]]) -> List[Sheet]:
    """A row for each worker that sent a device report, a column for each name that occurs in one,
    as many as a sheet can have.
    """
    if not devices:
        return []
    reports = [devices[worker] for worker in devices]
    names = list(dict.fromkeys(name for report in reports for name in report))[:_MAX_COLUMNS - 1]
    return [Sheet("devices", [Column("worker", TEXT, list(devices))] + [
        Column(name, NUMBER, [_listed(report.get(name)) for report in reports]) for name in names])]


def _listed(value: Any) -> Any:
    """A value of a device report as one cell; None, which is empty, where a report says nothing."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return value if value is None else _scalar(value)


def _pairs_sheet(name: str, pairs: Sequence[Any]) -> Sheet:
    return Sheet(name, [
        Column("key", TEXT, [key for key, _ in pairs]),
        Column("value", NUMBER, [_scalar(value) for _, value in pairs])
    ])


def _leaves(prefix: str, value: Any) -> Iterator[Any]:
    """(dotted name, value) of everything in nested objects."""
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _leaves(prefix + "." + key if prefix else key, inner)


def _scalar(value: Any) -> Any:
    """A JSON value as one cell: itself where Excel has it exactly, else its JSON text."""
    large = isinstance(value, int) and abs(value) > _MAX_EXACT
    return json.dumps(value, ensure_ascii=False) if value is None or large or isinstance(
        value, (list, tuple, dict)) else value


def _write_sheet(sheet: Any, columns: Sequence[Column], start: int, stop: int) -> None:
    sheet.freeze_panes = "A2"
    for number, column in enumerate(columns, 1):
        sheet.column_dimensions[get_column_letter(number)].width = _width(column, start, stop)
    header = [_text_cell(sheet, column.name) for column in columns]
    for cell in header:
        cell.font, cell.fill = Font(bold=True), PatternFill("solid", fgColor="DCE6F1")
    sheet.append(header)
    for index in range(start, stop):
        sheet.append(
            [_cell(sheet, column.values[index], column.number_format) for column in columns])


def _cell(sheet: Any, value: Any, number_format: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        value = None                     # Excel has no such number
    if not isinstance(value, str):
        cell = WriteOnlyCell(sheet, value)
        cell.number_format = number_format
        return cell
    return _text_cell(sheet, value)


def _text_cell(sheet: Any, text: str) -> Any:
    encoded = _NOT_XML.sub("\ufffd", text).encode("utf-16-le")
    # a pair that was cut in two goes whole
    cell = WriteOnlyCell(sheet, encoded[:2 * _MAX_TEXT].decode("utf-16-le", "ignore"))
    cell.data_type = "s"
    cell.number_format = TEXT
    # stays a text when somebody edits the cell
    cell.quotePrefix = text.startswith(_STARTS_A_FORMULA)
    return cell


def _width(column: Column, start: int, stop: int) -> int:
    """Letters that the header and the longest of the part's first and last values need."""
    shown = [
        column.values[index] for index in sorted(
            {*range(start, min(start + 100, stop)), *range(max(start, stop - 100), stop)})
    ]
    texts = [
        f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else "0.000000"
        for value in shown
    ]
    longest = max(display_width(text) for text in texts + [column.name])
    return min(max(longest + 2, _WIDTHS[0]), _WIDTHS[1])
