"""Whom the open round waits for, and since when that is longer than it should be (protocol.md 3).

Functions of the round machine's state and the time; they change nothing. A round that waits for
ever is no error of the machine, so somebody has to be told.
"""

from typing import FrozenSet, NamedTuple, Optional, Tuple

from flq.protocol import round_machine as machine
from flq.protocol.round_machine import RoundState

LOST_AFTER = 2.0 / 3.0
"""Of worker_timeout_s: a worker shows a sign of life three times in that time, so two are missing.
"""
SLOW_FACTOR = 2.0
"""An answer that takes longer than that many of the slowest of the last rounds is slow."""


class Lack(NamedTuple):
    """What would let the round go on with who is there. remove: workers to take out (quorum all).
    lower: the numbers that are too high, of `start_workers` and `min_workers`. there: what they
    would have to be."""

    remove: FrozenSet[int] = frozenset()
    lower: Tuple[str, ...] = ()
    there: int = 0


def is_lost(state: RoundState, worker: int, now: float) -> bool:
    """True for a registered worker whose signs of life have stopped, and which did not leave."""
    seen = state.present.get(worker)
    return seen is not None and now >= seen + _lost_s(state)


def awaited(state: RoundState) -> FrozenSet[int]:
    """Who has to do something before the round can go on: answer it, or register."""
    if state.paused or state.phase not in machine.ANSWERING:
        return frozenset()
    if state.phase == machine.UPLOADING:
        return state.participants & frozenset(state.granted or ()) - frozenset(
            state.uploaded)
    if state.phase == machine.BIDDING:
        return state.participants - frozenset(state.bids)
    crew = machine.crew(state)
    if state.settings.wait_for_all:
        return crew - frozenset(state.present)
    if machine.may_begin(state):
        crew = frozenset(worker for worker in crew if machine.is_turn(state, worker))
    return crew - machine.ready(state)


def expected_s(state: RoundState) -> float:
    """How long a phase with answers should last at most: twice the slowest of the last rounds, and
    what the round machine grants a first round, in which TensorFlow starts."""
    expected = machine.FIRST_DEADLINE_S
    if state.durations:
        expected = max(machine.SHORTEST_DEADLINE_S, SLOW_FACTOR * max(state.durations))
    deadline = machine.deadline_s(state)
    return min(expected, deadline) if deadline else expected


def overdue(state: RoundState, now: float) -> FrozenSet[int]:
    """Those of `awaited` for whom the round waits longer than it should: they compute for too long,
    or were not heard of for too long."""
    if now >= _all_overdue_at(state):
        return awaited(state)
    first = min(state.present.all_values(), default=state.phase_at)
    if state.phase == machine.WAITING or now < min(first, state.phase_at) + _lost_s(state):
        return frozenset()
    return frozenset(
        worker for worker in awaited(state) if now >= _seen(state, worker) + _lost_s(state))


def next_overdue(state: RoundState, known: FrozenSet[int]) -> Optional[float]:
    """When somebody becomes overdue beside those that are `known` to be; None without a message."""
    waiting = awaited(state) - known
    if not waiting:
        return None
    all_at = _all_overdue_at(state)
    if state.phase == machine.WAITING:
        return all_at
    return min(all_at, min(_seen(state, worker) for worker in waiting) + _lost_s(state))


def _all_overdue_at(state: RoundState) -> float:
    longest = _lost_s(state) if state.phase == machine.WAITING else expected_s(state)
    return state.phase_at + longest


def _seen(state: RoundState, worker: int) -> float:
    """When a worker was last heard of; one that is gone had the whole phase to come back."""
    seen: float = state.present.get(worker, state.phase_at)
    return seen


def _lost_s(state: RoundState) -> float:
    return LOST_AFTER * state.settings.worker_timeout_s


def goes_on_at(state: RoundState) -> Optional[float]:
    """When the round goes on at the latest even if nobody else answers; None if it never does."""
    if state.settings.wait_for_all:
        return None
    ends_at = state.phase_at + machine.deadline_s(state)
    if not machine.closes_at_deadline(state):
        return None
    if state.phase == machine.WAITING:
        return ends_at
    timeout_s = state.settings.worker_timeout_s
    gone_at = max((state.present.get(worker, 0.0) + timeout_s for worker in awaited(state)),
                  default=ends_at)
    return min(ends_at, gone_at)


def lack(state: RoundState, now: float) -> Lack:
    """What is missing for a round that does not go on by itself; empty where nobody is there with
    whom it could."""
    settings = state.settings
    if settings.wait_for_all:
        late = overdue(state, now)
        return Lack(remove=late) if late < machine.crew(state) else Lack()
    if state.phase != machine.WAITING:
        answers = len(state.bids)
        short = 0 < answers < settings.min_workers and not state.short
        return Lack(lower=("min_workers",), there=answers) if short else Lack()
    there, names = machine.ready(state), []
    if not machine.may_begin(state):
        names.append("start_workers")
    if settings.cohorts > 1 and not names:
        there = frozenset(worker for worker in there if machine.is_turn(state, worker))
    if settings.min_workers > len(there):
        names.append("min_workers")
    return Lack(lower=tuple(names), there=len(there)) if there else Lack()
