"""What a worker proposes and what becomes of it: one memory (memories.py), commit after the verdict
(algorithm.md 2).

Both futures are computed with the proposal, so that whatever the verdict is, settling is a choice.

With `entropy_coding: context` a worker and the master keep a history of what the worker committed
since its reference was 0, the activity of each weight (compression/contexts.py), beside which the
levels are coded. It is a function of the payloads that the chain hashes, whatever the memory.
"""

import hashlib
import math
from typing import NamedTuple, Optional, Tuple

import numpy as np

from flq.algorithm import memories
from flq.algorithm.lazy import NEVER_COMMITTED, LazyTerms, should_skip
from flq.algorithm.memories import Memory
from flq.compression import codec, configured, contexts, payload
from flq.compression.codec import Body
from flq.compression.quantizer import Draw, Quantizer
from flq.errors import DataError
from flq.kernels import squared_distance, squared_norm
from flq.modes import CONTEXT, NEVER, mode_of
from flq.parameters import Layout
from flq.records import Bid, LocalResult, Option
from flq.settings import Config


class UplinkSettings(NamedTuple):
    """The part of the configuration that an uplink needs. sizes: of the tensors that share a scale.
    keeps_history: whether levels are coded beside the history of the worker's uploads.
    """

    quantizer: Quantizer
    memory: Memory
    entropy_coding: bool
    sizes: Tuple[int, ...]
    keeps_history: bool = False


class UplinkState(NamedTuple):
    """What a worker keeps between rounds.

    memory: g float64[p], of which h = a g (reference), e float32[p] (residual), None for none.
    reference_hash: the chain r. clock: rounds since the last commit. last_error2: ||d - c||^2 of
    the last commit. bits: b in use. activity: of the uploads that the chain hashes, uint8[p], None
    where no history is kept.
    """

    memory: Optional[np.ndarray]
    reference_hash: bytes
    clock: int
    last_error2: float
    bits: int
    activity: Optional[np.ndarray] = None


class Proposal(NamedTuple):
    """A worker's answer to one round, with both futures.

    body is None when the worker is silent; reason then says why (lazy or nonfinite). gain is
    Memory.gain, before the worker's weight.
    """

    round: int
    reason: str
    bits: int
    body: Optional[Body]
    non_trainable: np.ndarray
    gain: float
    residual_norm: float
    loss: float
    committed: UplinkState
    kept: UplinkState

    @property
    def skip(self) -> bool:
        return self.body is None

    def bid(self, worker: int) -> Bid:
        """What is said of it before it travels: the one upload that it offers, or the silence."""
        options: Tuple[Option, ...] = ()
        if self.body is not None:
            size = payload.num_bits(len(self.body.data), self.non_trainable.size)
            options = (Option(self.bits, size, self.gain),)
        return Bid(worker, self.round, self.skip, self.reason, options, self.loss,
                   self.residual_norm)


def settings_from(config: Config, layout: Layout) -> UplinkSettings:
    """The uplink of a configuration and a model.

    Raises DataError for a model without trainable parameters.
    """
    if layout.num_params == 0:
        raise DataError("the model has no trainable parameters", "at least one", 0)
    algorithm = config.flq_algorithm
    sizes = (layout.num_params,) if algorithm.radius == "vector" else layout.sizes
    quantizer = configured(algorithm.mode, algorithm)
    asked = algorithm.entropy_coding
    return UplinkSettings(quantizer, memories.configured(algorithm),
                          quantizer.mode.is_coded(bool(asked)), sizes,
                          side_information_bytes(config, layout) > 0)


def wants_history(config: Config) -> bool:
    """Whether levels are to be coded beside histories, where the master has the memory for them."""
    algorithm = config.flq_algorithm
    return algorithm.entropy_coding == CONTEXT and mode_of(algorithm.mode).coding != NEVER


def side_information_bytes(config: Config, layout: Layout) -> int:
    """What the histories of all workers take at the master; 0 where none are kept, because nobody
    wants them or that would be more than master_side_information_mb.
    """
    wanted = config.system.total_workers * layout.num_params if wants_history(config) else 0
    return wanted if wanted <= config.system.master_side_information_mb << 20 else 0


def history(settings: UplinkSettings, activity: Optional[np.ndarray]) -> Optional[np.ndarray]:
    """What a worker's levels are coded beside, uint8[p], None where no history is kept. activity:
    that of its account, None before its first commit.
    """
    if settings.keeps_history and activity is None:
        return contexts.initial_activity(sum(settings.sizes))
    return activity


def first_reference_hash(run_id: str, worker: int, epoch: int) -> bytes:
    """r_0 = SHA-256(run, worker, epoch). A new epoch starts when a reference is reset to 0."""
    return hashlib.sha256(f"{run_id}/{worker}/{epoch}".encode("utf-8")).digest()


def next_reference_hash(reference_hash: bytes, frame_payload: bytes) -> bytes:
    """r <- SHA-256(r || payload): equal chains prove equal references without holding any."""
    return hashlib.sha256(reference_hash + frame_payload).digest()


def initial_state(settings: UplinkSettings, num_params: int, bits: int,
                  reference_hash: bytes) -> UplinkState:
    """h or e = 0, nothing committed."""
    return UplinkState(settings.memory.initial(num_params), reference_hash, NEVER_COMMITTED, 0.0,
                       bits, history(settings, None))


def propose(uplink: UplinkState, result: LocalResult, round_: int, settings: UplinkSettings,
            lazy: LazyTerms, draw: Draw) -> Proposal:
    """Quantise one update, decide whether it is worth sending, and compute both futures."""
    memory = settings.memory
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is caught as non-finite
        d, norm2 = memory.difference(result.update, uplink.memory)
    kept = uplink._replace(clock=min(uplink.clock + 1, NEVER_COMMITTED))
    finite = math.isfinite(norm2) and np.isfinite(
        result.non_trainable).all() and math.isfinite(result.loss)
    if not finite:
        return _silent(round_, "nonfinite", uplink, result, 0.0, kept)

    encoded = codec.encode(settings.quantizer, d, settings.sizes, uplink.bits, draw,
                           uplink.activity)
    c = codec.decode(encoded, settings.sizes)
    error2 = squared_distance(d, c)
    bits = uplink.bits
    coarse = settings.quantizer.mode.adds_bits and error2 > 0.5 * norm2
    if coarse and bits < settings.quantizer.max_bits:
        bits += 1
    kept = kept._replace(bits=bits, memory=memory.keep(uplink.memory, d))

    if lazy.thr_scale > 0 and should_skip(lazy, round_, uplink.clock, squared_norm(c), error2,
                                          uplink.last_error2):
        return _silent(round_, "lazy", uplink, result, math.sqrt(error2), kept)

    after, fits = memory.commit(kept.memory, c)
    if not fits:
        return _silent(round_, "nonfinite", uplink, result, 0.0, kept)
    body = codec.to_body(encoded, settings.entropy_coding, uplink.activity)
    chain = next_reference_hash(uplink.reference_hash,
                                payload.pack(body.data, result.non_trainable))
    committed = UplinkState(after, chain, 0, error2, bits,
                            codec.next_activity(uplink.activity, encoded))
    return Proposal(round_, "", uplink.bits, body, result.non_trainable, memory.gain(norm2, error2),
                    math.sqrt(error2), result.loss, committed, kept)


def commit(settings: UplinkSettings, kept: UplinkState, body: Body,
           bits: int) -> Tuple[Optional[np.ndarray], Optional[np.ndarray]]:
    """The memory and the activity after a commit, from the state that is kept otherwise."""
    if kept.memory is None and kept.activity is None:
        return None, None
    encoded = codec.from_body(body, settings.quantizer, bits, settings.sizes, kept.activity)
    memory = kept.memory
    if memory is not None:
        memory, _ = settings.memory.commit(memory, codec.decode(encoded, settings.sizes))
    return memory, codec.next_activity(kept.activity, encoded)


def settle(proposal: Proposal, accepted: bool) -> UplinkState:
    """The future that the round record chose.

    Silent, refused, late and lost are the same: not committed.
    """
    return proposal.committed if accepted else proposal.kept


def _silent(round_: int, reason: str, uplink: UplinkState, result: LocalResult,
            residual_norm: float, kept: UplinkState) -> Proposal:
    return Proposal(round_, reason, uplink.bits, None, result.non_trainable, 0.0, residual_norm,
                    result.loss, kept, kept)
