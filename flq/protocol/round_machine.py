"""The master's side of time: step(state, event, now) -> (state, effects) (protocol.md 3).

    WAITING -> BIDDING -> UPLOADING -> AGGREGATING -> BIDDING ... -> FINISHED
    (BLOCKED: disk full)

The machine knows who takes part, who still owes an answer and when a phase ends. It knows nothing
of models, bytes or sockets: it asks for those things with effects. No phase waits for a message
that nobody owes. Times are seconds of a monotonic clock, given as `now`.
"""

from typing import Any, Callable, Dict, FrozenSet, NamedTuple, Optional, Tuple

from flq.algorithm import cohorts
from flq.protocol.round_events import (
    Aggregate,
    BidCame,
    Ended,
    Joined,
    LateAnswer,
    Left,
    LeftOut,
    Opened,
    Paused,
    Reconfigured,
    Removed,
    Resumed,
    RoundClosed,
    RoundFailed,
    RoundSettings,
    Seen,
    Select,
    Selected,
    StopAsked,
    StoreFull,
    Tick,
    UploadCame,
)
from flq.protocol.worker_map import WorkerMap, WorkerSet
from flq.records import Bid, Option

WAITING, BIDDING, UPLOADING = "WAITING", "BIDDING", "UPLOADING"
AGGREGATING, FINISHED, BLOCKED = "AGGREGATING", "FINISHED", "BLOCKED"
PHASES = (WAITING, BIDDING, UPLOADING, AGGREGATING, FINISHED, BLOCKED)
ANSWERING = (WAITING, BIDDING, UPLOADING)
"""The phases in which answers come and may be lost again; once a round is being closed they stand.
"""

FIRST_DEADLINE_S = 600.0
"""Adaptive deadline of a first round: TensorFlow's import and first compiled step happen in it."""
SHORTEST_DEADLINE_S = 10.0
BLOCKED_RETRY_S = 2.0
LONGEST_SILENCE = 2
"""Rounds in a row in which a worker that is there may let the deadline pass. One may be a page that
was swapped out or a slow network; after two, at four times what the slowest answer took, it hangs,
or nothing of what it sends arrives."""
_REMEMBERED_DURATIONS = 5


class Silence(NamedTuple):
    """A worker that is there and missed its last rounds. rounds: how many in a row. round: the
    first of them. since: when it opened, by the run's clock; None when the worker was gone
    meanwhile, so that a late answer will tell nothing of how long it computes."""

    rounds: int
    round: int
    since: Optional[float]


class RoundState(NamedTuple):
    """present: registered workers and when each was last seen. participants: who may answer this
    round, workers whose turn it is. short: others wait, so the round closes with what it has.
    bids: answers before anything large travelled; a skip is one. Once the round is open only its
    participants have one. granted: among them, None before the verdict. uploaded: among those.
    two_phase: of the open round, as its broadcast said (a change of the settings waits for the next
    broadcast).
    opened_at, answered_at: when the round opened and when its last answer came, by the run's clock
    (active_s).
    durations: how long the last rounds took until their last answer, and workers that came too
    late, newest first.
    silent: who missed its last rounds. held_s: how long the run's clock stood still; held_since:
    since when it does, None while it runs. error: why it is paused.
    """

    phase: str
    round: int
    settings: RoundSettings
    two_phase: bool
    present: WorkerMap[float]
    removed: FrozenSet[int]
    participants: FrozenSet[int]
    short: bool
    bids: WorkerMap[Bid]
    granted: Optional[Dict[int, Option]]
    uploaded: WorkerSet
    opened_at: float
    answered_at: float
    phase_at: float
    durations: Tuple[float, ...]
    silent: Dict[int, Silence]
    held_s: float
    held_since: Optional[float]
    paused: bool
    stopping: bool
    stopped: bool
    error: Optional[str]


Effects = Tuple[Any, ...]
Result = Tuple[RoundState, Effects]


def initial_state(settings: RoundSettings, now: float, round_: int = 0,
                  removed: FrozenSet[int] = frozenset(), paused: bool = False) -> RoundState:
    """Before anybody registered; a resumed run starts at its open round, paused where its operator
    had paused it.
    """
    phase = FINISHED if round_ >= settings.max_rounds else WAITING
    paused = paused and phase != FINISHED
    return RoundState(phase, round_, settings, settings.two_phase, WorkerMap({}), removed,
                      frozenset(), False, WorkerMap({}), None, WorkerSet(), now, now, now, (), {},
                      0.0, now if paused else None, paused, False, False, None)


def step(state: RoundState, event: Any, now: float) -> Result:
    """The next state and what is to be done. Every (phase, event) has a handler; TABLE shows them.
    """
    was_there = isinstance(event, Seen) and event.worker in state.present
    state, effects = TABLE[type(event)][state.phase](state, event, now)
    if was_there:
        return state, effects  # most events are such: nothing can follow from them
    while state.phase in ANSWERING:
        before = state
        state, more = _advance(state, now)
        effects += more
        if state is before:
            break
    return _keep_time(state, now), effects


def active_s(state: RoundState, now: float) -> float:
    """The run's clock: it stands still while the run pauses, for whatever reason, and while the
    disk is full.
    """
    return (now if state.held_since is None else state.held_since) - state.held_s


def round_time_s(state: RoundState, now: float) -> float:
    """How long the open round has been open, by the run's clock."""
    return max(0.0, active_s(state, now) - state.opened_at)


def _keep_time(state: RoundState, now: float) -> RoundState:
    held = state.paused or state.phase == BLOCKED
    if held and state.held_since is None:
        return state._replace(held_since=now)
    if not held and state.held_since is not None:
        return state._replace(held_s=state.held_s + now - state.held_since, held_since=None)
    return state


def next_wake(state: RoundState) -> Optional[float]:
    """When a Tick can change something, None when only a message can."""
    times = []
    if state.phase == BLOCKED:
        times.append(state.phase_at + BLOCKED_RETRY_S)
    if not state.settings.wait_for_all and state.phase in ANSWERING:
        if not state.paused and closes_at_deadline(state):
            times.append(state.phase_at + deadline_s(state))
        if state.present:
            times.append(min(state.present.all_values()) + state.settings.worker_timeout_s)
    return min(times) if times else None


def may_wake_earlier(before: RoundState, event: Any, after: RoundState) -> bool:
    """False where an event moves no next_wake, or only to later, and nobody new is waited for: no
    one has to look at all workers for each answer of one.
    """
    if (before.phase, before.round) != (after.phase, after.round):
        return True
    if isinstance(event, Joined) and (
            after.bids is not before.bids or after.silent is not before.silent):
        return True  # its answer is lost, or it is not left out any more
    if isinstance(event, (Joined, Seen)):  # all others were seen before, so they are gone before it
        is_new = event.worker not in before.present
        return is_new and (len(after.present) == 1 or after.settings.cohorts > 1)
    if isinstance(event, (BidCame, UploadCame)):
        return may_close(before) != may_close(after)
    return True


def deadline_s(state: RoundState) -> float:
    """Longest duration of a phase; 0 where there is none (quorum all)."""
    if state.settings.wait_for_all:
        return 0.0
    if state.settings.deadline_s is not None:
        return state.settings.deadline_s
    adaptive = max(SHORTEST_DEADLINE_S, 4.0 *
                   max(state.durations)) if state.durations else FIRST_DEADLINE_S
    return min(adaptive, state.settings.longest_deadline_s)


def closes_at_deadline(state: RoundState) -> bool:
    """True when the phase ends with its deadline, whoever has not answered by then."""
    return (state.phase != WAITING and may_close(state)) or _others_wait(state)


def owes(state: RoundState, worker: int) -> str:
    """What the open round waits for from this worker: nothing, bid or upload."""
    if state.phase not in ANSWERING or not may_answer(state, worker):
        return "nothing"
    if state.granted is not None:
        return "upload" if worker in state.granted and worker not in state.uploaded else "nothing"
    return "nothing" if worker in state.bids else "bid"


def verdict_so_far(state: RoundState, worker: int) -> str:
    """What became so far of a worker's answer to the open round: none, skipped, open, granted or
    refused.
    """
    bid = state.bids.get(worker)
    if bid is None:
        return "none"
    if bid.skip:
        return "skipped"
    if state.granted is None or worker in state.uploaded:
        return "open"
    return "granted" if worker in state.granted else "refused"


def may_answer(state: RoundState, worker: int) -> bool:
    """True when the open round takes an answer from this worker: also from one that it does not
    wait for, until there is a verdict.
    """
    if worker in state.removed or not is_turn(state, worker):
        return False
    return (state.phase == WAITING or worker in state.participants
            or (state.phase == BIDDING and is_left_out(state, worker)))


def is_turn(state: RoundState, worker: int) -> bool:
    """True when the open round is one of the worker's cohort."""
    return cohorts.plays(worker, state.round, state.settings.cohorts)


def is_left_out(state: RoundState, worker: int) -> bool:
    """True for a worker that was silent for too long: no round waits for it until it answers."""
    return worker in state.silent and state.silent[worker].rounds >= LONGEST_SILENCE


# --- workers come and go


def _joined(state: RoundState, event: Joined, now: float) -> Result:
    # A new process says nothing of how long the old one would have computed.
    state = _there(state._replace(present=state.present.put(event.worker, now)), event.worker)
    if event.fresh:
        state = _forget(state, event.worker)
    return state, ()


def _left(state: RoundState, event: Left, now: float) -> Result:
    if state.settings.wait_for_all:
        return _gone(state, event.worker), ()
    return _gone(_forget(state, event.worker), event.worker), ()


def _removed(state: RoundState, event: Removed, now: float) -> Result:
    if state.phase in ANSWERING:
        state = _take_out(state, event.worker)
    return state._replace(removed=state.removed | {event.worker},
                          present=state.present.without(event.worker),
                          silent=_without(state.silent, event.worker)), ()


def _seen(state: RoundState, event: Seen, now: float) -> Result:
    # Who was away for too long is back with this: its session still holds, so it does not register
    # again.
    return state._replace(present=state.present.put(event.worker, now)), ()


def _late_answer(state: RoundState, event: LateAnswer, now: float) -> Result:
    """How long it was busy is known now, which is what the deadline was too short for."""
    worker = event.worker
    silence = state.silent.get(worker)
    state = state._replace(present=state.present.put(worker, now))
    if silence is None or event.round < silence.round:
        return state, ()  # the answer to an earlier round, once more
    state = _there(state, worker)
    if silence.since is not None:
        state = _took(state, active_s(state, now) - silence.since)
    return state, ()


def _there(state: RoundState, worker: int, rounds: int = 0) -> RoundState:
    """A worker answers: what is left of its silence are so many rounds.

    Who was left out takes part in the open round again, or in the next one where the verdict of
    this one is there.
    """
    if worker not in state.silent:
        return state
    if is_left_out(state, worker) and state.phase == BIDDING and is_turn(state, worker):
        state = state._replace(participants=state.participants | {worker})
    if not rounds:
        return state._replace(silent=_without(state.silent, worker))
    silence = state.silent[worker]
    return state._replace(silent=_with(state.silent, worker, silence._replace(
        rounds=min(silence.rounds, rounds))))


def _took(state: RoundState, seconds: float) -> RoundState:
    remembered = _REMEMBERED_DURATIONS * state.settings.cohorts
    return state._replace(durations=((seconds,) + state.durations)[:remembered])


def _forget(state: RoundState, worker: int) -> RoundState:
    """Drop what a worker answered to the open round, a grant included; once the round is being
    closed it stands.
    """
    if state.phase not in ANSWERING:
        return state
    granted = None if state.granted is None else _without(state.granted, worker)
    return state._replace(bids=state.bids.without(worker), granted=granted,
                          uploaded=state.uploaded.without(worker))


def _gone(state: RoundState, worker: int) -> RoundState:
    """Nothing is owed by who is gone, except with quorum all, where the round waits for its return.
    """
    state = state._replace(present=state.present.without(worker))
    if worker in state.silent:
        state = state._replace(silent=_with(state.silent, worker, state.silent[worker]._replace(
            since=None)))
    done = worker in state.uploaded or (worker in state.bids and state.bids[worker].skip)
    if state.settings.wait_for_all or done or state.phase not in ANSWERING:
        return state
    return _take_out(state, worker)


def _take_out(state: RoundState, worker: int) -> RoundState:
    return _forget(state, worker)._replace(participants=state.participants - {worker})


# --- answers


def _bid(state: RoundState, event: BidCame, now: float) -> Result:
    worker = event.bid.worker
    if event.bid.round != state.round or not may_answer(state, worker) or state.granted is not None:
        return state, ()  # the first bid stands once a verdict exists
    # A bid is half an answer where an upload may follow: who lets that be missed again is left out.
    state = _answered(state, worker, now, 0 if event.bid.skip else LONGEST_SILENCE - 1)
    return state._replace(bids=state.bids.put(worker, event.bid),
                          uploaded=state.uploaded.without(worker)), ()


def _void(state: RoundState, event: BidCame, now: float) -> Result:
    """A granted upload that turned out to be unusable is a miss; no other bid changes a verdict."""
    worker = event.bid.worker
    if event.bid.round != state.round or event.bid.reason != "nonfinite" or owes(
            state, worker) != "upload":
        return state, ()
    return _forget(state, worker)._replace(bids=state.bids.put(worker, event.bid)), ()


def _upload(state: RoundState, event: UploadCame, now: float) -> Result:
    worker = event.bid.worker
    if event.bid.round != state.round or not may_answer(state, worker):
        return state, ()
    if state.two_phase:
        if state.granted is None or worker not in state.granted:
            return state, ()
        return _answered(state, worker, now)._replace(
            uploaded=state.uploaded.put(worker)), ()
    state = _answered(state, worker, now)
    return state._replace(bids=state.bids.put(worker, event.bid),
                          uploaded=state.uploaded.put(worker)), ()


def _answered(state: RoundState, worker: int, now: float, rounds: int = 0) -> RoundState:
    return _there(state, worker, rounds)._replace(answered_at=active_s(state, now))


def _selected(state: RoundState, event: Selected, now: float) -> Result:
    return state._replace(phase=UPLOADING, granted=event.granted, phase_at=now), ()


# --- the driver's and the operator's events


def _closed(state: RoundState, event: RoundClosed, now: float) -> Result:
    effects: Effects = ()
    if not state.settings.wait_for_all:
        state, effects = _note_silence(state)
    # The time that a deadline waited in vain is not the round's: counted in, each deadline would
    # make the next one four times as long.
    if state.answered_at > state.opened_at:
        state = _took(state, state.answered_at - state.opened_at)
    round_ = state.round + 1
    state = state._replace(round=round_, bids=WorkerMap({}), granted=None, uploaded=WorkerSet(),
                           participants=frozenset(), short=False, two_phase=event.two_phase,
                           error=None)
    if state.stopping or round_ >= state.settings.max_rounds:
        stopped = round_ < state.settings.max_rounds
        return state._replace(phase=FINISHED, stopped=stopped), effects + (Ended(stopped),)
    return state._replace(phase=WAITING, opened_at=active_s(state, now), phase_at=now), effects


def _note_silence(state: RoundState) -> Result:
    """Who let the deadline pass although it is there. An update that is not finite is an answer,
    and so is a bid that was refused.
    """
    effects, silent = [], dict(state.silent)
    for worker in sorted(state.participants & set(state.present)):
        if worker in state.bids and (worker in state.uploaded
                                     or worker not in (state.granted or {})):
            silent.pop(worker, None)
            continue
        before = silent.get(worker, Silence(0, state.round, state.opened_at))
        silent[worker] = before._replace(rounds=before.rounds + 1)
        if before.rounds + 1 == LONGEST_SILENCE:
            effects.append(LeftOut(worker))
    return state._replace(silent=silent), tuple(effects)


def _failed(state: RoundState, event: RoundFailed, now: float) -> Result:
    return _pause_with(_back_to_answers(state, now), event.message)


def _store_full(state: RoundState, event: StoreFull, now: float) -> Result:
    return state._replace(phase=BLOCKED, phase_at=now, error=event.message), ()


def _reconfigured(state: RoundState, event: Reconfigured, now: float) -> Result:
    return state._replace(settings=event.settings), ()


def _paused(state: RoundState, event: Paused, now: float) -> Result:
    return state._replace(paused=True), ()


def _resumed(state: RoundState, event: Resumed, now: float) -> Result:
    for worker, bid in state.bids.items():
        if bid.reason == "nonfinite":
            state = _forget(state, worker)  # it is asked again, unless it went meanwhile
            state = state if worker in state.present else _gone(state, worker)
    return state._replace(paused=False, error=None, phase_at=now), ()


def _stop(state: RoundState, event: StopAsked, now: float) -> Result:
    state = state._replace(stopping=True, paused=False)
    return _end(state) if state.phase == WAITING else (state, ())


def _tick(state: RoundState, event: Tick, now: float) -> Result:
    if not state.settings.wait_for_all:
        for worker, seen in state.present.items():
            if now >= seen + state.settings.worker_timeout_s:
                state = _gone(state, worker)
    return state, ()


def _tick_blocked(state: RoundState, event: Tick, now: float) -> Result:
    if now < state.phase_at + BLOCKED_RETRY_S:
        return state, ()
    return _aggregate(state, now)


def _ignore(state: RoundState, event: Any, now: float) -> Result:
    return state, ()


# --- when a phase is over


def _advance(state: RoundState, now: float) -> Result:
    if state.phase == WAITING:
        return _open_if_ready(state, now)
    if state.paused:
        return state, ()
    if state.stopping and not state.bids:
        return _end(state)
    # Each bid is a participant's, each grant a bidder's, each upload of who was granted one.
    if state.granted is not None:  # UPLOADING
        if not state.bids:  # all who had bid are gone
            return state._replace(phase=WAITING, granted=None), ()
        waiting = len(state.granted) - len(state.uploaded)
        return _aggregate(state, now) if _over(state, waiting, now) else (state, ())
    waiting = len(state.participants) - len(state.bids)
    if not waiting and not may_close(state) and not state.stopping:
        return state._replace(phase=WAITING), ()
    if not _over(state, waiting, now):
        return state, ()
    offers = tuple(bid for worker, bid in sorted(state.bids.items()) if not bid.skip)
    if state.two_phase and offers and not state.stopping:
        return state, (Select(offers),)
    return _aggregate(state, now)


def _over(state: RoundState, waiting: int, now: float) -> bool:
    """True when the phase has what it waits for, or has waited long enough for it. waiting: how
    many answers it lacks.
    """
    if not waiting or state.stopping:
        return True
    return not state.settings.wait_for_all and now >= state.phase_at + deadline_s(
        state) and closes_at_deadline(state)


def may_close(state: RoundState) -> bool:
    """True when a round may close with the answers that are there."""
    needed = 1 if state.settings.wait_for_all else state.settings.min_workers
    return state.short or len(state.bids) >= needed


def crew(state: RoundState) -> FrozenSet[int]:
    """Workers of all cohorts that nobody took out: with quorum all, whom the run waits for."""
    return frozenset(range(state.settings.total_workers)) - state.removed


def ready(state: RoundState) -> FrozenSet[int]:
    """Workers of all cohorts that a round may open with (quorum deadline)."""
    return frozenset(worker for worker in state.present if not is_left_out(state, worker))


def may_begin(state: RoundState) -> bool:
    """False before the first round while fewer than start_workers are there (quorum deadline)."""
    return state.round > 0 or len(ready(state)) >= state.settings.start_workers


def _others_wait(state: RoundState) -> bool:
    """True when another cohort could play: this one does not hold it up for longer than a deadline.
    """
    if state.settings.wait_for_all or state.settings.cohorts == 1 or not may_begin(state):
        return False
    sizes: Dict[int, int] = {}
    for worker in ready(state):
        if not is_turn(state, worker):
            cohort = cohorts.cohort_of(worker, state.settings.cohorts)
            sizes[cohort] = sizes.get(cohort, 0) + 1
    return max(sizes.values(), default=0) >= state.settings.min_workers


def _lacks_workers(state: RoundState) -> bool:
    """True while so few are there that nobody needs to look who they are."""
    settings, there = state.settings, len(state.present)
    if settings.wait_for_all:
        return state.round == 0 and there + len(state.removed) < settings.total_workers
    return there < max(settings.min_workers, settings.start_workers if state.round == 0 else 0)


def _open_if_ready(state: RoundState, now: float) -> Result:
    if state.paused or _lacks_workers(state):
        return state, ()
    if state.settings.wait_for_all:
        players = crew(state)
        may_open = bool(players) and (players <= set(state.present) or state.round > 0)
    else:
        players = ready(state)
    participants = frozenset(worker for worker in players if is_turn(state, worker))
    if state.settings.wait_for_all:
        short = not participants  # all of the cohort were removed, and the others go on
    else:
        short = len(participants) < state.settings.min_workers
        may_open = may_begin(state) and (not short or (
            _others_wait(state) and now >= state.phase_at + deadline_s(state)))
    if not may_open:
        return state, ()
    return state._replace(
        phase=BIDDING, participants=participants, short=short, opened_at=active_s(state, now),
        phase_at=now,
        bids=WorkerMap({
            worker: bid for worker, bid in state.bids.items() if worker in participants
        }), uploaded=WorkerSet(state.uploaded & participants)), (Opened(state.round),)


def _aggregate(state: RoundState, now: float) -> Result:
    offered = {worker for worker, bid in state.bids.items() if not bid.skip}
    skipped = {
        worker for worker, bid in state.bids.items() if bid.skip and bid.reason != "nonfinite"
    }
    if state.bids and not offered and not skipped:
        return _pause_with(
            state, "no worker's update is finite: POST /resume tries the round again; "
            "if that does not help, start a new run with a lower model.local_lr or model.lr, or "
            "with dataset.standardize where features have large values")
    # A grant that was not used is a miss, not a refusal.
    refused = offered - set(
        state.granted) if state.granted is not None else set() if not state.two_phase else offered
    missing = state.participants - frozenset(state.uploaded) - skipped - refused
    effect = Aggregate(state.round, tuple(sorted(state.uploaded)), tuple(sorted(skipped)),
                       tuple(sorted(refused)), tuple(sorted(missing)))
    return state._replace(phase=AGGREGATING, phase_at=now), (effect,)


def _back_to_answers(state: RoundState, now: float) -> RoundState:
    state = state._replace(phase=UPLOADING if state.granted is not None else BIDDING, phase_at=now)
    # who went while the round was being closed
    for worker in state.participants - set(state.present):
        state = _take_out(state, worker) if worker in state.removed else _gone(state, worker)
    return state


def _pause_with(state: RoundState, message: str) -> Result:
    """A round that cannot be closed: the operator decides, unless the operator wanted the end
    anyway.
    """
    state = state._replace(error=message)
    return _end(state) if state.stopping else (state._replace(paused=True), ())


def _end(state: RoundState) -> Result:
    return state._replace(phase=FINISHED, stopped=True), (Ended(True),)


def _with(mapping: Dict[Any, Any], key: Any, value: Any) -> Dict[Any, Any]:
    changed = dict(mapping)
    changed[key] = value
    return changed


def _without(mapping: Dict[Any, Any], key: Any) -> Dict[Any, Any]:
    return {other: value for other, value in mapping.items() if other != key}


Handler = Callable[[RoundState, Any, float], Result]
Row = Dict[str, Handler]


def _row(waiting: Handler, bidding: Handler, uploading: Handler, aggregating: Handler,
         finished: Handler, blocked: Handler) -> Row:
    return dict(zip(PHASES, (waiting, bidding, uploading, aggregating, finished, blocked)))


TABLE: Dict[type, Row] = {
    #                   WAITING        BIDDING        UPLOADING      AGGREGATING    FINISHED
    #                   BLOCKED
    Joined: _row(_joined, _joined, _joined, _joined, _joined, _joined),
    Left: _row(_left, _left, _left, _left, _left, _left),
    Removed: _row(_removed, _removed, _removed, _removed, _removed, _removed),
    Seen: _row(_seen, _seen, _seen, _seen, _seen, _seen),
    LateAnswer: _row(_late_answer, _late_answer, _late_answer, _late_answer, _late_answer,
                     _late_answer),
    BidCame: _row(_bid, _bid, _void, _ignore, _ignore, _ignore),
    UploadCame: _row(_upload, _upload, _upload, _ignore, _ignore, _ignore),
    Selected: _row(_ignore, _selected, _ignore, _ignore, _ignore, _ignore),
    RoundClosed: _row(_ignore, _ignore, _ignore, _closed, _ignore, _ignore),
    RoundFailed: _row(_ignore, _ignore, _ignore, _failed, _ignore, _ignore),
    StoreFull: _row(_ignore, _ignore, _ignore, _store_full, _ignore, _ignore),
    Reconfigured: _row(_reconfigured, _reconfigured, _reconfigured, _reconfigured, _ignore,
                       _reconfigured),
    Paused: _row(_paused, _paused, _paused, _paused, _ignore, _paused),
    Resumed: _row(_resumed, _resumed, _resumed, _resumed, _ignore, _resumed),
    StopAsked: _row(_stop, _stop, _stop, _stop, _ignore, _stop),
    Tick: _row(_tick, _tick, _tick, _ignore, _ignore, _tick_blocked),
}
