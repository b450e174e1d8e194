"""A run, or a comparison, as one HTML file that opens offline: everything it shows is in it.

Names in a run may be somebody else's: Jinja escapes each, and the page allows itself neither
scripts nor requests.
"""

import base64
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

import flq
from flq.errors import in_one_line
from flq.keys import BY_PATH
from flq.records import Run
from flq.reports import compare, plots
from flq.reports.comparison import Comparison, compare_runs, rows
from flq.reports.comparison_files import comparison_figure
from flq.reports.groups import key_text, set_by_hand
from flq.reports.run_files import DIRECTIONS, PathLike, replacing
from flq.reports.terminal import (
    format_bits,
    format_bytes,
    format_duration,
    format_percent,
    format_ratio,
)
from flq.reports.workers import worker_totals

Table = List[List[str]]

_PAGES = Path(__file__).parent / "page"
_ALT = {"accuracy_loss_by_round": "accuracy and loss by round",
        "accuracy_loss_by_bits": "accuracy and loss by bits sent",
        "selected_skipped_by_round": "what became of the workers' answers, by round",
        "bits_by_round": "payload bits of each round"}


def write_report(path: PathLike, run: Run, targets: Optional[Sequence[float]] = None) -> Path:
    """Write the report of a run; targets: as comparison.compare_runs takes them.

    Raises DataError when the disk refuses.
    """
    summary = run.summary
    comparison = compare_runs([(Path(path).parent, run)], targets)
    return _write(path, "report.html", {
        "title": summary["run_id"], "about": _about(summary), "warnings": comparison.warnings,
        "tiles": _tiles(summary),
        "pictures": [(_ALT[name], _inlined(figure)) for name, figure in plots.figures(run)],
        "bits": compare.bits_table(summary),
        "targets": _without_labels(compare.targets_table(list(rows(comparison)))) if
                   comparison.targets else [],
        "workers": _workers(run), "cohorts": _cohorts(summary), "changed": _changed(run),
        "keys": _keys(run), "devices": _devices(summary.get("devices", {})),
    })


def write_comparison_page(path: PathLike, comparison: Comparison) -> Path:
    """Write a comparison. Raises DataError when the disk refuses."""
    found = list(rows(comparison))
    tables = [("What they reached", "Means over the runs of a row; in brackets the lowest and the "
               "highest.", compare.reached_table(found)),
              ("What they sent", "Compression is what float32 would have sent, over the payload.",
               compare.sent_table(found))]
    if comparison.targets:
        tables.append(("What a target accuracy cost", "At the first test that reached it, and at "
                       "the first one where the mean of three tests in a row did. Payload bits of "
                       "both directions.", compare.targets_table(found)))
    number = sum(len(group.runs) for group in comparison.groups)
    differing = [["", *(row["label"] for row in found)]] + [
        [key, *(_value(row["keys"][key]) for row in found)] for key in found[0]["keys"]]
    runs = [["", "folder", "run", "seed", "state", "accuracy"]] + [
        [row["label"], folder, run.run_id, _value(seed), run.summary["phase"],
         format_percent(run.summary["accuracy"])]
        for group, row in zip(comparison.groups, found)
        for folder, run, seed in zip(group.folders, group.runs, row["seeds"])]
    return _write(path, "comparison.html", {
        "title": f"Comparison of {number} runs",
        "about": ", ".join(group.label for group in comparison.groups),
        "warnings": comparison.warnings,
        "pictures": [("accuracy by rounds, bits and time",
                      _inlined(comparison_figure(comparison)))],
        "tables": tables, "differing": differing, "runs": runs,
    })


def _write(path: PathLike, page: str, values: Dict[str, Any]) -> Path:
    environment = Environment(loader=FileSystemLoader(_PAGES), autoescape=True,
                              undefined=StrictUndefined, finalize=_without_controls)
    text = environment.get_template(page).render(version=flq.__version__, **values)
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
    return Path(path)


def _without_controls(value: Any) -> Any:
    return in_one_line(value) if type(value) is str else value


def _inlined(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(plots.svg(figure)).decode("ascii")


def _about(summary: Dict[str, Any]) -> str:
    turns = f" in {len(summary['cohorts'])} cohorts" if "cohorts" in summary else ""
    return (f"{summary['phase']} after {summary['rounds']} rounds: {summary['dataset']}, "
            f"{summary['model']}, mode {summary['mode']}, {summary['workers']} workers{turns}")


def _tiles(summary: Dict[str, Any]) -> List[List[str]]:
    """Name, value and a remark of each number that people look for first."""
    tiles = [["accuracy", format_percent(summary["accuracy"]),
              f"best {format_percent(summary['best_accuracy'])}"]]
    for direction in DIRECTIONS:
        ratio = summary["compression"][direction]["payload"]
        tiles.append([f"payload {direction}",
                      format_bits(summary["bits"][direction]["payload"]),
                      "" if ratio is None else f"{format_ratio(ratio)} less than float32"])
    answers = ", ".join(f"{summary[name]} {name}" for name in ("skipped", "refused", "late"))
    tiles.append(["uploads, missing", f"{summary['uploads']}, {summary['missing']}", answers])
    tiles.append(["time of the rounds", format_duration(summary["seconds"]),
                  f"{format_duration(summary['seconds_per_round'])} a round"])
    return tiles


def _without_labels(table: Table) -> Table:
    return [row[1:] for row in table]


def _workers(run: Run) -> Table:
    names = ("rounds", "accepted", "missing", "skipped", "refused", "late")
    table = [["worker", *names, "payload", "", "samples"]]
    for row in worker_totals(run):
        table.append([str(row["worker"]), *(str(row[name]) for name in names),
                      format_bits(row["payload_bits"]), format_bytes(row["payload_bits"]),
                      str(row["num_samples"])])
    return table


def _cohorts(summary: Dict[str, Any]) -> Table:
    names = ("rounds", "uploads", "missing", "skipped", "refused", "late")
    found = [[str(row["cohort"]), *(str(row[name]) for name in names),
              format_bits(row["payload_bits_up"])] for row in summary.get("cohorts", [])]
    return [["cohort", *names, "payload up"], *found] if found else []


def _keys(run: Run) -> Table:
    return [["key", "value"]] + [[f"{section}.{name}", _value(value)]
                                 for section, keys in run.config.items()
                                 for name, value in keys.items()]


def _changed(run: Run) -> Table:
    table = [["key", "value", "default", "meaning"]]
    for path, value in set_by_hand(run).items():
        key = BY_PATH.get(path)
        about = ["", "of another version"] if key is None else [_value(key.default), key.doc]
        table.append([path, _value(value), *about])
    return table


def _devices(devices: Dict[str, Dict[str, Any]]) -> Table:
    return [["worker", "what it said of itself"]] + [
        [worker, ", ".join(key_text(name, value) for name, value in report.items())]
        for worker, report in devices.items()
    ]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
