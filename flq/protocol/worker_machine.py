"""The worker's side of time: step(state, event) -> (state, effect) (protocol.md 3).

    REGISTERING -> FETCHING -> TRAINING -> BIDDING -> UPLOADING -> ASKING -> FETCHING ... -> DONE

Each event is the answer to the last effect, so a worker is one loop: do the effect, step with what
came of it. A proposal is kept until a newer model proves that its round is stored; before that
every verdict is provisional, and a master that lost the round gets the same bytes again. A master
that takes late updates may grant the upload of a round that is closed, and its outcome is then open
until the round that took it is stored.
"""

from typing import Any, Callable, Dict, NamedTuple, Tuple

REGISTERING, FETCHING, TRAINING, BIDDING = "REGISTERING", "FETCHING", "TRAINING", "BIDDING"
UPLOADING, ASKING, DONE = "UPLOADING", "ASKING", "DONE"
FINAL_VERDICTS = ("accepted", "refused", "skipped", "late")
PHASES = (REGISTERING, FETCHING, TRAINING, BIDDING, UPLOADING, ASKING, DONE)


class WorkerState(NamedTuple):
    """round: the open round as far as known. have: version of the model held, -1 for none. pending:
    the round of the unsettled proposal, -1 for none. verdict: the last one known of it.
    two_phase, skip: of the pending proposal. final: no round opens on the model held.
    """

    phase: str
    round: int
    have: int
    pending: int
    verdict: str
    two_phase: bool
    skip: bool
    final: bool


class Registered(NamedTuple):
    """The master took the worker in. have: the version that the worker holds and the master
    confirmed, or -1. owes: nothing, bid or upload. outcome: the verdict on the pending proposal as
    the master knows it, '' when unknown. reset: the reference and with it a pending proposal are
    void.
    """

    round: int
    have: int
    owes: str
    outcome: str
    reset: bool


class ModelCame(NamedTuple):
    """The broadcast model of that version is held now, and its round waits for this worker; final:
    no round opens on it.
    """

    version: int
    final: bool


class NothingNew(NamedTuple):
    """The long poll ended without a newer model."""


class Proposed(NamedTuple):
    """Training and quantising are done; the proposal is stored."""

    skip: bool
    two_phase: bool


class Answered(NamedTuple):
    """An outcome of that round. verdict: open, granted, accepted, refused, skipped or late."""

    round: int
    verdict: str


class Exchanged(NamedTuple):
    """The outcome of that round, and with it a newer model, as in ModelCame."""

    round: int
    verdict: str
    version: int
    final: bool


class Refused(NamedTuple):
    """The master refused the request; action is that of the error's kind (errors.py)."""

    action: str


class Register(NamedTuple):
    """Effect: POST /register."""


class Fetch(NamedTuple):
    """Effect: GET /get_global_model from version `have`, waiting for something new."""

    have: int


class Train(NamedTuple):
    """Effect: train on the model held and propose for this round."""

    round: int


class SendBid(NamedTuple):
    """Effect: POST /bid with the pending proposal."""


class SendUpload(NamedTuple):
    """Effect: POST /upload_update with the pending proposal."""


class Ask(NamedTuple):
    """Effect: GET /outcome of the pending proposal's round."""

    round: int


class Settle(NamedTuple):
    """Effect: adopt one of the pending proposal's futures, then `then`."""

    accepted: bool
    then: Any


class Retry(NamedTuple):
    """Effect: pause, then do the last effect of this phase again."""

    again: Any


class Exit(NamedTuple):
    """Effect: leave. refused: a person must look (exit code 3), else the run has ended."""

    refused: bool


Result = Tuple[WorkerState, Any]


def initial_state(have: int = -1, pending: int = -1, two_phase: bool = False,
                  skip: bool = False) -> WorkerState:
    """A worker that starts, with the version and the proposal that its state file holds, if any."""
    return WorkerState(REGISTERING, 0, have, pending, "", two_phase, skip, False)


def start() -> Any:
    """The first effect."""
    return Register()


def step(state: WorkerState, event: Any) -> Result:
    """The next state and the one thing to do. Every (phase, event) has a handler; TABLE shows them.
    """
    return TABLE[type(event)][state.phase](state, event)


def _registered(state: WorkerState, event: Registered) -> Result:
    state = state._replace(round=event.round, have=event.have)
    if event.reset or state.pending < 0:
        return _next(state._replace(pending=-1), event.owes)
    if state.pending == event.round == event.have:
        if event.owes == "bid":
            return _send(state)
        if event.owes == "upload":
            return state._replace(phase=UPLOADING), SendUpload()
        if event.outcome == "open":
            return state._replace(phase=ASKING), Ask(state.pending)
        return _fetch(state._replace(verdict=event.outcome))
    if state.pending < event.round and event.outcome in ("open", "granted"):
        return _answered(state, Answered(state.pending, event.outcome))
    state, follow = _next(state._replace(pending=-1, verdict=""), event.owes)
    return state, Settle(event.outcome == "accepted", follow)


def _next(state: WorkerState, owes: str) -> Result:
    """With nothing pending: train when the open round waits for it and its model is held, else
    fetch.
    """
    if owes == "bid" and state.have == state.round:
        return state._replace(phase=TRAINING), Train(state.round)
    return _fetch(state)


def _fetch(state: WorkerState) -> Result:
    return state._replace(phase=FETCHING), Fetch(state.have)


def _send(state: WorkerState) -> Result:
    if state.skip or state.two_phase:
        return state._replace(phase=BIDDING), SendBid()
    return state._replace(phase=UPLOADING), SendUpload()


def _model(state: WorkerState, event: ModelCame) -> Result:
    state = state._replace(have=event.version, round=event.version, final=event.final)
    if state.pending < 0 or state.pending >= event.version:
        return _go_on(state)
    if state.verdict not in FINAL_VERDICTS:
        return state._replace(phase=ASKING), Ask(state.pending)
    return _settled(state)


def _settled(state: WorkerState) -> Result:
    accepted = state.verdict == "accepted"
    state, follow = _go_on(state._replace(pending=-1, verdict=""))
    return state, Settle(accepted, follow)


def _go_on(state: WorkerState) -> Result:
    return _fetch(state) if state.final else (state._replace(phase=TRAINING), Train(state.have))


def _nothing_new(state: WorkerState, event: NothingNew) -> Result:
    return _fetch(state)


def _proposed(state: WorkerState, event: Proposed) -> Result:
    return _send(
        state._replace(pending=state.round, verdict="", skip=event.skip, two_phase=event.two_phase))


def _answered(state: WorkerState, event: Answered) -> Result:
    if event.round != state.pending or event.verdict == "open":
        return state._replace(phase=ASKING), Ask(state.pending)
    if event.verdict == "granted" and not state.skip:
        return state._replace(phase=UPLOADING), SendUpload()
    # A silence that came after its round had closed has nothing to upload.
    state = state._replace(verdict="late" if event.verdict == "granted" else event.verdict)
    if state.have > state.pending:  # the newer model came first: settle now and train on it
        return _settled(state)
    return _fetch(state)


def _exchanged(state: WorkerState, event: Exchanged) -> Result:
    """As if the two had come one after the other. No master gives a model with a verdict that is
    not final, nor one that is not newer than the round."""
    if (event.round != state.pending or event.verdict not in FINAL_VERDICTS
            or event.version <= event.round):
        return _unexpected(state, event)
    return _model(state._replace(verdict=event.verdict), ModelCame(event.version, event.final))


def _refused(state: WorkerState, event: Refused) -> Result:
    if event.action == "finish":
        return state._replace(phase=DONE), Exit(False)
    if event.action == "exit":
        return state._replace(phase=DONE), Exit(True)
    if event.action == "register":
        return state._replace(phase=REGISTERING), Register()
    if event.action == "settle" and state.pending >= 0 and state.phase in (BIDDING, UPLOADING):
        return state._replace(phase=ASKING), Ask(state.pending)
    return state, Retry(_again(state))


def _again(state: WorkerState) -> Any:
    return {
        REGISTERING: Register(), FETCHING: Fetch(state.have), BIDDING: SendBid(),
        UPLOADING: SendUpload(), ASKING: Ask(state.pending)
    }[state.phase]


def _unexpected(state: WorkerState, event: Any) -> Result:
    """An event that does not answer the last effect: the session's word decides anew."""
    return state._replace(phase=REGISTERING), Register()


def _done(state: WorkerState, event: Any) -> Result:
    return state, Exit(False)


Handler = Callable[[WorkerState, Any], Result]
Row = Dict[str, Handler]


def _row(registering: Handler, fetching: Handler, training: Handler, bidding: Handler,
         uploading: Handler, asking: Handler) -> Row:
    return dict(zip(PHASES, (registering, fetching, training, bidding, uploading, asking, _done)))


TABLE: Dict[type, Row] = {
    #                 REGISTERING   FETCHING      TRAINING     BIDDING      UPLOADING    ASKING
    Registered: _row(_registered, _unexpected, _unexpected, _unexpected, _unexpected, _unexpected),
    ModelCame: _row(_unexpected, _model, _unexpected, _unexpected, _unexpected, _unexpected),
    NothingNew: _row(_unexpected, _nothing_new, _unexpected, _unexpected, _unexpected, _unexpected),
    Proposed: _row(_unexpected, _unexpected, _proposed, _unexpected, _unexpected, _unexpected),
    Answered: _row(_unexpected, _unexpected, _unexpected, _answered, _answered, _answered),
    Exchanged: _row(_unexpected, _unexpected, _unexpected, _exchanged, _exchanged, _exchanged),
    Refused: _row(_refused, _refused, _unexpected, _refused, _refused, _refused),
}
