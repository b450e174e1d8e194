"""The JSON messages of workers and operators: parsed once, strictly, into records (protocol.md 1)."""

import json
import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from flq.errors import ProtocolError
from flq.records import Bid, Option, Outcome

MAX_DEPTH = 8
MAX_OPTIONS = 16
MAX_DEVICE_BYTES = 4096
MAX_DEVICE_LIST = 16
MAX_DEVICE_TEXT = 200
MAX_STATES = 4


class KnownState(NamedTuple):
    """A state that a worker holds from an earlier registration.

    round: version of the model held, params_hash: of that model. reference_hash: the chain. pending: the
    round of an unsettled proposal, -1 for none; pending_hash: the chain if that proposal was accepted.
    """

    run_id: str
    round: int
    params_hash: str
    reference_hash: str
    pending: int
    pending_hash: str


class Registration(NamedTuple):
    """What a worker says of itself. params_hash: of the initial model it drew, '' when it drew none.

    quantizer_hash: of the source of a user's own quantiser (modes.own_hash), '' for a mode of FLQ.
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


def parse_json(data: bytes) -> Dict[str, Any]:
    """Bytes -> one JSON object. Raises ProtocolError bad_json."""
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant) if data else {}
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad_json", "the body is not valid JSON", "one JSON object", str(error)[:200])
    if not isinstance(document, dict):
        raise ProtocolError("bad_json", "the body is not a JSON object", "an object", type(document).__name__)
    level: List[Any] = [document]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ProtocolError("bad_json", "the JSON is nested too deeply", "at most {} levels".format(MAX_DEPTH))
        level = [item for value in level for item in (value.values() if isinstance(value, dict) else value)
                 if isinstance(item, (dict, list))]
    return document


def to_json(document: Dict[str, Any]) -> bytes:
    """Compact JSON; a number that is not finite becomes null."""
    return json.dumps(_finite(document), separators=(",", ":")).encode("utf-8")


def parse_registration(document: Dict[str, Any]) -> Registration:
    states = _field(document, "states", list, default=[])
    if len(states) > MAX_STATES:
        raise ProtocolError("bad_request", "too many states", "at most {}".format(MAX_STATES), len(states))
    return Registration(
        _integer(document, "protocol", 0, 2 ** 16), _integer(document, "worker_id", 0, 65535), _text(document, "instance", 64),
        _integer(document, "num_samples", 1, 2 ** 40), _text(document, "partition_hash", 64),
        _text(document, "shapes_hash", 64), _text(document, "params_hash", 64), _device(document),
        tuple(_known_state(item) for item in states), _field(document, "take_over", bool, default=False),
        _text(document, "quantizer_hash", 64, default=""))


def parse_bid(document: Dict[str, Any], worker: int) -> Bid:
    skip = _field(document, "skip", bool)
    items = _field(document, "options", list, default=[])
    if len(items) > MAX_OPTIONS or bool(items) == skip:
        raise ProtocolError("bad_request", "a bid has options or skips", "1 to {} options, or skip".format(MAX_OPTIONS), len(items))
    options = tuple(_option(item) for item in items)
    return Bid(worker, _integer(document, "round", 0, 2 ** 32 - 1), skip, _text(document, "reason", 32, default=""), options,
               _number(document, "loss", low=None, null=True), _number(document, "residual_norm", low=0.0))


def bid_to_json(bid: Bid) -> Dict[str, Any]:
    document = {"round": bid.round, "skip": bid.skip, "loss": bid.loss, "residual_norm": bid.residual_norm}
    if bid.skip:
        return dict(document, reason=bid.reason)
    return dict(document, options=[option._asdict() for option in bid.options])


def parse_outcome(document: Dict[str, Any]) -> Outcome:
    return Outcome(_integer(document, "round", 0, 2 ** 32 - 1), _text(document, "state", 16),
                   _integer(document, "option", 0, 32), _text(document, "reference_hash", 64))


def parse_heartbeat(document: Dict[str, Any]) -> Optional[float]:
    """Degrees Celsius, or None."""
    return _number(document, "temperature_c", low=None, null=True)


def _device(document: Dict[str, Any]) -> Dict[str, Any]:
    """The device report: flat, so that it is a row of a table wherever it is shown."""
    device = _field(document, "device", dict, default={})
    if len(json.dumps(device)) > MAX_DEVICE_BYTES:
        raise ProtocolError("bad_request", "the device report is too long", "at most {} bytes".format(MAX_DEVICE_BYTES))
    for name, value in device.items():
        items = value if isinstance(value, list) else [value]
        if not _is_printable(name, 64) or len(items) > MAX_DEVICE_LIST or not all(_is_plain(item) for item in items):
            raise ProtocolError("bad_request", "the device report has a value that it cannot have",
                                "printable text of at most {} characters, a finite number, true, false, null, or a list of at most {} "
                                "of these".format(MAX_DEVICE_TEXT, MAX_DEVICE_LIST), "{}: {}".format(_short(name), _short(value)))
    return device


def _is_plain(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool) or _is_integer(value) and abs(value) <= 2 ** 53 or _is_printable(value, MAX_DEVICE_TEXT)


def _is_printable(value: Any, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and value.isprintable()


def _known_state(item: Any) -> KnownState:
    if not isinstance(item, dict):
        raise ProtocolError("bad_request", "a state is not an object", "an object", type(item).__name__)
    return KnownState(_text(item, "run_id", 128), _integer(item, "round", 0, 2 ** 32 - 1), _hex(item, "params_hash"),
                      _hex(item, "reference_hash"), _integer(item, "pending", -1, 2 ** 32 - 1), _hex(item, "pending_hash"))


def _option(item: Any) -> Option:
    if not isinstance(item, dict):
        raise ProtocolError("bad_request", "an option is not an object", "an object", type(item).__name__)
    return Option(_integer(item, "b", 1, 32), _integer(item, "bits", 1, 2 ** 50), _number(item, "gain", low=0.0) or 0.0)


def _field(document: Dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = document.get(name, default)
    if not isinstance(value, kind):
        raise ProtocolError("bad_request", "{} is missing or of another type".format(name), kind.__name__, _short(value))
    return value


def _integer(document: Dict[str, Any], name: str, low: int, high: int) -> int:
    value: Any = document.get(name)
    if not _is_integer(value) or not low <= value <= high:
        raise _bad_value(name, "an integer from {} to {}".format(low, high), value)
    return value


def _number(document: Dict[str, Any], name: str, low: Optional[float], null: bool = False) -> Any:
    value: Any = document.get(name)
    if value is None and null:
        return None
    number = isinstance(value, float) and math.isfinite(value) or _is_integer(value) and abs(value) <= 2 ** 53
    if not number or (low is not None and value < low):
        raise _bad_value(name, "a finite number" + ("" if low is None else " of at least {}".format(low)), value)
    return float(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(document: Dict[str, Any], name: str, longest: int, default: Optional[str] = None) -> str:
    value: Any = document.get(name, default)
    if not _is_printable(value, longest):
        raise _bad_value(name, "printable text of at most {} characters".format(longest), value)
    return value


def _hex(document: Dict[str, Any], name: str) -> str:
    text = _text(document, name, 64)
    try:
        bytes.fromhex(text)
    except ValueError:
        raise _bad_value(name, "hex digits", text)
    return text


def _bad_value(name: str, expected: str, value: Any) -> ProtocolError:
    return ProtocolError("bad_request", "{} cannot take this value".format(name), expected, _short(value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError("{} is not JSON".format(name))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
