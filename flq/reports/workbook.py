"""A run as an Excel workbook: its summary, its rounds, its workers and its configuration."""

import json
import re
from datetime import datetime
from pathlib import PurePath
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from flq.records import Run, WorkerRound
from flq.reports.comparison import total_bits
from flq.reports.excel import (
    INTEGER,
    MAX_COLUMNS,
    NUMBER,
    PERCENT,
    RATIO,
    REAL,
    SECONDS,
    TEXT,
    Chart,
    Column,
    Curve,
    Sheet,
    write_sheets,
)
from flq.reports.run_files import DIRECTIONS, PathLike, cumulative
from flq.reports.workers import STATES, worker_totals

_MAX_EXACT = 2 ** 53           # Excel's numbers are float64
# The most wanted first, missing beside uploads.
_SUMMARY_ORDER = ("run_id", "phase", "dataset", "model", "mode", "workers", "rounds", "accuracy",
                  "best_accuracy", "loss", "uploads", "missing", "skipped", "refused", "late",
                  "seconds", "seconds_per_round")
_FORMATS = {"accuracy": (PERCENT, ""), "best_accuracy": (PERCENT, ""), "loss": (REAL, ""),
            "seconds": ("#,##0.0", "s"), "seconds_per_round": ("#,##0.000", "s")}


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
    """Write the sheets summary with charts, rounds, workers, worker_totals, devices where workers
    said what they are, and configuration.

    Bits and times are those of the row's round, the cumulative columns those up to and with it.
    Raises DataError when the disk refuses.
    """
    config = [(section + "." + name, value) for section, keys in run.config.items()
              for name, value in keys.items()]
    write_sheets(path, [
        _summary_sheet(run.summary),
        _rounds_sheet(run.rounds),
        _workers_sheet(run.worker_rounds),
        _totals_sheet(run),
        *_device_sheets(run.summary.get("devices", {})),
        Sheet("configuration", [
            Column("key", TEXT, [key for key, _ in config]),
            Column("value", NUMBER, [_scalar(value) for _, value in config])
        ])
    ])


def _summary_sheet(summary: Dict[str, Any]) -> Sheet:
    """Dotted names as in summary.json, values and their units, beside the curves of the run."""
    ordered = {name: summary[name] for name in _SUMMARY_ORDER if name in summary}
    rest = {name: value for name, value in summary.items()
            if name not in ordered and name != "devices"}
    pairs = list(_leaves("", {**ordered, **rest}))
    shown = [_format_of(key, value) for key, value in pairs]
    bits = "cumulative_bits_payload"
    charts = [
        Chart("Accuracy by bits", "payload bits, both directions", "accuracy", "0%",
              [Curve("accuracy", "rounds", bits, "accuracy")], log_x=True),
        Chart("Accuracy by round", "round", "accuracy", "0%",
              [Curve("accuracy", "rounds", "round", "accuracy")]),
        Chart("Payload bits of each round", "round", "bits", "0.0E+0", [
            Curve(direction, "rounds", "round", f"total_bits_{direction}_payload")
            for direction in DIRECTIONS
        ])
    ]
    return Sheet("summary", [
        Column("key", TEXT, [key for key, _ in pairs]),
        Column("value", [number_format for number_format, _ in shown],
               [_scalar(value) for _, value in pairs]),
        Column("unit", TEXT, [unit for _, unit in shown])
    ], charts)


def _format_of(key: str, value: Any) -> Tuple[str, str]:
    """The number format of a value of the summary, and its unit."""
    if key in _FORMATS:
        return _FORMATS[key]
    if key.startswith("compression."):
        return RATIO, "float32 bits over bits sent"
    if key.startswith("bits."):
        return INTEGER, "bit"
    return (INTEGER if isinstance(value, int) and not isinstance(value, bool) else NUMBER), ""


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
    both = Column("cumulative_bits_payload", INTEGER, total_bits(rounds, "payload"))
    return Sheet("rounds", [
        field("round", INTEGER),
        *([field("cohort", INTEGER)] if any(record["cohort"] for record in rounds) else []),
        field("accuracy", PERCENT),
        field("loss", REAL),
        field("train_loss", REAL),
        Column("selected_workers", TEXT, ids),
        count("selected", "num_selected"),
        count("missing"),
        count("skipped"),
        count("refused"),
        count("late"), *bits, time, *running, both,
        field("server_lr", NUMBER),
        field("rho", REAL)
    ])


def _workers_sheet(worker_rounds: Sequence[Dict[str, Any]]) -> Sheet:
    formats = {"state": TEXT, "gain": "0.000E+00", "loss": REAL, "residual_norm": "0.000E+00"}
    return Sheet("workers", [
        Column(name, formats.get(name, INTEGER), [row[name] for row in worker_rounds])
        for name in WorkerRound._fields
    ])


def _totals_sheet(run: Run) -> Sheet:
    totals = worker_totals(run)
    names = ("worker", "rounds", *STATES, "late", "payload_bits", "num_samples")
    return Sheet("worker_totals",
                 [Column(name, INTEGER, [total[name] for total in totals]) for name in names])


def _device_sheets(devices: Dict[str, Dict[str, Any]]) -> List[Sheet]:
    """A row for each worker that sent a device report, a column for each name that occurs in one,
    as many as a sheet can have.
    """
    if not devices:
        return []
    reports = [devices[worker] for worker in devices]
    names = list(dict.fromkeys(name for report in reports for name in report))[:MAX_COLUMNS - 1]
    return [Sheet("devices", [Column("worker", TEXT, list(devices))] + [
        Column(name, NUMBER, [_listed(report.get(name)) for report in reports]) for name in names])]


def _listed(value: Any) -> Any:
    """A value of a device report as one cell; None, which is empty, where a report says nothing."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return value if value is None else _scalar(value)


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


