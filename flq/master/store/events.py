"""What changes a run at the end of a round besides its answers, each kind declared once: as a
record, and as the store writes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Iterable, NamedTuple, Union


class Order(NamedTuple):
    """Whose order an event carries out, and when it was given. by: NAME@ADDRESS, behind which may
    stand `certificate` and its SHA-256; "" for a program's own. at: seconds since 1970 UTC.
    """

    by: str
    at: float


NOBODY = Order("", 0.0)


@dataclass(frozen=True)
class Join:
    """A worker registered for the first time: it has an account from then on."""

    worker: int
    num_samples: int


@dataclass(frozen=True)
class Leave:
    """A worker said goodbye."""

    worker: int


@dataclass(frozen=True)
class Remove:
    """The operator took a worker out of the run. heals: what is left of the average is summed anew
    from the uploads of the others; older versions subtracted.
    """

    worker: int
    heals: bool = False
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Reset:
    """A worker came back without the reference that the master knows of."""

    worker: int


@dataclass(frozen=True)
class Absent:
    """A member did not answer for system.absent_rounds rounds."""

    worker: int


@dataclass(frozen=True)
class Samples:
    """A worker came back with another number of samples."""

    worker: int
    num_samples: int


@dataclass(frozen=True)
class KeyChange:
    """The operator changed a key of the configuration. key: its path. by: older versions had the
    address alone.
    """

    key: str
    by: str
    old: Any
    new: Any
    at: float = 0.0


@dataclass(frozen=True)
class Pause:
    """The operator paused the run."""

    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Resume:
    """The operator let the run go on."""

    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Stop:
    """The operator asked the run to end with the round that is open."""

    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class DeviceNote:
    """What a worker said of its machine. device: JSON."""

    worker: int
    device: dict[str, Any]


@dataclass(frozen=True)
class Overweight:
    """A member had more than security.max_weight_share of all weight."""

    worker: int


@dataclass(frozen=True)
class Rollback:
    """The operator let the run go on from the model that this round started from."""

    round: int
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Expelled:
    """A member's uploads were beyond a bound too often in a row. until: the first round that may
    take one again.
    """

    worker: int
    until: int


@dataclass(frozen=True)
class Flagged:
    """A worker's answer to that round was not taken. reason: one of bounds.REASONS. value, limit:
    what was too much, and of what.
    """

    worker: int
    round: int
    reason: str
    value: float
    limit: float


Event = Union[Join, Leave, Remove, Reset, Absent, Overweight, Expelled, Samples, KeyChange, Pause,
              Resume, Stop, DeviceNote, Flagged, Rollback]

KINDS: dict[str, type[Event]] = {
    "join": Join, "leave": Leave, "remove": Remove, "reset": Reset, "absent": Absent,
    "overweight": Overweight, "samples": Samples, "config": KeyChange, "pause": Pause,
    "resume": Resume, "stop": Stop, "device": DeviceNote, "flagged": Flagged, "expelled": Expelled,
    "rollback": Rollback
}
NAMES = {kind: name for name, kind in KINDS.items()}

DEPARTURES = (Leave, Remove, Reset, Absent, Overweight, Expelled)
"""With these a member's reference leaves the average."""


def to_row(event: Event) -> tuple[str, str]:
    """The kind of an event, and its fields as JSON; whose order it was is left out where it was
    nobody's.
    """
    detail = asdict(event)
    for field in fields(event):
        if field.name in Order._fields and detail[field.name] == field.default:
            del detail[field.name]
    return NAMES[type(event)], json.dumps(detail)


def from_row(kind: str, detail: str) -> Event:
    """What to_row made. ValueError, KeyError, TypeError: no version of FLQ wrote that."""
    return KINDS[kind](**json.loads(detail))


ORDERS = (Remove, KeyChange, Pause, Resume, Stop, Rollback)
"""What operators do; each of these has `by` and `at`."""


def name_of(event: Event) -> str | None:
    """The name of the operator whose order an event was; None where it was nobody's, or an older
    version wrote its address alone.
    """
    name, at, _ = getattr(event, "by", "").partition("@")
    return name if at else None


def changed_keys(events: Iterable[Event]) -> dict[str, Any]:
    """What operators set: the last value of each key, by path."""
    return {event.key: event.new for event in events if isinstance(event, KeyChange)}
