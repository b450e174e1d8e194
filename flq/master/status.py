"""What people may see of a run: /status, /history, /metrics, the final summary."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from typing import Any

from flq.algorithm import cohorts, memories, robust, uplink
from flq.master.run.run import Run
from flq.master.run.stall import Stall
from flq.master.service import Service
from flq.master.store.events import NAMES, DeviceNote, name_of
from flq.modes import AGGREGATIONS
from flq.protocol import round_machine as machine
from flq.protocol import waits
from flq.records import RoundRecord, WorkerRound
from flq.settings import FlqAlgorithmSection


def status(service: Service) -> dict[str, Any]:
    """The JSON of GET /status."""
    with service.locked() as run:
        return snapshot(run, service.now())


def brief(service: Service) -> dict[str, Any]:
    """The JSON of GET /status?brief=1: as long for a thousand workers as for one."""
    with service.locked() as run:
        return _whole(run, run.stall(service.now()))


def snapshot(run: Run, now: float) -> dict[str, Any]:
    """What people may see of a run at this moment."""
    stall = run.stall(now)
    overdue = frozenset(() if stall is None else stall.workers)
    return {
        **_whole(run, stall), "stall": None if stall is None else stall.to_json(),
        "worker_status": {
            str(worker): _worker_status(run, worker, overdue, now)
            for worker in sorted(run.model.accounts)
        },
    }


def _whole(run: Run, stall: Stall | None) -> dict[str, Any]:
    """The run without what each worker does. stall: for how many workers it waits too long, as
    words; None while all is as it should be.
    """
    state, config, history, model = run.state, run.config, run.history, run.model
    tested = history.newest_tested
    newest = history.rows(max(0, len(history) - 20))
    times = [record.round_time_s for record in newest]
    left = max(0, state.settings.max_rounds - state.round)
    stands = (state.paused or stall is not None
              or state.phase in (machine.WAITING, machine.BLOCKED))
    return {
        "run_id": run.run_id, "phase": state.phase, "paused": state.paused,
        "stopped": state.stopped, "error": state.error, "mode": config.flq_algorithm.mode, "memory":
            config.flq_algorithm.memory, "dataset": config.dataset.name, "model": config.model.name,
        "num_params": model.params.size, "current_round": state.round,
        "cohort": cohorts.cohort_of(state.round, state.settings.cohorts),
        "cohorts": state.settings.cohorts,
        "max_rounds": state.settings.max_rounds, "connected_workers": len(state.present),
        "total_workers": config.system.total_workers, "members": sum(
            account.member for account in model.accounts.values()),
        "pending_updates": len(state.uploaded), "pending_tests": run.untested,
        "accuracy": tested.accuracy if tested else None, "loss": tested.loss if tested else None,
        "aggregation": config.flq_algorithm.aggregation,
        "updates_needed": robust.fewest(config.flq_algorithm),
        "updates_seen": _updates_seen(config.flq_algorithm, newest),
        "side_information_bytes": uplink.side_information_bytes(run.given_config,
                                                                run.learner.layout),
        "eta_s": 0.0 if run.is_over else None if stands or not times else left *
                 statistics.median(times), "stall": None if stall is None else stall.text,
        "bits": history.accounting.to_json(history.wire_bits()),
    }


def _updates_seen(algorithm: FlqAlgorithmSection, newest: list[RoundRecord]) -> int | None:
    """How many updates a rule against bad workers had in the last round; None with the mean and
    before the first round.
    """
    if not newest or not AGGREGATIONS[algorithm.aggregation].is_robust:
        return None
    last = newest[-1]
    return robust.sees(memories.configured(algorithm), last.members, len(last.selected))


def _worker_status(run: Run, worker: int, overdue: frozenset[int], now: float) -> dict[str, Any]:
    account, history = run.model.accounts[worker], run.history
    row, counts, seen = history.last_rows.get(worker), history.counts.get(
        worker, {}), run.sessions.last_seen(worker)
    flag = history.flags.get(worker)
    return {
        "state": _doing(run.state, worker, row, overdue, now),
        "cohort": cohorts.cohort_of(worker, run.state.settings.cohorts),
        "last_seen_s": None if seen is None else round(max(0.0, now - seen), 3),
        "round": row.round if row else None, "loss": row.loss if row else None,
        "clock": account.clock if account.member else None, "skipped": counts.get(
            "skipped", 0), "refused": counts.get("refused", 0), "missing": counts.get("missing", 0),
        "late": counts.get("late", 0), "flagged": counts.get("flagged", 0),
        "flag": None if flag is None else dataclasses.asdict(flag),
        "uploads": counts.get("accepted", 0), "num_samples": account.num_samples,
        "resets": account.epoch, "tokens_revoked": run.sessions.tokens_revoked.get(
            worker, 0), "bits_up": history.accounting.worker_up.get(
            worker, 0), "bits_down": history.accounting.worker_down.get(
                worker, 0), "device": run.members.devices.get(worker, {}),
    }


def _doing(state: machine.RoundState, worker: int, row: WorkerRound | None,
           overdue: frozenset[int], now: float) -> str:
    """row: of its last answer."""
    if worker in state.removed:
        return "removed"
    if state.phase == machine.FINISHED and (worker in state.present or (
            row is not None and row.state != "missing")):
        return "done"  # also where another master serves what is over
    if worker not in state.present:
        return "away"
    if waits.is_lost(state, worker, now):
        return "lost"
    if machine.is_left_out(state, worker):
        return "left_out"
    if worker in overdue:
        return "slow"
    owed = machine.owes(state, worker)
    if owed == "bid":
        return "training"
    if owed == "upload":
        return "uploading"
    verdict = machine.verdict_so_far(state, worker)
    return "waiting" if verdict in ("none", "open") else verdict


def history(service: Service, since: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
    """Round records from round `since` on, at most `limit`."""
    since = max(0, since)
    until = None if limit is None else since + max(0, limit)
    with service.locked() as run:
        first, rows = run.history.in_memory(since)
    if since < first:  # nobody waits for the disk
        rows = service.store.records(since, first if until is None else min(first, until)) + rows
    return [record.to_json() for record in rows if until is None or record.round < until]


def history_csv(rows: list[dict[str, Any]], with_header: bool) -> str:
    """The same as comma-separated values; lists of workers are separated by spaces."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        if with_header:
            writer.writeheader()
        for row in rows:
            writer.writerow({
                key: " ".join(map(str, value)) if isinstance(value, tuple) else value
                for key, value in row.items()
            })
    return text.getvalue()


def events(service: Service, since: int = 0) -> list[dict[str, Any]]:
    """What changed the run besides its answers from round `since` on: who came and went, and what
    an operator of which name did, without the values, which may be for readers of the configuration
    alone.
    """
    since = max(0, since)
    with service.locked() as run:
        open_round = max(since, run.state.round)
        newest = service.store.events_by_round(open_round)
        newest += [(run.next_to_close, event) for event in run.members.events]
    # Nothing is added to those of closed rounds: nobody waits for the disk.
    found = service.store.events_by_round(since, open_round) + newest
    return [{
        "round": round_, "event": NAMES[type(event)], "worker": getattr(event, "worker", None),
        "key": getattr(event, "key", None), "by": name_of(event)
    } for round_, event in found if not isinstance(event, DeviceNote)]


_GAUGES = (
    ("round", "current_round", "The open round, which is the number of closed ones"),
    ("max_rounds", "max_rounds", "Rounds of the whole run"),
    ("cohort", "cohort", "The cohort whose turn it is, 0 where there is one"),
    ("cohorts", "cohorts", "The number of cohorts"),
    ("total_workers", "total_workers", "Workers the run is planned for"),
    ("connected_workers", "connected_workers", "Workers that are there"),
    ("members", "members", "Workers whose updates the model holds"),
    ("pending_updates", "pending_updates", "Uploads that the open round has"),
    ("paused", "paused", "1 while an operator holds the run"),
    ("eta_seconds", "eta_s", "Expected time to the end"),
    ("accuracy", "accuracy", "Of the newest test"),
    ("loss", "loss", "Of the newest test"),
)
"""Name, key of /status and meaning of what is one number."""


def metrics(service: Service) -> str:
    """The Prometheus text format."""
    return metrics_text(status(service))


def metrics_text(shown: dict[str, Any]) -> str:
    """A status as Prometheus reads it; what is not known is left out."""
    about = {name: str(shown[name]) for name in ("run_id", "dataset", "model", "mode")}
    lines = _metric("run_info", "gauge", "What is played", [(about, 1)])
    lines += _metric("phase", "gauge", "1 beside the phase that the run is in",
                     [({"phase": phase}, int(phase == shown["phase"])) for phase in machine.PHASES])
    for name, key, meaning in _GAUGES:
        if shown[key] is not None:
            lines += _metric(name, "gauge", meaning, [({}, shown[key])])
    overdue = 0 if shown["stall"] is None else len(shown["stall"]["workers"])
    lines += _metric("overdue_workers", "gauge", "Workers for whom the round waits too long",
                     [({}, overdue)])
    lines += _metric("bits_total", "counter", "Bits sent since the start of the run", [
        ({"direction": direction, "kind": kind}, value)
        for direction, kinds in shown["bits"].items() for kind, value in kinds.items()
        if value is not None
    ])
    for name in ("uploads", "skipped", "refused", "missing", "late", "flagged", "resets"):
        lines += _metric(f"worker_{name}_total", "counter", f"{name.capitalize()} of each worker", [
            ({"worker": worker}, item[name]) for worker, item in shown["worker_status"].items()
        ])
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, meaning: str, samples: list[tuple[dict[str, str],
                                                                   Any]]) -> list[str]:
    lines = [f"# HELP flq_{name} {meaning}", f"# TYPE flq_{name} {kind}"]
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        number = int(value) if isinstance(value, bool) else value
        lines.append(f"flq_{name}{'{' + shown + '}' if shown else ''} {number}")
    return lines


def _escaped(text: str) -> str:
    """A label's value, as the format wants it."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
