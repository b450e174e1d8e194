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
    """The operator took a worker out of the run."""

    worker: int


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


Event = Union[Join, Leave, Remove, Reset, Absent, Samples, KeyChange, Pause, Resume, DeviceNote]

KINDS: dict[str, type[Event]] = {
    "join": Join, "leave": Leave, "remove": Remove, "reset": Reset, "absent": Absent,
    "samples": Samples, "config": KeyChange, "pause": Pause, "resume": Resume, "device": DeviceNote
}
NAMES = {kind: name for name, kind in KINDS.items()}

DEPARTURES = (Leave, Remove, Reset, Absent)
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
