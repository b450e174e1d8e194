"""How long an upload may be, by what the run itself shows (algorithm.md 10).

    size of an upload    max(||c||, ||h + c||): what it adds, and the update that it says it had
    typical              the median size of what was accepted in the last rounds, and of this round
    refused              size > security.max_norm_ratio typical

h + c is at rate 1 the reference that a commit would make, and at a smaller rate the reference lies
between h and h + c; so no reference becomes longer than the bound. The master holds no references:
||h + c|| comes from sketches (sketch.py).
"""

import statistics
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.algorithm import sketch
from flq.algorithm.memories import Memory
from flq.kernels import squared_norm

WINDOW = 10
"""Rounds with accepted uploads that are looked back over."""
FEWEST = 3
"""Sizes that make a median: among fewer one that lies is no outlier."""
KEPT_PART = 0.5
"""Of the largest typical size so far. Updates become short where a run converges, and a newcomer's
first one is as long as all were at first."""
GAIN_RATIO = 4.0
"""Largest gain of a bid, in units of ||c||^2. A quantiser leaves out less than it sends: measured
up to 1.5 (tests/algorithm/test_bounds.py)."""

NORM, STATE, GAIN, WEIGHT, NOT_DELIVERED, EXPELLED = ("norm", "state", "gain", "weight",
                                                      "not_delivered", "expelled")
REASONS = {
    NORM: "the update, or the reference that it would make, is longer than "
          "security.max_norm_ratio times what is typical",
    STATE: "its non-trainable values are longer than security.max_norm_ratio times what is typical",
    GAIN: "its bid promised more than it sent",
    WEIGHT: "its number of samples is above security.max_weight_share of the members'",
    NOT_DELIVERED: "it was granted an upload and did not send it",
    EXPELLED: "it was flagged too often in a row, and no upload of it is taken for a while",
}
"""Why a worker is flagged, by the name that its event has."""
MOST_IN_A_ROW = 3
"""Uploads in a row that are beyond a bound until the worker's reference, which led there, leaves
the average."""


class Measure(NamedTuple):
    """What of an upload is compared. norm2: ||c||^2. sketched: of c, float64[WIDTH], None where the
    memory has no reference. state_norm: of the non-trainable values.
    """

    norm2: float
    sketched: Optional[np.ndarray]
    state_norm: float


class Observed(NamedTuple):
    """What the run has shown so far. key: of its sketches. sketches: of each member's g_m.

    recent, states: the sizes of the accepted uploads and the lengths of their non-trainable values,
    by round, newest first. largest: the largest typical size so far.
    """

    key: bytes
    sketches: Dict[int, np.ndarray]
    recent: Tuple[Tuple[float, ...], ...]
    states: Tuple[Tuple[float, ...], ...]
    largest: float


class Refusal(NamedTuple):
    """An upload that is beyond a bound. reason: one of REASONS."""

    worker: int
    reason: str
    value: float
    limit: float


class Examined(NamedTuple):
    """One upload as the bounds see it. turns: rounds that it may stand for, 1 where what was not
    sent is not kept (memory residual keeps it).
    """

    worker: int
    measure: Measure
    turns: int


def first_observed(key: bytes) -> Observed:
    return Observed(key, {}, (), (), 0.0)


def measure(key: bytes, memory: Memory, innovation: np.ndarray,
            non_trainable: np.ndarray) -> Measure:
    """innovation c float32[p] and non_trainable float32[N]. norm2 is finite where all of c is."""
    if memory.has_reference_sum:
        norm2, sketched = sketch.measured(key, innovation)
    else:
        norm2, sketched = squared_norm(innovation), None
    return Measure(norm2, sketched, squared_norm(non_trainable) ** 0.5)


def size(observed: Observed, memory: Memory, upload: Examined) -> float:
    """max(||c||, ||h + c||), for a turn."""
    norm, sketched = upload.measure.norm2 ** 0.5, upload.measure.sketched
    known = observed.sketches.get(upload.worker)
    if sketched is not None and known is not None:
        norm = max(norm, sketch.length(memory.rate * known + sketched))
    return norm / min(upload.turns, WINDOW)


def refusals(observed: Observed, memory: Memory, uploads: Sequence[Examined], ratio: float,
             floor: Callable[[], float]) -> List[Refusal]:
    """Those whose update or non-trainable values are too long, in worker order. ratio 0: none.

    floor() -> what is typical while fewer than FEWEST sizes are known.
    """
    if not ratio:
        return []
    found = []
    sizes = {item.worker: size(observed, memory, item) for item in uploads}
    limit = ratio * _typical(observed, sizes.values(), floor)
    states = _median(observed.states, [item.measure.state_norm for item in uploads])
    for item in sorted(uploads, key=lambda item: item.worker):
        state = item.measure.state_norm
        if not sizes[item.worker] <= limit:
            found.append(Refusal(item.worker, NORM, sizes[item.worker], limit))
        elif states is not None and state > ratio * max(1.0, states):
            found.append(Refusal(item.worker, STATE, state, ratio * max(1.0, states)))
    return found


def observe(observed: Observed, memory: Memory, accepted: Sequence[Examined]) -> Observed:
    """After a round that accepted these."""
    if not accepted:
        return observed
    sketches = dict(observed.sketches)
    sizes = tuple(size(observed, memory, item) for item in accepted)
    for item in accepted:
        if item.measure.sketched is not None:
            known = sketches.get(item.worker)
            sketches[item.worker] = (item.measure.sketched if known is None else
                                     known + item.measure.sketched)
    recent = ((sizes,) + observed.recent)[:WINDOW]
    states = ((tuple(item.measure.state_norm for item in accepted),) + observed.states)[:WINDOW]
    middle = _median(recent, ())
    return observed._replace(sketches=sketches, recent=recent, states=states,
                             largest=max(observed.largest, 0.0 if middle is None else middle))


def forget(observed: Observed, workers: Iterable[int]) -> Observed:
    """After the references of these workers left the average."""
    gone = set(workers)
    return observed._replace(sketches={
        worker: known for worker, known in observed.sketches.items() if worker not in gone
    })


def too_heavy(weights: Mapping[int, float], share: float) -> List[int]:
    """The workers that alone have more than `share` of all weight, while there are FEWEST."""
    total = sum(weights[worker] for worker in sorted(weights))
    if len(weights) < FEWEST:
        return []
    return [worker for worker in sorted(weights) if weights[worker] > share * total]


def _typical(observed: Observed, current: Iterable[float], floor: Callable[[], float]) -> float:
    middle = _median(observed.recent, list(current))
    return floor() if middle is None else max(middle, KEPT_PART * observed.largest)


def _median(rounds: Sequence[Sequence[float]], current: Sequence[float]) -> Optional[float]:
    values = [value for sizes in rounds for value in sizes] + list(current)
    return statistics.median(values) if len(values) >= FEWEST else None
