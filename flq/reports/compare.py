"""Runs side by side: tables for a terminal, one workbook and one picture."""

from pathlib import Path
from typing import Any, Dict, List, Sequence

from flq.errors import in_one_line
from flq.records import Run
from flq.reports.run_files import DIRECTIONS, PathLike
from flq.reports.terminal import (
    columns,
    format_bits,
    format_bytes,
    format_duration,
    format_percent,
    format_ratio,
)


def summary_table(run: Run) -> str:
    """What one run reached and what it cost. Compression is float32 bits over the bits sent."""
    # a run may come from another machine, where its texts were somebody else's
    summary: Dict[str, Any] = {
        name: in_one_line(value) if isinstance(value, str) else value
        for name, value in run.summary.items()
    }
    loss = "-" if summary["loss"] is None else f"{summary['loss']:.4f}"
    turns = f" in {len(summary['cohorts'])} cohorts" if "cohorts" in summary else ""
    lines = [
        "{run_id}: {phase} after {rounds} rounds ({dataset}, {model}, mode {mode}, {workers} "
        "workers{turns})"
        .format(turns=turns, **summary),
        f"accuracy {format_percent(summary['accuracy'])} (best "
        f"{format_percent(summary['best_accuracy'])}), loss {loss}",
        f"{format_duration(summary['seconds_per_round'])} a round, "
        f"{format_duration(summary['seconds'])} together",
        "{uploads} uploads, {skipped} skipped, {refused} refused, {missing} missing, {late} late".
        format(**summary),
    ]
    table = [["", "payload", "in bytes", "on the wire", "float32", "compression", "with headers"]]
    for direction in DIRECTIONS:
        bits, ratio = summary["bits"][direction], summary["compression"][direction]
        table.append([
            "bits " + direction,
            format_bits(bits["payload"]),
            format_bytes(bits["payload"]),
            format_bits(bits["wire"]),
            format_bits(bits["float32"]),
            format_ratio(ratio["payload"]),
            format_ratio(ratio["wire"])
        ])
    return "\n".join(lines) + "\n" + columns(table)


def comparison_table(runs: Sequence[Run]) -> str:
    """One line per run.

    Compression is float32 bits over payload bits; the share of headers and polls is in the wire
    bits.
    """
    header = ["run", "mode", "rounds", "accuracy"]
    for direction in DIRECTIONS:
        header += [direction + " payload", direction + " wire", direction + " compr."]
    table = [header + ["skipped", "refused", "per round"]]
    for run in runs:
        summary = run.summary
        row = [
            in_one_line(run.run_id),
            in_one_line(summary["mode"]),
            str(summary["rounds"]),
            format_percent(summary["accuracy"])
        ]
        for direction in DIRECTIONS:
            bits = summary["bits"][direction]
            row += [
                format_bits(bits["payload"]),
                format_bits(bits["wire"]),
                format_ratio(summary["compression"][direction]["payload"])
            ]
        table.append(row + [
            str(summary["skipped"]),
            str(summary["refused"]),
            format_duration(summary["seconds_per_round"])
        ])
    return columns(table)


def write_comparison(directory: PathLike, runs: Sequence[Run]) -> List[Path]:
    """Write comparison.png, accuracy against rounds and against payload bits of both directions,
    and comparison.xlsx.
    """
    directory = Path(directory)
    return [
        _write_picture(directory / "comparison.png", runs),
        _write_workbook(directory / "comparison.xlsx", runs)
    ]


def _write_picture(path: Path, runs: Sequence[Run]) -> Path:
    from flq.reports import plots  # here, because the tables do without Matplotlib

    figure, (by_round, by_bits) = plots.new_figure(f"accuracy of {len(runs)} runs", 2)
    modes = [run.summary["mode"] for run in runs]
    for index, run in enumerate(runs):
        name = modes[index] if modes.count(modes[index]) == 1 else f"{modes[index]} ({run.run_id})"
        style = plots.COLOURS[index % len(plots.COLOURS)], ("-", "--",
                                                            ":")[index // len(plots.COLOURS) % 3]
        accuracy = [record["accuracy"] for record in run.rounds]
        plots.draw_curve(by_round, [record["round"] for record in run.rounds], accuracy, name,
                         *style)
        plots.draw_curve(by_bits, plots.total_bits(run.rounds, "payload"), accuracy, name, *style)
    plots.round_axis(by_round)
    plots.bits_axis(by_bits)
    for ax, x_name in ((by_round, "round"), (by_bits, "payload bits, both directions")):
        plots.accuracy_axis(ax)
        plots.finish(ax, x_name, "accuracy")
    return plots.save(figure, path)


def _write_workbook(path: Path, runs: Sequence[Run]) -> Path:
    from flq.reports import excel

    summaries = [run.summary for run in runs]
    formats = {"accuracy": excel.PERCENT, "best_accuracy": excel.PERCENT, "loss": excel.REAL,
               "seconds": excel.SECONDS, "seconds_per_round": excel.SECONDS}
    names = [
        "run_id", "dataset", "model", "mode", "workers", "rounds", "phase", "accuracy",
        "best_accuracy", "loss"
    ]
    table = [
        excel.Column(name, formats.get(name, excel.INTEGER),
                     [summary[name] for summary in summaries]) for name in names
    ]
    for direction in DIRECTIONS:
        for kind in ("nominal", "payload", "wire", "float32"):
            table.append(
                excel.Column(f"bits_{direction}_{kind}", excel.INTEGER,
                             [s["bits"][direction][kind] for s in summaries]))
        for kind in ("payload", "wire"):
            table.append(excel.Column(f"compression_{direction}_{kind}", excel.RATIO,
                                      [s["compression"][direction][kind] for s in summaries]))
    names = [
        "uploads", "skipped", "refused", "missing", "late", "seconds", "seconds_per_round",
        "model_hash"
    ]
    table += [
        excel.Column(name, formats.get(name, excel.INTEGER),
                     [summary[name] for summary in summaries]) for name in names
    ]
    excel.write_sheets(path, [excel.Sheet("comparison", table)])
    return path
