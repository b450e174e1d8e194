"""What a terminal shows of a run, and of runs beside each other. Standard library only."""

from typing import Any, Dict, List

from flq.errors import in_one_line
from flq.records import Run
from flq.reports.comparison import TESTS, Comparison, rows
from flq.reports.groups import unnamed
from flq.reports.run_files import DIRECTIONS
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
        "{uploads} uploads, {missing} missing, {skipped} skipped, {refused} refused, {late} late".
        format(**summary),
    ]
    return "\n".join(lines) + "\n" + columns(bits_table(summary))


def bits_table(summary: Dict[str, Any]) -> List[List[str]]:
    """What a run sent, a header and a row for each direction."""
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
    return table


def comparison_tables(comparison: Comparison) -> str:
    """What the runs are and reached, what they sent, and what each target cost; warnings last.

    Numbers are means over the runs of a row; behind an accuracy stand the lowest and the highest.
    Compression is float32 bits over payload bits; the share of headers and polls is in the wire
    bits.
    """
    found = list(rows(comparison))
    tables = [reached_table(found), sent_table(found)]
    if comparison.targets:
        tables.append(targets_table(found))
    parts = [columns(table) for table in tables]
    further = unnamed(comparison.groups)
    if further:
        parts.append(f"also different: {in_one_line(', '.join(further))}; --json shows the values")
    if comparison.warnings:
        parts.append("\n".join("warning: " + line for line in comparison.warnings))
    return "\n\n".join(parts)


def reached_table(found: List[Dict[str, Any]]) -> List[List[str]]:
    """What the groups are and reached; found: the objects that comparison.rows gives."""
    answers = ("uploads", "missing", "skipped", "refused")
    table = [["", "data set", "model", "mode", "workers", "cohorts", "runs", "rounds", "accuracy",
              *answers, "per round"]]
    for row in found:
        table.append([
            row["label"],
            *(in_one_line(row[name]) for name in ("dataset", "model", "mode", "workers", "cohorts",
                                                  "runs")), number(row["rounds"]),
            spread(row["accuracy"]), *(number(row[name]) for name in answers),
            format_duration(row["seconds_per_round"])
        ])
    return table


def sent_table(found: List[Dict[str, Any]]) -> List[List[str]]:
    """What the groups sent."""
    table = [[""] + [f"{direction} {name}" for direction in DIRECTIONS
                     for name in ("payload", "wire", "compr.")]]
    for row in found:
        line = [row["label"]]
        for direction in DIRECTIONS:
            bits = row["bits"][direction]
            line += [format_bits(bits["payload"]), format_bits(bits["wire"]),
                     format_ratio(row["compression"][direction]["payload"])]
        table.append(line)
    return table


def targets_table(found: List[Dict[str, Any]]) -> List[List[str]]:
    """What each target accuracy had cost, a row for each group and target."""
    table = [["", "to reach", *(f"{name}{_TESTS_IN_WORDS[tests]}" for tests in TESTS
                                for name in ("rounds", "payload", "time"))]]
    for row in found:
        costs = {(cost["accuracy"], cost["tests"]): cost for cost in row["targets"]}
        for target in dict.fromkeys(cost["accuracy"] for cost in row["targets"]):
            line = [row["label"], format_percent(target)]
            for tests in TESTS:
                cost = costs[target, tests]
                if cost["rounds"] is None:
                    line += [f"{cost['reached']} of {cost['runs']}" if cost["runs"] > 1 else "-",
                             "-", "-"]
                else:
                    line += [number(cost["rounds"]), format_bits(cost["payload_bits"]),
                             format_duration(cost["seconds"])]
            table.append(line)
    return table


_TESTS_IN_WORDS = {1: "", 3: " (mean of 3)"}


def number(value: Any) -> str:
    """A count, or a mean of some: 23.333 -> 23.3, 30.0 -> 30; None -> -."""
    return "-" if value is None else f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(
        value, float) else str(value)


def spread(value: Any) -> str:
    """{mean, lowest, highest} of accuracies -> 85.10 % (84.80 to 85.40)."""
    if value is None:
        return "-"
    lowest, highest = (f"{100 * value[name]:.2f}" for name in ("lowest", "highest"))
    return format_percent(value["mean"]) + (
        f" ({lowest} to {highest})" if lowest != highest else "")
