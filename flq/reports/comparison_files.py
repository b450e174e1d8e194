"""A comparison as pictures and as a workbook."""

from pathlib import Path
from typing import Any, Dict, List

from matplotlib.figure import Figure

from flq.errors import in_one_line
from flq.reports import excel, plots
from flq.reports.comparison import Comparison, band, curve, rows
from flq.reports.excel import Column, Sheet
from flq.reports.run_files import DIRECTIONS, KINDS, PathLike

_X_TITLES = {"round": "round", "bits": "payload bits, both directions", "seconds": "seconds"}
_LINES = ("-", "--", ":")


def write_comparison(directory: PathLike, comparison: Comparison) -> List[Path]:
    """Write comparison.png, comparison.svg and comparison.xlsx; returns their paths.

    Raises DataError when the disk refuses.
    """
    directory = Path(directory)
    figure = comparison_figure(comparison)
    paths = [plots.save(figure, directory / ("comparison" + kind)) for kind in (".png", ".svg")]
    workbook = directory / "comparison.xlsx"
    excel.write_sheets(workbook, _sheets(comparison))
    return paths + [workbook]


def comparison_figure(comparison: Comparison) -> Figure:
    """Accuracy by rounds, by payload bits of both directions and by time; a band goes from the
    lowest to the highest run of a group.
    """
    number = sum(len(group.runs) for group in comparison.groups)
    figure, axes = plots.new_figure(f"accuracy of {number} runs", len(_X_TITLES))
    longest = max((x for group in comparison.groups for run in group.runs
                   for x, _ in curve(run, "seconds")), default=0.0)
    unit, scale = plots.time_unit(longest)
    for ax, axis in zip(axes, _X_TITLES):
        for index, group in enumerate(comparison.groups):
            colour = plots.COLOURS[index % len(plots.COLOURS)]
            line = _LINES[index // len(plots.COLOURS) % len(_LINES)]
            found = [(x / scale if axis == "seconds" else x, *accuracies)
                     for x, *accuracies in band([curve(run, axis) for run in group.runs])]
            several = len(group.runs) > 1
            label = f"{group.label}, {len(group.runs)} runs" if several else group.label
            (plots.draw_band if several else plots.draw_mean)(ax, found, label, colour, line)
        if axis == "round":
            plots.round_axis(ax)
        elif axis == "bits":
            plots.bits_axis(ax)
        plots.accuracy_axis(ax)
        plots.finish(ax, unit if axis == "seconds" else _X_TITLES[axis], "accuracy",
                     legend=axis == "round")
    return figure


def _sheets(comparison: Comparison) -> List[Sheet]:
    found = list(rows(comparison))
    curves, parts = _curves(comparison)
    charts = [
        excel.Chart(f"Accuracy by {axis}", _X_TITLES[axis], "accuracy", "0%", [
            excel.Curve(row["label"], "curves", axis, "mean", part)
            for row, part in zip(found, parts[axis])
        ], log_x=axis == "bits") for axis in ("bits", "round", "seconds")
    ]
    sheets = [Sheet("comparison", _columns(found), charts), _targets(found),
              _runs(comparison), curves]
    if comparison.warnings:
        sheets.insert(1, Sheet("warnings", [Column("warning", excel.TEXT, comparison.warnings)]))
    return sheets


def _columns(found: List[Dict[str, Any]]) -> List[Column]:
    """A row for each group."""
    def column(name: str, number_format: str = excel.INTEGER) -> Column:
        return Column(name, number_format, [row[name] for row in found])

    table = [column(name, excel.TEXT) for name in ("label", "dataset", "model", "mode")]
    table += [column(name) for name in ("workers", "cohorts", "runs")]
    table.append(Column("seeds", excel.TEXT, [", ".join(map(str, row["seeds"])) for row in found]))
    table.append(column("rounds", excel.NUMBER))
    for name in ("accuracy", "best_accuracy"):
        for part in ("mean", "lowest", "highest"):
            table.append(Column(name if part == "mean" else f"{name}_{part}", excel.PERCENT,
                                [row[name] and row[name][part] for row in found]))
    table.append(column("loss", excel.REAL))
    table += [column(name) for name in ("uploads", "missing", "skipped", "refused", "late")]
    for direction in DIRECTIONS:
        for kind in KINDS:
            table.append(Column(f"bits_{direction}_{kind}", excel.INTEGER,
                                [row["bits"][direction][kind] for row in found]))
        for kind in ("payload", "wire"):
            table.append(Column(f"compression_{direction}_{kind}", excel.RATIO,
                                [row["compression"][direction][kind] for row in found]))
    return table + [column(name, excel.SECONDS) for name in ("seconds", "seconds_per_round")]


def _targets(found: List[Dict[str, Any]]) -> Sheet:
    costs = [(row["label"], cost) for row in found for cost in row["targets"]]
    formats = {"accuracy": excel.PERCENT, "seconds": excel.SECONDS, "rounds": excel.NUMBER}
    names = ("accuracy", "tests", "reached", "runs", "rounds", "payload_bits", "wire_bits",
             "seconds")
    return Sheet("targets", [Column("label", excel.TEXT, [label for label, _ in costs])] + [
        Column(name, formats.get(name, excel.INTEGER), [cost[name] for _, cost in costs])
        for name in names
    ])


def _runs(comparison: Comparison) -> Sheet:
    """Each run by itself."""
    pairs = [(group.label, folder, run) for group in comparison.groups
             for folder, run in zip(group.folders, group.runs)]
    table = [Column("label", excel.TEXT, [label for label, _, _ in pairs]),
             Column("folder", excel.TEXT, [folder for _, folder, _ in pairs])]
    formats = {"accuracy": excel.PERCENT, "best_accuracy": excel.PERCENT, "loss": excel.REAL,
               "seconds": excel.SECONDS}
    for name in ("run_id", "phase", "rounds", "accuracy", "best_accuracy", "loss", "uploads",
                 "missing", "skipped", "refused", "late", "seconds", "model_hash"):
        values = [run.summary[name] for _, _, run in pairs]
        table.append(Column(name, formats.get(name, excel.INTEGER), [
            in_one_line(value) if isinstance(value, str) else value for value in values]))
    return Sheet("runs", table)


def _curves(comparison: Comparison) -> Any:
    """The sheet that the charts show, and of each axis the rows of each group."""
    table: List[Any] = []
    parts: Dict[str, List[Any]] = {axis: [] for axis in _X_TITLES}
    for axis in _X_TITLES:
        for group in comparison.groups:
            first = len(table)
            for x, *accuracies in band([curve(run, axis) for run in group.runs]):
                places = [x if axis == name else None for name in _X_TITLES]
                table.append([group.label, *places, *accuracies])
            parts[axis].append((first, len(table)))
    formats = {"label": excel.TEXT, "round": excel.INTEGER, "bits": excel.INTEGER,
               "seconds": excel.SECONDS}
    columns = [
        Column(name, formats.get(name, excel.PERCENT), [row[index] for row in table])
        for index, name in enumerate(("label", *_X_TITLES, "mean", "lowest", "highest"))
    ]
    return Sheet("curves", columns), parts
