"""What became of each worker's answers in a whole run. Standard library only."""

from collections import Counter
from typing import Any, Dict, List

from flq.records import Run

STATES = ("accepted", "missing", "skipped", "refused")


def worker_totals(run: Run) -> List[Dict[str, Any]]:
    """A row for each worker: worker, rounds, the counts of STATES, late, payload_bits, num_samples.

    late: of its missing rounds those whose update came after they had closed. num_samples: the
    newest number that it said.
    """
    late = Counter(worker for record in run.rounds for worker in record["late"])
    totals: Dict[int, Dict[str, Any]] = {}
    for row in run.worker_rounds:
        worker = row["worker"]
        total = totals.setdefault(worker, {
            "worker": worker, "rounds": 0, **dict.fromkeys(STATES, 0), "late": late[worker],
            "payload_bits": 0, "num_samples": 0
        })
        total["rounds"] += 1
        if row["state"] in STATES:
            total[row["state"]] += 1
        total["payload_bits"] += row["payload_bits"]
        total["num_samples"] = row["num_samples"]
    return [totals[worker] for worker in sorted(totals)]
