"""From the broadcast model that a worker holds to the next one, frame by frame (protocol.md 2)."""

from typing import NamedTuple, Optional, Tuple

import numpy as np

from flq.algorithm import downlink
from flq.compression import codec
from flq.errors import FrameError, ProtocolError
from flq.parameters import params_hash
from flq.protocol import frames
from flq.protocol.frames import Expected, Frame


class Held(NamedTuple):
    """The broadcast model that a worker holds, with its hash. activity: of the broadcasts up to its
    version, uint8[p], None where the run keeps no history.
    """

    version: int
    params: np.ndarray
    non_trainable: np.ndarray
    params_hash: bytes
    activity: Optional[np.ndarray]


class KeyframeNeeded(ProtocolError):
    """What is held is not what the master's differences start from."""

    def __init__(self, message: str, expected: Optional[str] = None,
                 got: Optional[str] = None) -> None:
        super().__init__("other_base", message, expected, got)


def receive(data: bytes, held: Held, expected: Expected) -> Tuple[Held, Frame, bytes]:
    """What is held after the first frame of a sequence, that frame, and what follows it.

    Raises KeyframeNeeded, ProtocolError for a difference from another version, FrameError, also for
    a model that is not finite: no master sends one.
    """
    sizes = expected.layout.sizes
    try:
        frame, rest = frames.unpack_first(data, frames.BROADCAST_KIND,
                                          expected._replace(activity=held.activity))
    except FrameError as error:
        if error.reason != "other_history":
            raise
        raise KeyframeNeeded(error.message, error.expected, error.got)
    with np.errstate(over="ignore", invalid="ignore"):  # a finite scale times a level may be inf
        if frame.keyframe:
            params, activity = codec.decode(frame.encoded, sizes), frame.activity
        elif frame.header.base == held.version:
            params = downlink.apply(held.params, frame.encoded, sizes)
            activity = codec.next_activity(held.activity, frame.encoded)
        else:
            raise ProtocolError("other_base", "the broadcast is relative to another version",
                                held.version, frame.header.base)
    if not np.isfinite(params).all():
        raise FrameError("bad_value", "the broadcast stands for a model that is not finite",
                         "finite float32 values", "inf or nan")
    digest = params_hash(params, frame.non_trainable)
    if digest != frame.header.params_hash:
        raise KeyframeNeeded("the broadcast model has another hash than the master's")
    return Held(frame.header.round, params, frame.non_trainable, digest, activity), frame, rest
