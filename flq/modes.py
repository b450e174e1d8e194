"""The modes: one row holds all that is a mode's own, and configuration, compression, frames,
scripts and pages take it from here.

The rows are in the order in which people see them. A user's own quantiser brings a row of its own
(own_quantizer).
"""

import collections
import functools
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple

from flq import user_code
from flq.errors import DataError

MEMORIES = ("reference", "residual", "none")
WITH_REFERENCES = ("reference",)
"""Memories with a reference at each worker, of whose sum the master makes v: silence, late updates
and the correction for who was refused need that.
"""
LOWEST_MEMORY_RATE = 1e-3
RADII = TENSOR, VECTOR, BLOCK = "tensor", "vector", "block"
RADII_DOWN = (TENSOR, BLOCK)
OWN_RADII = (TENSOR, VECTOR)
"""What a user's own quantiser can have: its two functions see one scale at a time."""
BLOCK_SIZES = tuple(2**exponent for exponent in range(4, 13))
CODINGS = ALWAYS, ON, OFF, NEVER = "always", "on", "off", "never"
CONTEXT = "context"
"""What entropy_coding and entropy_coding_down can be beside true and false: levels are also coded
beside the history of their stream.
"""


class Aggregation(NamedTuple):
    """A rule that makes one direction of many updates (algorithm.md 11), as the configuration sees
    it. beyond: with f bad workers it needs 2 f + beyond updates.
    """

    name: str
    beyond: int

    def fewest(self, bad_workers: int) -> int:
        """How many updates it needs so that so many bad ones cannot decide; 1 for the mean."""
        return 2 * bad_workers + self.beyond if self.is_robust else 1

    @property
    def is_robust(self) -> bool:
        return self.name != MEAN


MEAN = "mean"
AGGREGATIONS: Dict[str, Aggregation] = collections.OrderedDict(
    (row.name, row) for row in (Aggregation(MEAN, 1), Aggregation("median", 1),
                                Aggregation("trimmed_mean", 1), Aggregation("krum", 3),
                                Aggregation("centered_clipping", 1)))
OWN_WIRE_IDS = (128, 255)
"""The first and the last wire id of users' own quantisers; FLQ's are below."""
OWN_FORM = "package.module:NAME"


class Parameter(NamedTuple):
    """A key of flq_algorithm that only this mode reads; its name with _down behind it is the
    downlink's. Its defaults are numbers, or None, of which null_means says what it does. replaces:
    the parameter that does not count where this one is set.
    """

    name: str
    default: Any
    default_down: Any
    low: float
    high: float
    doc: str
    null_means: Optional[str] = None
    replaces: str = ""


class Mode(NamedTuple):
    """One row: how a mode quantises, what the configuration may set beside it, and what null stands
    for there.

    wire_id: of the quantiser in a frame's header; never used again. bits, memory, radius: the
    defaults, of what min_bits to max_bits, memories and radii allow. coding: whether levels are
    entropy coded; ON and OFF are defaults. down_bits: the default of b_down, None for a mode that
    cannot go down. adds_bits: a worker takes one bit more where the error is large (algorithm.md
    2). memory_rate: the default beside memory reference. fine_from: the smallest b whose errors the
    lazy rule counts (algorithm.md 4). contexts: whether levels are coded beside their history, both
    ways, where nobody says otherwise. code: where the quantiser is, `module:NAME`; modes may share
    one, and a user's own has none.
    """

    name: str
    wire_id: int
    min_bits: int
    max_bits: int
    bits: int
    memory: str = "none"
    memories: Tuple[str, ...] = MEMORIES
    radius: str = TENSOR
    radii: Tuple[str, ...] = (TENSOR,)
    coding: str = ON
    down_bits: Optional[int] = None
    adds_bits: bool = False
    parameters: Tuple[Parameter, ...] = ()
    memory_rate: float = 1.0
    fine_from: Optional[int] = None
    contexts: bool = False
    code: str = ""

    def takes(self, bits: int) -> bool:
        return self.min_bits <= bits <= self.max_bits

    def is_coded(self, asked: bool) -> bool:
        """Whether levels are entropy coded. asked: what the configuration says."""
        return self.coding == ALWAYS or (asked and self.coding != NEVER)

    @property
    def widths(self) -> str:
        return str(self.min_bits
                   ) if self.min_bits == self.max_bits else f"{self.min_bits} to {self.max_bits}"

    @property
    def defaults(self) -> Dict[str, Any]:
        """The keys of flq_algorithm whose null the mode decides. docs/benchmarks.md has the
        measurements behind them.
        """
        return {
            "b_up": self.bits, "memory": self.memory, "radius": self.radius,
            "entropy_coding": CONTEXT if self.contexts else self.coding in (ALWAYS, ON),
            "entropy_coding_down": CONTEXT if self.contexts else True
        }


_LAQ = Mode("laq", code="flq.compression.laq:LAQ", wire_id=1, min_bits=2, max_bits=16, bits=4,
            memory="reference", radii=(TENSOR, VECTOR, BLOCK), down_bits=4, adds_bits=True,
            fine_from=3)
_RD_STEP = Parameter("rd_step", default=2.5, default_down=1.5, low=1e-3, high=1e3,
                     doc="step of the grid, in root mean squares of each tensor; larger is coarser")
_RD_TARGET = Parameter("rd_target_bits", default=None, default_down=None, low=0.01, high=16,
                       doc="coded bits a weight; each step follows from them",
                       null_means="the step counts", replaces="rd_step")

MODES: Dict[str, Mode] = collections.OrderedDict(
    (row.name, row)
    for row in (Mode("fedavg", code="flq.compression.identity:FEDAVG", wire_id=0, min_bits=32,
                     max_bits=32, bits=32, coding=NEVER), _LAQ,
                _LAQ._replace(name="laq8", min_bits=8, max_bits=8, bits=8, down_bits=None),
                Mode("bbit", code="flq.compression.bbit:BBIT", wire_id=2, min_bits=2, max_bits=16,
                     bits=4, memory="residual", radii=(TENSOR, BLOCK), down_bits=3),
                Mode("bin", code="flq.compression.binary:BIN", wire_id=3, min_bits=1, max_bits=1,
                     bits=1, memory="reference", memory_rate=0.1, radii=(TENSOR, BLOCK), coding=OFF,
                     down_bits=1),
                Mode("qsgd", code="flq.compression.qsgd:QSGD", wire_id=4, min_bits=2, max_bits=16,
                     bits=4, memories=("none",), radii=(TENSOR, BLOCK)),
                Mode("rd", code="flq.compression.rate_distortion:RD", wire_id=5, min_bits=2,
                     max_bits=16, bits=8, memory="reference", memory_rate=0.4, radius=VECTOR,
                     radii=(TENSOR, VECTOR), coding=ALWAYS, contexts=True, down_bits=8,
                     parameters=(_RD_STEP, _RD_TARGET)),
                ))

QUANTIZER_ROWS: Dict[str, Mode] = collections.OrderedDict()
"""By code, the rows that the quantisers themselves have: of modes that share one the first."""
for _row in MODES.values():
    QUANTIZER_ROWS.setdefault(_row.code, _row)
DOWNLINKS = tuple(row.name for row in MODES.values() if row.down_bits is not None)
WIRE_IDS = "{}; {} to {} are users' own".format(
    ", ".join(f"{row.wire_id} {row.name}" for row in QUANTIZER_ROWS.values()), *OWN_WIRE_IDS)


def with_radius(radius: str) -> Tuple[str, ...]:
    """The modes that can have it, one name for each quantiser."""
    return tuple(row.name for row in QUANTIZER_ROWS.values() if radius in row.radii)


def mode_of(name: str) -> Mode:
    """The row of a mode, or of a user's own quantiser.

    Raises DataError where that cannot be used.
    """
    if name in MODES:
        return MODES[name]
    return own_quantizer(name).mode


class Own(NamedTuple):
    """A user's own quantiser (compression/quantizer.py), its row, and the hash of its module's
    source.
    """

    quantizer: Any
    mode: Mode
    source_hash: str


@functools.lru_cache(maxsize=None)
def own_quantizer(name: str) -> Own:
    """What `package.module:NAME` names, its row checked.

    It is loaded once in a process, so that what runs is what was hashed. Raises DataError.
    """
    found = user_code.load(name, OWN_FORM)
    row = getattr(found, "mode", None)
    if not isinstance(row, Mode):
        raise DataError(f"{name} is no quantiser", "a Quantizer made from a Mode",
                        type(found).__name__)
    _check_row(name, row)
    return Own(found, row, user_code.source_hash(name))


def own_hash(name: str) -> str:
    """What must be the same on two machines besides a mode's name: 16 hex digits of a user's own,
    '' for a mode of FLQ.
    """
    return "" if name in MODES else own_quantizer(name).source_hash


def _check_row(name: str, row: Mode) -> None:
    for field, good, expected in _facts(row):
        if not good:
            raise DataError(f"{name} cannot be used: {field} of its Mode", expected,
                            repr(getattr(row, field)))


def _facts(row: Mode) -> Iterator[Tuple[str, bool, str]]:
    """What a user's row must be, one field at a time: a later one relies on those before it."""
    yield "name", isinstance(row.name, str), "a text"
    yield "wire_id", _within(row.wire_id,
                             *OWN_WIRE_IDS), "{} to {}; those below are FLQ's".format(*OWN_WIRE_IDS)
    yield "min_bits", _within(row.min_bits, 1, 16), "1 to 16"
    yield "max_bits", _within(row.max_bits, row.min_bits, 16), f"{row.min_bits} to 16"
    yield "bits", _within(row.bits, row.min_bits, row.max_bits), row.widths
    yield "memories", isinstance(row.memories, tuple) and set(
        row.memories) <= set(MEMORIES), "a tuple of " + ", ".join(MEMORIES)
    yield "memory", row.memory in row.memories, "one of its memories"
    yield "radii", isinstance(row.radii, tuple) and set(
        row.radii) <= set(OWN_RADII), "a tuple of " + ", ".join(OWN_RADII)
    yield "radius", row.radius in row.radii, "one of its radii"
    yield "coding", row.coding in CODINGS, ", ".join(CODINGS)
    yield "parameters", row.parameters == (), "none: a quantiser of your own has no keys"
    yield "memory_rate", isinstance(row.memory_rate, (int, float)) and (
        LOWEST_MEMORY_RATE <= row.memory_rate <= 1), f"a number from {LOWEST_MEMORY_RATE} to 1"
    yield "contexts", isinstance(row.contexts, bool), "True or False"


def _within(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and low <= value <= high
