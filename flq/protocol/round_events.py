"""What the round machine hears (events) and what it asks for (effects)."""

from typing import Dict, NamedTuple, Optional, Tuple

from flq.records import Bid, Option


class RoundSettings(NamedTuple):
    """What decides the course of a round. deadline_s None: adaptive, at most longest_deadline_s.
    two_phase: bids go before uploads. cohorts: J (algorithm/cohorts.py). start_workers: so many of
    all cohorts must be there before round 0.
    """

    max_rounds: int
    min_workers: int
    total_workers: int
    wait_for_all: bool
    two_phase: bool
    deadline_s: Optional[float]
    worker_timeout_s: float
    longest_deadline_s: float
    cohorts: int = 1
    start_workers: int = 1


class Joined(NamedTuple):
    """A worker registered. fresh: it is a new process without the old one's answers."""

    worker: int
    fresh: bool


class Left(NamedTuple):
    """A worker said goodbye."""

    worker: int


class Removed(NamedTuple):
    """The operator took a worker out."""

    worker: int


class Seen(NamedTuple):
    """A sign of life: the process is there, whatever it does and asks for."""

    worker: int


class LateAnswer(NamedTuple):
    """An answer to a round that is closed: the worker is not stuck, it needed longer."""

    worker: int
    round: int


class BidCame(NamedTuple):
    """A checked bid or skip of the open round."""

    bid: Bid


class UploadCame(NamedTuple):
    """A checked upload of the open round; it carries its bid where there is one phase."""

    bid: Bid


class Selected(NamedTuple):
    """The verdict, answering the effect Select."""

    granted: Dict[int, Option]


class RoundClosed(NamedTuple):
    """The round is stored and adopted, answering the effect Aggregate. two_phase: of the next one,
    as its broadcast says.
    """

    two_phase: bool


class RoundFailed(NamedTuple):
    """The round could not be computed: nothing was committed and the run pauses."""

    message: str


class StoreFull(NamedTuple):
    """The round could not be written: it is tried again."""

    message: str


class Reconfigured(NamedTuple):
    """The operator changed settings; what shapes a round waits for the next one."""

    settings: RoundSettings


class Paused(NamedTuple):
    """The operator wants no further round to close."""


class Resumed(NamedTuple):
    """The operator wants the run to go on."""


class StopAsked(NamedTuple):
    """The operator wants this round to close with what it has, and the run to end."""


class Tick(NamedTuple):
    """Time passed."""


class Select(NamedTuple):
    """Effect: decide among these bids."""

    bids: Tuple[Bid, ...]


class Aggregate(NamedTuple):
    """Effect: close the round with these answers. refused: bids that were not selected or not
    fulfilled.
    """

    round: int
    selected: Tuple[int, ...]
    skipped: Tuple[int, ...]
    refused: Tuple[int, ...]
    missing: Tuple[int, ...]


class Opened(NamedTuple):
    """Effect: a round is open."""

    round: int


class LeftOut(NamedTuple):
    """Effect: no round waits for this worker any more until it answers."""

    worker: int


class Ended(NamedTuple):
    """Effect: the run is over."""

    stopped: bool
