"""From the broadcast model that a worker holds to the next one, frame by frame (protocol.md 2)."""

import collections
import functools
import math
import threading
from typing import Deque, NamedTuple, Optional, Tuple

import numpy as np

from flq.algorithm import downlink, uplink
from flq.compression import codec
from flq.errors import FrameError, ProtocolError
from flq.kernels import largest_magnitude
from flq.learning.interface import Learner
from flq.parameters import params_hash
from flq.protocol import frames
from flq.protocol.frames import Expected, Frame
from flq.settings import Config


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
    if not math.isfinite(largest_magnitude(params)):
        raise FrameError("bad_value", "the broadcast stands for a model that is not finite",
                         "finite float32 values", "inf or nan")
    digest = params_hash(params, frame.non_trainable)
    if digest != frame.header.params_hash:
        raise KeyframeNeeded("the broadcast model has another hash than the master's")
    return Held(frame.header.round, params, frame.non_trainable, digest, activity), frame, rest


class SharedModels(object):
    """The broadcast models that the workers of a process hold: each one once, however many hold it.

    Workers of a process hold the same model most of the time and are sent the same frames. Who
    starts from the same arrays and is sent the same bytes gets the same arrays, without computing
    and hashing them again; nobody changes them. num_workers: how many workers share them; of one
    worker alone nothing is kept.
    """

    def __init__(self, learner: Learner, config: Config, run_id: str,
                 num_workers: int = 1) -> None:
        settings, layout = uplink.settings_from(config, learner.layout), learner.layout
        self._expected = Expected(run_id, layout, settings.sizes, settings.quantizer)
        self._learner = learner
        self._first_activity = functools.partial(downlink.initial_activity,
                                                 downlink.settings_from(config, layout))
        self._first: Optional[Held] = None
        self._is_shared = num_workers > 1
        self._lock = threading.Lock()
        # As many as they hold while they go on to the next one; the number of cohorts alone is the
        # master's word, and its workers would keep as many models.
        most = min(config.system.cohorts, num_workers) + 1 if self._is_shared else 0
        self._held: Deque[Held] = collections.deque(maxlen=most)
        # What was held, the bytes that came, and what `receive` made of them.
        self._made: Deque[Tuple[Held, bytes, Tuple[Held, Frame, bytes]]] = collections.deque(
            maxlen=most)

    @property
    def first(self) -> Held:
        """Version 0, -1 where the master has to send it; asked for when a worker starts."""
        with self._lock:
            if self._first is not None:
                return self._first
            params, non_trainable = self._learner.initial()
            first = Held(0 if self._learner.builtin_model else -1, params, non_trainable,
                         params_hash(params, non_trainable), self._first_activity())
            self._held.append(first)
            self._first = first if self._is_shared else None
            return first

    def same(self, held: Held) -> Held:
        """The model as others hold it already, else as it is: for one that was read from a file."""
        with self._lock:
            for known in self._held:
                if (known.version, known.params_hash) == (held.version, held.params_hash) and (
                        _is_equal(known.activity, held.activity)):
                    return known
            self._held.append(held)
        return held

    def receive(self, data: bytes, held: Held) -> Tuple[Held, Frame, bytes]:
        """As the function of that name; the first who asks computes, and the others wait for it."""
        with self._lock:
            for before, came, made in self._made:
                if before.params is held.params and before.activity is held.activity and (
                        before.version == held.version and came == data):
                    return made
            made = receive(data, held, self._expected)
            self._made.append((held, data, made))
            self._held.append(made[0])
            return made


def _is_equal(first: Optional[np.ndarray], second: Optional[np.ndarray]) -> bool:
    return first is second or (first is not None and second is not None
                               and np.array_equal(first, second))
