"""What the fields of a JSON message can be: the type that protocol.md names, its check, and how it
is written.

A field whose value cannot be is refused by name (bad_request), whoever sent it: a master reads a
worker as strictly as a worker reads its master.
"""

import json
import math
from typing import Any, Callable, Dict, Generic, List, NamedTuple, Optional, Tuple, TypeVar

from flq.errors import ProtocolError

MAX_DEVICE_BYTES = 4096
MAX_DEVICE_LIST = 16
MAX_DEVICE_TEXT = 200

Document = Dict[str, Any]
Record = TypeVar("Record")


def _unchanged(value: Any) -> Any:
    return value


class Kind(NamedTuple):
    """What one field can be.

    what: its type, in the words of protocol.md. read(value, name): JSON value -> the record's,
    checked. write: the way back. missing(): the record's value where the field is left out; None
    where it must not be. sparse: such a value is not written.
    """

    what: str
    read: Callable[[Any, str], Any]
    write: Callable[[Any], Any] = _unchanged
    missing: Optional[Callable[[], Any]] = None
    sparse: bool = False


class Message(Generic[Record]):
    """The one declaration of a JSON message: its record, and for each field, in the order in which
    it is written, what it can be.

    title: what an error calls it. renamed: fields that have another name in JSON. check(record):
    refuses what its fields say only together.
    """

    def __init__(self, title: str, record: Callable[..., Record], kinds: Dict[str, Kind],
                 renamed: Optional[Dict[str, str]] = None,
                 check: Optional[Callable[[Record], None]] = None) -> None:
        self.title = title
        self.kinds = kinds
        self._record, self._check = record, check
        self._names = {field: (renamed or {}).get(field, field) for field in kinds}

    @property
    def fields(self) -> List[Tuple[str, str]]:
        """(name, type) of each field, as protocol.md lists them."""
        return [(self._names[field], kind.what) for field, kind in self.kinds.items()]

    def parse(self, document: Document, **known: Any) -> Record:
        """A JSON object -> the record. known: its fields that do not travel.

        Raises ProtocolError bad_request.
        """
        values = dict(known)
        for field, kind in self.kinds.items():
            name = self._names[field]
            left_out = name not in document and kind.missing is not None
            values[field] = kind.missing() if left_out and kind.missing is not None else kind.read(
                document.get(name), name)
        record = self._record(**values)
        if self._check is not None:
            self._check(record)
        return record

    def to_json(self, record: Record) -> Document:
        """The record -> a JSON object."""
        document = {}
        for field, kind in self.kinds.items():
            value = getattr(record, field)
            if not (kind.sparse and kind.missing is not None and value == kind.missing()):
                document[self._names[field]] = kind.write(value)
        return document


def integer(low: int, high: int) -> Kind:
    def read(value: Any, name: str) -> int:
        if not _is_integer(value) or not low <= value <= high:
            raise _bad_value(name, f"an integer from {low} to {high}", value)
        return int(value)
    return Kind("integer", read)


def number(low: Optional[float] = None) -> Kind:
    """A finite number."""
    def read(value: Any, name: str) -> float:
        finite = isinstance(
            value, float) and math.isfinite(value) or _is_integer(value) and abs(value) <= 2**53
        if not finite or (low is not None and value < low):
            raise _bad_value(name,
                             "a finite number" + ("" if low is None else f" of at least {low}"),
                             value)
        return float(value)
    return Kind("number", read)


def text(longest: int) -> Kind:
    """Printable text."""
    def read(value: Any, name: str) -> str:
        if not _is_printable(value, longest):
            raise _bad_value(name, f"printable text of at most {longest} characters", value)
        return str(value)
    return Kind(f"text, at most {longest}", read)


def one_of(*words: str) -> Kind:
    def read(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise _bad_value(name, f"one of {', '.join(words)}", value)
        return value
    return Kind("text", read)


def hex_up_to(longest: int) -> Kind:
    """Hex digits of whole bytes, or none."""
    return Kind(f"hex, at most {longest}", _hex_reader(longest, "hex digits", 0))


def hex_digits(count: int) -> Kind:
    """So many hex digits."""
    return Kind(f"hex, {count} digits", _hex_reader(count, f"{count} hex digits", count))


def _hex_reader(longest: int, expected: str, shortest: int) -> Callable[[Any, str], str]:
    printable = text(longest)

    def read(value: Any, name: str) -> str:
        digits: str = printable.read(value, name)
        try:
            length = 2 * len(bytes.fromhex(digits))
        except ValueError:
            length = -1
        if length < shortest:
            raise _bad_value(name, expected, value)
        return digits
    return read


def of_type(kind: type, what: str) -> Kind:
    def read(value: Any, name: str) -> Any:
        if not isinstance(value, kind):
            raise _bad_type(name, kind, value)
        return value
    return Kind(what, read)


FLAG = of_type(bool, "boolean")
OBJECT = of_type(dict, "object")


def nested(message: Message[Any]) -> Kind:
    """One object that is a message of its own."""
    def read(value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            raise ProtocolError("bad_request", f"{message.title} is not an object", "an object",
                                type(value).__name__)
        return message.parse(value)
    return Kind("object", read, message.to_json)


def listed(message: Message[Any], most: int) -> Kind:
    """A list of such objects; a tuple of records."""
    item = nested(message)

    def read(value: Any, name: str) -> Tuple[Any, ...]:
        if not isinstance(value, list):
            raise _bad_type(name, list, value)
        if len(value) > most:
            raise ProtocolError("bad_request", f"too many {name}", f"at most {most}", len(value))
        return tuple(item.read(one, name) for one in value)

    return Kind(f"list, at most {most}", read,
                lambda records: [item.write(record) for record in records])


def or_null(kind: Kind) -> Kind:
    """None where the field is null or left out."""
    def read(value: Any, name: str) -> Any:
        return None if value is None else kind.read(value, name)
    return kind._replace(what=kind.what + " or null", read=read)


def may_lack(kind: Kind, missing: Callable[[], Any], sparse: bool = False) -> Kind:
    return kind._replace(missing=missing, sparse=sparse)


def _read_device(value: Any, name: str) -> Document:
    """The device report: flat, so that it is a row of a table wherever it is shown."""
    if not isinstance(value, dict):
        raise _bad_type(name, dict, value)
    if len(json.dumps(value)) > MAX_DEVICE_BYTES:
        raise ProtocolError("bad_request", "the device report is too long",
                            f"at most {MAX_DEVICE_BYTES} bytes")
    for what, told in value.items():
        items = told if isinstance(told, list) else [told]
        if not _is_printable(what, 64) or len(items) > MAX_DEVICE_LIST or not all(
                _is_plain(item) for item in items):
            raise ProtocolError(
                "bad_request", "the device report has a value that it cannot have",
                f"printable text of at most {MAX_DEVICE_TEXT} characters, a finite number, true, "
                f"false, null, or a list of at most {MAX_DEVICE_LIST} "
                "of these", f"{_short(what)}: {_short(told)}")
    return value


DEVICE = Kind(f"object, at most {MAX_DEVICE_BYTES} bytes", _read_device)


def _is_plain(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(
        value, bool) or _is_integer(value) and abs(value) <= 2**53 or _is_printable(
            value, MAX_DEVICE_TEXT)


def _is_printable(value: Any, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and value.isprintable()


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bad_value(name: str, expected: str, value: Any) -> ProtocolError:
    return ProtocolError("bad_request", f"{name} cannot take this value", expected, _short(value))


def _bad_type(name: str, kind: type, value: Any) -> ProtocolError:
    return ProtocolError("bad_request", f"{name} is missing or of another type", kind.__name__,
                         _short(value))


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
