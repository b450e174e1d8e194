"""What changes a run at the end of a round besides its answers, each kind declared once: as a
record, and as the store writes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Iterable, Union


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
    """The operator changed a key of the configuration. key: its path. by: the address of who asked
    for it.
    """

    key: str
    by: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Pause:
    """The operator paused the run."""


@dataclass(frozen=True)
class Resume:
    """The operator let the run go on."""


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
              Resume, DeviceNote, Flagged, Rollback]

KINDS: dict[str, type[Event]] = {
    "join": Join, "leave": Leave, "remove": Remove, "reset": Reset, "absent": Absent,
    "overweight": Overweight, "samples": Samples, "config": KeyChange, "pause": Pause,
    "resume": Resume, "device": DeviceNote, "flagged": Flagged, "expelled": Expelled,
    "rollback": Rollback
}
NAMES = {kind: name for name, kind in KINDS.items()}

DEPARTURES = (Leave, Remove, Reset, Absent, Overweight, Expelled)
"""With these a member's reference leaves the average."""


def to_row(event: Event) -> tuple[str, str]:
    """The kind of an event, and its fields as JSON."""
    return NAMES[type(event)], json.dumps(asdict(event))


def from_row(kind: str, detail: str) -> Event:
    """What to_row made. ValueError, KeyError, TypeError: no version of FLQ wrote that."""
    return KINDS[kind](**json.loads(detail))


def changed_keys(events: Iterable[Event]) -> dict[str, Any]:
    """What operators set: the last value of each key, by path."""
    return {event.key: event.new for event in events if isinstance(event, KeyChange)}
