"""A round that waits longer than it should: for whom, and what an operator can do, in words and as
data.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple

from flq.protocol import endpoints, waits
from flq.protocol import round_machine as machine
from flq.protocol.round_machine import RoundState
from flq.reports.terminal import format_duration

_NAMED = 4  # workers that a line names; of the others it has the number


class Stall(NamedTuple):
    """workers: who is overdue. text: for whom the round waits, for people. waited_s: how long the
    phase lasts. goes_on_in_s: when the round goes on without them, None if it never does.

    What would let it go on, where somebody else is there: remove: workers to take out (quorum
    all); change: keys of the configuration that are too high, and what they would have to be.
    """

    workers: tuple[int, ...]
    text: str
    waited_s: float
    goes_on_in_s: float | None
    remove: tuple[int, ...]
    change: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """As /status has it."""
        return dict(self._asdict())

    @property
    def advice(self) -> str:
        """What happens now, or what an operator can do."""
        them = "it" if len(self.workers) == 1 else "them"
        if self.goes_on_in_s is not None:
            return f"the round goes on without {them} after {format_duration(self.goes_on_in_s)}"
        requests = [
            f"{endpoints.REMOVE.method} {endpoints.REMOVE.path.replace('{worker}', str(worker))}"
            for worker in self.remove[:_NAMED]
        ]
        if self.change:
            change = json.dumps(self.change)
            requests = [f"{endpoints.PATCH_CONFIG.method} {endpoints.PATCH_CONFIG.path} {change}"]
        if requests:
            return f"continue without {them}: " + " and ".join(requests)
        return f"start {them}: nobody else is there to continue with"


def stall(state: RoundState, devices: Mapping[int, Mapping[str, Any]], now: float) -> Stall | None:
    """What the round waits for too long, None while all is as it should be."""
    overdue = waits.overdue(state, now)
    if not overdue:
        return None
    workers, goes_on_at = tuple(sorted(overdue)), waits.goes_on_at(state)
    lack = waits.lack(state, now) if goes_on_at is None else waits.Lack()
    return Stall(workers, "waiting for " + _who(state, workers, devices, now),
                 max(0.0, now - state.phase_at),
                 None if goes_on_at is None else max(0.0, goes_on_at - now),
                 tuple(sorted(lack.remove)),
                 {f"system.{name}": lack.there for name in lack.lower})


def _who(state: RoundState, workers: tuple[int, ...], devices: Mapping[int, Mapping[str, Any]],
         now: float) -> str:
    """worker 2 (nano-b), last heard 1 min 05 s ago."""
    told: dict[str, list[str]] = {}
    for worker in workers:
        host = devices.get(worker, {}).get("host")
        told.setdefault(_trouble(state, worker, now), []).append(
            f"{worker} ({host})" if host else str(worker))
    return "; ".join(f"{_listed(names)}, {trouble}" for trouble, names in told.items())


def _listed(names: list[str]) -> str:
    """worker 2, workers 2 and 3."""
    shown, more = names[:_NAMED], len(names) - _NAMED
    if more > 0:
        shown.append(f"{more} more")
    if len(shown) == 1:
        return f"worker {shown[0]}"
    return f"workers {', '.join(shown[:-1])} and {shown[-1]}"


def _trouble(state: RoundState, worker: int, now: float) -> str:
    seen = state.present.get(worker)
    if seen is None:
        return "not connected"
    if waits.is_lost(state, worker, now):
        return f"last heard {format_duration(now - seen)} ago"
    if machine.is_left_out(state, worker):
        return "silent for two deadlines"
    return "slower than usual"
