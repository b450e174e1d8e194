"""The numbers of a comparison: means over seeds, and what a target accuracy cost.

Standard library only.
"""

import math
import statistics
from bisect import bisect_left
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from flq.errors import in_one_line
from flq.records import Run
from flq.reports.groups import Group, grouped, seeds_of
from flq.reports.run_files import DIRECTIONS, KINDS, cumulative

TESTS = (1, 3)
"""A target is reached by one test, or by the mean of three in a row: one test that crosses it by
chance is no result."""
_STEP = 0.05

Points = List[Tuple[float, float]]


class Reached(NamedTuple):
    """What a run had cost when it reached a target: rounds played, bits of both directions and the
    seconds of its rounds.
    """

    rounds: int
    payload_bits: int
    wire_bits: Optional[int]
    seconds: float


class Comparison(NamedTuple):
    """Groups of runs beside each other. warnings: why some cannot be compared, a line each."""

    groups: List[Group]
    targets: List[float]
    warnings: List[str]


def compare_runs(runs: Sequence[Tuple[Path, Run]],
                 targets: Optional[Sequence[float]] = None) -> Comparison:
    """Put runs beside each other, with their folders.

    targets: accuracies; without them the highest multiple of 5 % that every run reached, if there
    is one.
    """
    groups = grouped(runs)
    if targets is None:
        best = [run.summary["best_accuracy"] or 0.0 for _, run in runs]
        steps = math.floor(min(best, default=0.0) / _STEP + 1e-9)
        targets = [round(steps * _STEP, 2)] if steps > 0 else []
    return Comparison(groups, sorted(set(targets)), _warnings(groups))


def _warnings(groups: Sequence[Group]) -> List[str]:
    lines = []
    for what, name, reason in (
            ("data sets", "name", "their accuracies cannot be compared"),
            ("partitions of the data", "partition", "some of them are harder to learn from")):
        found = dict.fromkeys(
            in_one_line(run.config["dataset"].get(name)) for group in groups for run in group.runs)
        if len(found) > 1:
            lines.append(f"the runs have different {what} ({', '.join(found)}): {reason}")
    for group in groups:
        for folder, run in zip(group.folders, group.runs):
            phase = in_one_line(run.summary["phase"])
            if phase not in ("FINISHED", "STOPPED"):
                planned = run.summary.get("max_rounds", run.config["system"].get("max_rounds"))
                lines.append(f"{folder} is {phase} after {run.summary['rounds']} of "
                             f"{in_one_line(planned)} rounds")
    return lines


def reached(run: Run, target: float, tests: int = 1) -> Optional[Reached]:
    """The cost at the first test at which the mean accuracy of the last `tests` tests was `target`
    or more; None where it never was.
    """
    tested: List[float] = []
    for record, payload, wire, seconds in zip(run.rounds, total_bits(run.rounds, "payload"),
                                              total_bits(run.rounds, "wire"), _seconds(run.rounds)):
        if record["accuracy"] is None:
            continue
        tested.append(record["accuracy"])
        if len(tested) >= tests and statistics.fmean(tested[-tests:]) >= target - 1e-12:
            assert payload is not None  # only wire bits can be unmeasured
            return Reached(record["round"] + 1, payload, wire, seconds)
    return None


def total_bits(rounds: Sequence[Dict[str, Any]], kind: str) -> List[Optional[int]]:
    """Bits of both directions up to and with each round, None from where they were not measured on.
    """
    pairs = [(record[kind + "_bits_up"], record[kind + "_bits_down"]) for record in rounds]
    return cumulative([None if None in pair else sum(pair) for pair in pairs])


def _seconds(rounds: Sequence[Dict[str, Any]]) -> List[float]:
    return cumulative([record["round_time_s"] for record in rounds])


AXES: Dict[str, Callable[[Sequence[Dict[str, Any]]], Sequence[Any]]] = {
    "round": lambda rounds: [record["round"] for record in rounds],
    "bits": lambda rounds: total_bits(rounds, "payload"),
    "seconds": _seconds,
}
"""What accuracy can be drawn against: the x of each round."""


def curve(run: Run, axis: str) -> Points:
    """(x, accuracy) of the tested rounds of a run, one for each x; axis: a name in AXES."""
    points = {x: record["accuracy"] for x, record in zip(AXES[axis](run.rounds), run.rounds)
              if x is not None and _finite(record["accuracy"])}
    return sorted(points.items())


def band(curves: Sequence[Points]) -> List[Tuple[float, float, float, float]]:
    """(x, mean, lowest, highest) of several curves where all of them are; between two tests a curve
    is a straight line.
    """
    if not curves or not all(curves):
        return []
    start, stop = max(points[0][0] for points in curves), min(points[-1][0] for points in curves)
    places = sorted({x for points in curves for x, _ in points if start <= x <= stop})
    rows = []
    for x in places:
        values = [_at(points, x) for points in curves]
        rows.append((x, statistics.fmean(values), min(values), max(values)))
    return rows


def _at(points: Points, x: float) -> float:
    right = bisect_left(points, (x, -math.inf))
    if points[right][0] == x:
        return points[right][1]
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def to_json(comparison: Comparison) -> Dict[str, Any]:
    """The comparison as JSON: rows, targets and warnings."""
    return {"rows": list(rows(comparison)), "targets": comparison.targets,
            "warnings": comparison.warnings}


def rows(comparison: Comparison) -> Iterator[Dict[str, Any]]:
    """A JSON object for each group. Numbers are means over its runs, None unless every run has one.

    accuracy and best_accuracy: {mean, lowest, highest}. targets: how many of the runs reached each,
    and the means of rounds, bits of both directions and seconds where all did.
    """
    for group in comparison.groups:
        summaries = [run.summary for run in group.runs]
        first = group.runs[0]

        def mean(name: str, summaries: List[Dict[str, Any]] = summaries) -> Optional[float]:
            return _mean([summary[name] for summary in summaries])

        yield {
            "label": group.label, "folders": list(group.folders),
            "run_ids": [run.run_id for run in group.runs], "seeds": seeds_of(group),
            "runs": len(group.runs), "keys": group.keys,
            **{name: summaries[0][name] for name in ("dataset", "model", "mode", "workers")},
            "cohorts": first.config["system"].get("cohorts", 1),
            "phases": [summary["phase"] for summary in summaries], "rounds": mean("rounds"),
            "accuracy": _spread([summary["accuracy"] for summary in summaries]),
            "best_accuracy": _spread([summary["best_accuracy"] for summary in summaries]),
            "loss": mean("loss"),
            **{name: mean(name) for name in ("uploads", "missing", "skipped", "refused", "late",
                                             "seconds", "seconds_per_round")},
            "bits": {
                direction: {
                    kind: _mean([summary["bits"][direction][kind] for summary in summaries])
                    for kind in KINDS
                } for direction in DIRECTIONS
            },
            "compression": {
                direction: {
                    kind: _mean([summary["compression"][direction][kind]
                                 for summary in summaries]) for kind in ("payload", "wire")
                } for direction in DIRECTIONS
            },
            "targets": [_target(group, target, tests) for target in comparison.targets
                        for tests in TESTS],
        }


def _target(group: Group, target: float, tests: int) -> Dict[str, Any]:
    found = [reached(run, target, tests) for run in group.runs]
    costs = [cost for cost in found if cost is not None]
    every = len(costs) == len(found)
    return {
        "accuracy": target, "tests": tests, "reached": len(costs), "runs": len(found),
        **{name: _mean([getattr(cost, name) for cost in costs]) if every else None
           for name in Reached._fields}
    }


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    return numbers[0] if len(numbers) == 1 else statistics.fmean(numbers)


def _spread(values: Sequence[Optional[float]]) -> Optional[Dict[str, float]]:
    mean = _mean(values)
    if mean is None:
        return None
    numbers = [value for value in values if value is not None]
    return {"mean": mean, "lowest": min(numbers), "highest": max(numbers)}
