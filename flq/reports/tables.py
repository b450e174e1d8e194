"""The rows of a run as pandas tables."""

from typing import Any, Dict, Optional, Sequence, Tuple, get_type_hints

from pandas import DataFrame as DataFrame

from flq.records import RoundRecord, WorkerRound


def rounds_table(rows: Sequence[Dict[str, Any]]) -> DataFrame:
    """One row a round, a column for each field of RoundRecord; what was not measured is nan."""
    return _table(rows, RoundRecord)


def workers_table(rows: Sequence[Dict[str, Any]]) -> DataFrame:
    """One row a worker and round, a column for each field of WorkerRound."""
    return _table(rows, WorkerRound)


def _table(rows: Sequence[Dict[str, Any]], record: Any) -> DataFrame:
    hints = get_type_hints(record)
    table = DataFrame(rows, columns=list(hints))
    for name, hint in hints.items():
        if hint == Tuple[int, ...]:
            # lists where they were read from JSON
            table[name] = [tuple(workers) for workers in table[name]]
    numbers = {
        name: "float64" for name, hint in hints.items()
        if hint in (float, Optional[float], Optional[int])
    }
    return table.astype(numbers)
