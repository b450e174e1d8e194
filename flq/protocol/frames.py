"""The one binary message: a fixed header, then scales, levels and non-trainable values (protocol.md
2).

All numbers are little-endian. `COMMON`, `BROADCAST` and `UPLOAD` below declare the header; a change
of any of them, or of the body, is a new `FRAME_VERSION`.

    magic .. payload_length | the kind's own fields | crc32 | payload

crc32 is that of everything but itself. The payload is that of compression/payload.py, whose body in
a keyframe ends with the history of the broadcasts where one is kept (compression/contexts.py).
"""

import hashlib
import math
import struct
import zlib
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from flq.compression import by_wire_id, codec, contexts, payload
from flq.compression.codec import Body, Encoded
from flq.compression.quantizer import Quantizer
from flq.errors import FrameError
from flq.modes import BLOCK_SIZES, WIRE_IDS
from flq.parameters import Layout

MAGIC = b"FLQ1"
FRAME_VERSION = 1
BROADCAST_KIND = 1
UPLOAD_KIND = 2
CODED = 1      # flags: the levels are entropy coded
KEYFRAME = 2   # flags: the payload is the model itself, not a difference
FINAL = 4      # flags: no round opens on this model
HISTORY = 8    # flags: the levels are coded beside the history; of a keyframe: that follows it
MOST_FRAMES = 4096
"""Of one answer: a worker that missed more rounds gets a keyframe."""
BLOCK_SHIFT = 12  # flags: above it stands e where blocks of 2^e weights have scales, else 0

COMMON = (("magic", "4s", "FLQ1"), ("frame_version", "B", "1"), ("kind", "B",
                                                                 "1 broadcast, 2 upload"),
          ("quantizer", "B", "wire id: " + WIRE_IDS), ("bits", "B", "b, the width of a level"),
          ("flags", "H",
           "1 entropy coded, 2 keyframe, 4 final, 8 history; 4096 e: scales of blocks of 2^e "
           "weights"), ("run", "8s", "first 8 bytes of SHA-256 of the run id"),
          ("round", "I",
           "broadcast: the round that this model opens, its version; upload: the round it answers"),
          ("worker", "I", "upload: the worker; broadcast: 0"),
          ("base", "I", "version of the model that the payload is relative to; upload: the round"),
          ("num_params", "Q", "p"), ("num_tensors", "I", "T"), ("num_scales", "I", "S"),
          ("num_state", "I", "N"), ("shapes_hash", "8s", "of the shapes, in order"),
          ("params_hash", "8s",
           "broadcast: of the model at `round`; upload: of the model it was computed from"),
          ("reference_hash", "8s",
           "upload: first 8 bytes of the worker's chain before this upload; broadcast: 0"),
          ("payload_length", "Q", "bytes behind the header"),
          )


class Header(NamedTuple):
    """The common fields of a frame, in the order of `COMMON`."""

    magic: bytes
    frame_version: int
    kind: int
    quantizer: int
    bits: int
    flags: int
    run: bytes
    round: int
    worker: int
    base: int
    num_params: int
    num_tensors: int
    num_scales: int
    num_state: int
    shapes_hash: bytes
    params_hash: bytes
    reference_hash: bytes
    payload_length: int


BROADCAST = (
    ("history_sum", "d", "sum of xi_d ||v||^2 of the lazy rule"),
    ("thr_scale", "d", "threshold of the lazy rule"),
    ("mean_weight", "d", "N / M, the mean weight of a member"),
    ("deadline_s", "d", "duration of a phase, 0 without one"),
    ("max_skips", "I", "C"),
    ("two_phase", "B", "1: bid first, upload when granted"),
)


class RoundTerms(NamedTuple):
    """What a worker must know of a round besides the model, in the order of `BROADCAST`."""

    history_sum: float
    thr_scale: float
    mean_weight: float
    deadline_s: float
    max_skips: int
    two_phase: int


UPLOAD = (
    ("gain", "d", "max(0, ||d||^2 - ||d - c||^2), before the worker's weight"),
    ("loss", "d", "mean training loss on the local path"),
    ("residual_norm", "d", "||d - c||"),
    ("clock", "I", "rounds since the worker's last commit"),
)


class UploadTerms(NamedTuple):
    """The bid that an upload carries, in the order of `UPLOAD`."""

    gain: float
    loss: float
    residual_norm: float
    clock: int


Terms = Union[RoundTerms, UploadTerms]


def _struct(fields: Sequence[Tuple[str, str, str]]) -> struct.Struct:
    return struct.Struct("<" + "".join(code for _, code, _ in fields))


_COMMON = _struct(COMMON)
_KINDS: Dict[int, Tuple[struct.Struct, Any]] = {
    BROADCAST_KIND: (_struct(BROADCAST), RoundTerms), UPLOAD_KIND: (_struct(UPLOAD), UploadTerms)}
_CRC = struct.Struct("<I")


class Expected(NamedTuple):
    """What a receiver knows before it reads: the run and the model. upload_sizes: of the tensors
    that share a scale. upload_quantizer: needed only where it is a user's own. activity: of the
    stream before what is received, the broadcasts up to the version that a worker holds or the
    worker's uploads, uint8[p], None where no history is kept."""

    run_id: str
    layout: Layout
    upload_sizes: Tuple[int, ...]
    upload_quantizer: Optional[Quantizer] = None
    activity: Optional[np.ndarray] = None


class Content(NamedTuple):
    """What a frame carries: a quantised vector of b = `bits`, and the non-trainable values
    float32[N]. activity: of a keyframe, uint8[p], None where no history is kept.
    """

    quantizer: Quantizer
    bits: int
    body: Body
    non_trainable: np.ndarray
    activity: Optional[np.ndarray] = None


class Place(NamedTuple):
    """Where in its run a frame belongs. The fields are those of `COMMON`, and its flags."""

    round: int
    base: int
    params_hash: bytes
    worker: int = 0
    reference_hash: bytes = bytes(8)
    keyframe: bool = False
    final: bool = False


class Head(NamedTuple):
    """What a frame says before its payload is read. terms: RoundTerms of a broadcast, UploadTerms
    of an upload. payload: the bytes behind the header, whose CRC agrees."""

    header: Header
    terms: Any
    quantizer: Quantizer
    payload: bytes

    @property
    def body_bits(self) -> int:
        """Exact payload bits: all that stands behind the header."""
        return 8 * len(self.payload)


class Frame(NamedTuple):
    """One frame, checked.

    terms: RoundTerms of a broadcast, UploadTerms of an upload. non_trainable: float32[N].
    payload: the bytes behind the header, as they travelled. activity: that of a keyframe, uint8[p].
    """

    header: Header
    terms: Any
    encoded: Encoded
    non_trainable: np.ndarray
    payload: bytes
    activity: Optional[np.ndarray] = None

    @property
    def keyframe(self) -> bool:
        return bool(self.header.flags & KEYFRAME)

    @property
    def final(self) -> bool:
        return bool(self.header.flags & FINAL)

    @property
    def body_bits(self) -> int:
        """Exact payload bits: all that stands behind the header."""
        return 8 * len(self.payload)


def run_hash(run_id: str) -> bytes:
    """The 8 bytes that stand for a run in a header."""
    return hashlib.sha256(run_id.encode("utf-8")).digest()[:8]


def header_length(kind: int) -> int:
    """Bytes before the payload."""
    return _COMMON.size + _KINDS[kind][0].size + _CRC.size


def longest_answer(layout: Layout) -> int:
    """Bytes at most of the frames that bring a worker to a model: MOST_FRAMES differences that are
    together smaller than it, or one, or a keyframe.
    """
    body = 5 * layout.num_params + 8 * layout.num_tensors  # at most float32 or 16 bits and scales
    return (MOST_FRAMES * header_length(BROADCAST_KIND) + body + 4 * layout.num_non_trainable +
            contexts.longest_activity(layout.num_params))


def pack(content: Content, place: Place, terms: Terms, expected: Expected) -> bytes:
    """The bytes of one frame: a broadcast with RoundTerms, an upload with UploadTerms."""
    layout = expected.layout
    kind = BROADCAST_KIND if isinstance(terms, RoundTerms) else UPLOAD_KIND
    body, history = content.body.data, content.body.beside_history
    if content.activity is not None:
        body, history = body + contexts.activity_to_bytes(content.activity), True
    data = payload.pack(body, content.non_trainable)
    header = Header(MAGIC, FRAME_VERSION, kind, content.quantizer.wire_id, content.bits,
                    CODED * content.body.coded | KEYFRAME * place.keyframe | FINAL * place.final
                    | HISTORY * history | _block_flags(content.quantizer.block_size),
                    run_hash(expected.run_id), place.round, place.worker, place.base,
                    layout.num_params, layout.num_tensors,
                    codec.num_scales(content.quantizer, _scale_sizes(expected, kind)),
                    layout.num_non_trainable,
                    bytes.fromhex(layout.hash()), place.params_hash, place.reference_hash[:8],
                    len(data))
    head = _COMMON.pack(*header) + _KINDS[kind][0].pack(*terms)
    return head + _CRC.pack(zlib.crc32(data, zlib.crc32(head))) + data


def unpack(data: bytes, kind: int, expected: Expected) -> Frame:
    """Bytes of exactly one frame -> the frame.

    Raises FrameError with the one thing that is wrong.
    """
    return read(unpack_only_head(data, kind, expected), kind, expected)


def unpack_first(data: bytes, kind: int, expected: Expected) -> Tuple[Frame, bytes]:
    """The first frame of a sequence, and what follows it."""
    head, rest = _unpack_first_head(data, kind, expected)
    return read(head, kind, expected), rest


def unpack_only_head(data: bytes, kind: int, expected: Expected) -> Head:
    """Bytes of exactly one frame -> what it says before its payload is read.

    Raises FrameError.
    """
    head, rest = _unpack_first_head(data, kind, expected)
    if rest:
        raise FrameError("frame_long", "bytes behind the frame", "none", len(rest))
    return head


def unpack_head(data: bytes, kind: int, expected: Expected) -> Head:
    """Bytes that begin with a frame -> what it says before its payload is read.

    Raises FrameError.
    """
    return _unpack_first_head(data, kind, expected)[0]


def _unpack_first_head(data: bytes, kind: int, expected: Expected) -> Tuple[Head, bytes]:
    """Every length is computed and compared before anything of that length is made."""
    terms_struct, terms_type = _KINDS[kind]
    start = header_length(kind)
    if len(data) < start:
        raise FrameError("frame_short", "the data ends in the header", f"{start} bytes", len(data))
    header = Header(*_COMMON.unpack_from(data))
    quantizer = _check_header(header, kind, expected)
    sizes = _scale_sizes(expected, kind)
    _check_length(header, quantizer, sizes, expected.layout)
    end = start + header.payload_length
    if len(data) < end:
        raise FrameError("frame_short", "the data ends in the payload", f"{end} bytes", len(data))
    view = memoryview(data)
    carried = bytes(view[start:end])
    crc = zlib.crc32(carried, zlib.crc32(view[:start - _CRC.size]))
    told, = _CRC.unpack_from(data, start - _CRC.size)
    if crc != told:
        raise FrameError("bad_crc", "the frame was damaged on its way", f"{told:08x}", f"{crc:08x}")
    terms = terms_type(*terms_struct.unpack_from(data, _COMMON.size))
    for name, value in terms._asdict().items():
        if isinstance(value, float) and not (math.isfinite(value) and
                                             (name == "loss" or value >= 0)):
            raise FrameError("bad_terms", f"{name} of the header is not usable",
                             "a finite number of at least 0", str(value))
    if kind == BROADCAST_KIND and terms.two_phase > 1:
        raise FrameError("bad_terms", "two_phase of the header is not usable", "0 or 1",
                         terms.two_phase)
    return Head(header, terms, quantizer, carried), bytes(view[end:])


def read(head: Head, kind: int, expected: Expected) -> Frame:
    """The payload, all of it checked. Raises FrameError."""
    header, terms, quantizer, carried = head
    body, non_trainable = payload.unpack(carried, header.num_state)
    if not np.isfinite(non_trainable).all():
        raise FrameError("bad_state", "a non-trainable value is not finite",
                         "finite float32 values", "inf or nan")
    activity, history = None, bool(header.flags & HISTORY)
    keyframe, keeps = bool(header.flags & KEYFRAME), expected.activity is not None
    if history and not keeps or keyframe and keeps and not history:
        raise FrameError("bad_flags", "whether a history is kept is not what the run says",
                         HISTORY * keeps, header.flags & HISTORY)
    if history and keyframe:
        split = 4 * header.num_params
        activity = contexts.activity_from_bytes(body[split:], header.num_params)
        body = body[:split]
    coded = Body(body, bool(header.flags & CODED), history and activity is None)
    encoded = codec.from_body(coded, quantizer, header.bits, _scale_sizes(expected, kind),
                              expected.activity)
    return Frame(header, terms, encoded, non_trainable, carried, activity)


def _scale_sizes(expected: Expected, kind: int) -> Tuple[int, ...]:
    return expected.upload_sizes if kind == UPLOAD_KIND else expected.layout.sizes


def _check_header(header: Header, kind: int, expected: Expected) -> Quantizer:
    layout = expected.layout
    for reason, what, want, got in (("bad_magic", "this is not an FLQ frame", MAGIC, header.magic),
                                    ("bad_version", "another version of the frame format",
                                     FRAME_VERSION, header.frame_version),
                                    ("bad_kind", "a frame of another kind", kind,
                                     header.kind), ("other_run", "the frame belongs to another run",
                                                    run_hash(expected.run_id), header.run),
                                    ("other_shapes", "the frame belongs to a model of other shapes",
                                     bytes.fromhex(layout.hash()), header.shapes_hash),
                                    ("bad_count", "num_params differs from the model's",
                                     layout.num_params, header.num_params),
                                    ("bad_count", "num_tensors differs from the model's",
                                     layout.num_tensors, header.num_tensors),
                                    ("bad_count", "num_state differs from the model's",
                                     layout.num_non_trainable, header.num_state)):
        if want != got:
            raise FrameError(reason, what, _printable(want), _printable(got))
    known = by_wire_id(expected.upload_quantizer if kind == UPLOAD_KIND else None)
    if header.quantizer not in known:
        raise FrameError("bad_quantizer", "unknown quantiser", sorted(known), header.quantizer)
    quantizer = known[header.quantizer]
    allowed = CODED | HISTORY | (KEYFRAME | FINAL if kind == BROADCAST_KIND else 0)
    exponent, flags = divmod(header.flags, 1 << BLOCK_SHIFT)
    if flags & ~allowed:
        raise FrameError("bad_flags", "unknown flags", f"a subset of {allowed}", flags)
    if flags & (CODED | KEYFRAME | HISTORY) == HISTORY:
        raise FrameError("bad_flags", "a history beside levels that are not coded",
                         HISTORY | CODED, flags)
    if not exponent:
        return quantizer
    if quantizer.by_scale is None or 1 << exponent not in BLOCK_SIZES:
        raise FrameError("bad_flags", f"quantiser {quantizer.name} has no such blocks",
                         "none" if quantizer.by_scale is None else
                         f"one of {', '.join(map(str, BLOCK_SIZES))} weights", 1 << exponent)
    return quantizer._replace(block_size=1 << exponent)


def _block_flags(block_size: int) -> int:
    return (block_size.bit_length() - 1) << BLOCK_SHIFT if block_size else 0


def _check_length(header: Header, quantizer: Quantizer, sizes: Tuple[int, ...],
                  layout: Layout) -> None:
    if not quantizer.min_bits <= header.bits <= quantizer.max_bits:
        raise FrameError("bad_bits", f"quantiser {quantizer.name} has no such width",
                         f"{quantizer.min_bits} to {quantizer.max_bits}", header.bits)
    if header.flags & CODED and header.bits > 16:
        raise FrameError("bad_flags", "float32 is never entropy coded", 0, header.flags)
    scales = codec.num_scales(quantizer, sizes)
    if header.num_scales != scales:
        raise FrameError("bad_count", "num_scales differs from what the quantiser has", scales,
                         header.num_scales)
    low, high = codec.body_length_range(quantizer, header.bits, sizes, bool(header.flags & CODED))
    low, high = (payload.num_bytes(length, layout.num_non_trainable) for length in (low, high))
    if header.flags & HISTORY and header.flags & KEYFRAME:
        low, high = low + 1, high + contexts.longest_activity(layout.num_params)
    if not low <= header.payload_length <= high:
        raise FrameError("bad_length", "the payload has another length than its header implies",
                         str(high) if low == high else f"{low} to {high}", header.payload_length)


def _printable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
