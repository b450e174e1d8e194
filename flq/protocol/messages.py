"""The JSON messages of workers, operators and their master: each is declared once, as a record and
its fields (protocol.md 1).

    record = BID.parse(document, worker=3)      document = BID.to_json(record)

Both sides use the same declaration, so what one writes is what the other reads.
"""

import json
import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from flq.errors import ProtocolError
from flq.protocol import fields, frames
from flq.protocol.fields import Document, Message
from flq.protocol.frames import RoundTerms
from flq.records import Bid, Option, Outcome

MAX_DEPTH = 8
MAX_OPTIONS = 16
MAX_STATES = 4
_LAST_ROUND = 2 ** 32 - 1  # what a frame's header can say
VERDICTS = ("open", "granted", "accepted", "refused", "skipped", "late")


def parse_json(data: bytes) -> Document:
    """Bytes -> one JSON object. Raises ProtocolError bad_json."""
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant) if data else {}
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad_json", "the body is not valid JSON", "one JSON object",
                            str(error)[:200])
    if not isinstance(document, dict):
        raise ProtocolError("bad_json", "the body is not a JSON object", "an object",
                            type(document).__name__)
    level: List[Any] = [document]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ProtocolError("bad_json", "the JSON is nested too deeply",
                                f"at most {MAX_DEPTH} levels")
        level = [
            item for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list))
        ]
    return document


def to_json(document: Document) -> bytes:
    """Compact JSON; a number that is not finite becomes null."""
    try:
        text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(document), separators=(",", ":"))
    return text.encode("utf-8")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


# --- POST /register


class Question(NamedTuple):
    """A registration without data: it asks for the run and its configuration."""

    protocol: int
    worker: int


class Hello(NamedTuple):
    """The answer to a question: what a worker needs to build its model and find its samples.
    config: the shared keys by path.
    """

    run_id: str
    config: Dict[str, Any]


class KnownState(NamedTuple):
    """A state that a worker holds from an earlier registration.

    round: version of the model held, params_hash: of that model. reference_hash: the chain.
    pending: the round of an unsettled proposal, -1 for none; pending_hash: the chain if that
    proposal was accepted.
    """

    run_id: str
    round: int
    params_hash: str
    reference_hash: str
    pending: int
    pending_hash: str


class Registration(NamedTuple):
    """What a worker says of itself. params_hash: of the initial model it drew, '' when it drew
    none.

    quantizer_hash: of the source of a user's own quantiser (modes.own_hash), '' for a mode of FLQ.
    memory_rate: a, by which it goes (algorithm.md 2).
    """

    protocol: int
    worker: int
    instance: str
    num_samples: int
    partition_hash: str
    shapes_hash: str
    params_hash: str
    device: Dict[str, Any]
    states: Tuple[KnownState, ...]
    take_over: bool
    quantizer_hash: str = ""
    memory_rate: float = 1.0


class Registered(NamedTuple):
    """The answer to a registration.

    round, version: the open round and the master's model. have: the version that the worker holds
    and the master confirms, or -1. owes: nothing, bid or upload. outcome: the verdict on the
    pending proposal, '' without one. reference: keep, or reset to 0. reference_hash: the worker's
    chain from now on. constants_hash: of the frozen layers' values, '' where the model has none.
    """

    run_id: str
    session: str
    round: int
    version: int
    have: int
    params_hash: str
    owes: str
    outcome: str
    reference: str
    reference_hash: str
    terms: RoundTerms
    constants_hash: str


_PROTOCOL, _WORKER, _RUN_ID = fields.integer(0, 2 ** 16), fields.integer(0, 65535), fields.text(128)
_ROUND, _ROUND_OR_NONE, _CHAIN = fields.integer(0, _LAST_ROUND), fields.integer(
    -1, _LAST_ROUND), fields.hex_digits(64)
_WORKER_ID = {"worker": "worker_id"}
_TERM = {"d": fields.number(0.0), "I": fields.integer(0, _LAST_ROUND), "B": fields.integer(0, 1)}

QUESTION = Message("a question", Question, {"protocol": _PROTOCOL, "worker": _WORKER}, _WORKER_ID)
HELLO = Message("an answer", Hello, {"run_id": _RUN_ID, "config": fields.OBJECT})
KNOWN_STATE = Message("a state", KnownState, {
    "run_id": _RUN_ID,
    "round": _ROUND,
    "params_hash": fields.hex_up_to(64),
    "reference_hash": fields.hex_up_to(64),
    "pending": _ROUND_OR_NONE,
    "pending_hash": fields.hex_up_to(64),
})
REGISTRATION = Message("a registration", Registration, {
    "protocol": _PROTOCOL,
    "worker": _WORKER,
    "instance": fields.text(64),
    "num_samples": fields.integer(1, 2 ** 40),
    "partition_hash": fields.text(64),
    "shapes_hash": fields.text(64),
    "params_hash": fields.text(64),
    "device": fields.may_lack(fields.DEVICE, dict),
    "states": fields.may_lack(fields.listed(KNOWN_STATE, MAX_STATES), tuple),
    "take_over": fields.may_lack(fields.FLAG, bool),
    "quantizer_hash": fields.may_lack(fields.text(64), str, sparse=True),
    "memory_rate": fields.may_lack(fields.number(0.0), lambda: 1.0, sparse=True),
}, _WORKER_ID)
TERMS = Message("a round's terms", RoundTerms,
                {name: _TERM[code] for name, code, _ in frames.BROADCAST})
REGISTERED = Message("an answer", Registered, {
    "run_id": _RUN_ID,
    "session": fields.text(128),
    "round": _ROUND,
    "version": _ROUND,
    "have": _ROUND_OR_NONE,
    "params_hash": fields.hex_digits(16),
    "owes": fields.one_of("nothing", "bid", "upload"),
    "outcome": fields.one_of("", *VERDICTS),
    "reference": fields.one_of("keep", "reset"),
    "reference_hash": _CHAIN,
    "terms": fields.nested(TERMS),
    "constants_hash": fields.may_lack(fields.hex_digits(16), str, sparse=True),
})


def is_question(document: Document) -> bool:
    """Whether the body of a registration has no data."""
    return "shapes_hash" not in document


def claimed_worker(document: Document) -> Any:
    """Whom the body of a registration speaks of, unchecked: anything but the worker of the token is
    refused.
    """
    return document.get(_WORKER_ID["worker"])


# --- the round


def _check_bid(bid: Bid) -> None:
    if bool(bid.options) == bid.skip:
        raise ProtocolError("bad_request", "a bid has options or skips",
                            f"1 to {MAX_OPTIONS} options, or skip", len(bid.options))


class Heartbeat(NamedTuple):
    """A sign of life. temperature_c: of the worker's machine in degrees Celsius, None where it has
    none.
    """

    temperature_c: Optional[float]


class Alive(NamedTuple):
    """The answer to a heartbeat. run_state: run, paused or stop; `state` in JSON."""

    run_state: str


class Gone(NamedTuple):
    """The answer to a leave. session_state: left; `state` in JSON."""

    session_state: str = "left"


OPTION = Message(
    "an option", Option,
    {"b": fields.integer(1, 32), "bits": fields.integer(1, 2**50), "gain": fields.number(0.0)})
BID = Message("a bid", Bid, {
    "round": _ROUND,
    "skip": fields.FLAG,
    "loss": fields.or_null(fields.number()),
    "residual_norm": fields.number(0.0),
    "reason": fields.may_lack(fields.text(32), str, sparse=True),
    "options": fields.may_lack(fields.listed(OPTION, MAX_OPTIONS), tuple, sparse=True),
}, check=_check_bid)
"""The worker is known by its session: BID.parse(document, worker=3)."""
OUTCOME = Message("an outcome", Outcome, {
    "round": _ROUND,
    "verdict": fields.one_of(*VERDICTS),
    "option": fields.integer(0, 32),
    "reference_hash": _CHAIN,
}, {"verdict": "state"})
HEARTBEAT = Message("a heartbeat", Heartbeat, {"temperature_c": fields.or_null(fields.number())})
ALIVE = Message("an answer", Alive, {"run_state": fields.one_of("run", "paused", "stop")},
                {"run_state": "state"})
GONE = Message("an answer", Gone, {"session_state": fields.one_of("left")},
               {"session_state": "state"})


# --- operators


class Changed(NamedTuple):
    """The answer to a change of the configuration. changed: by path, the old and the new value."""

    effective_round: int
    changed: Dict[str, Dict[str, Any]]


class WhoIs(NamedTuple):
    """Whose token came. role: operator or viewer. name: `owner` for the secret itself."""

    role: str
    name: str


class Steered(NamedTuple):
    """The answer to a pause or a resume: paused or running."""

    status: str


class Stopped(NamedTuple):
    """The answer to a stop. results: the run's directory."""

    results_saved: bool
    results: str
    status: str = "stopped"


class WorkerRemoved(NamedTuple):
    """The answer to a removal."""

    worker: int
    status: str = "removed"


def parse_changes(document: Document) -> Dict[str, Any]:
    """The body of a change of the configuration, section.key or unique names and nested sections ->
    values by name.
    """
    changes: Dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            changes.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            changes[name] = value
    return changes


CHANGED = Message("an answer", Changed, {"effective_round": _ROUND, "changed": fields.OBJECT})
CALLER = Message("an answer", WhoIs,
                 {"role": fields.one_of("operator", "viewer"), "name": fields.text(32)})
STEERED = Message("an answer", Steered, {"status": fields.one_of("paused", "running")})
STOPPED = Message("an answer", Stopped, {
    "status": fields.one_of("stopped"),
    "results_saved": fields.FLAG,
    "results": fields.text(4096),
})
WORKER_REMOVED = Message("an answer", WorkerRemoved,
                         {"status": fields.one_of("removed"), "worker": _WORKER})
