"""What the master accepts from a worker: pure checks, each refusal with its own name."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flq.algorithm import bounds, memories, uplink
from flq.algorithm.bounds import Measure
from flq.algorithm.model_state import Account, Upload
from flq.algorithm.uplink import UplinkSettings
from flq.compression import codec, payload
from flq.errors import ConfigError, FrameError, ProtocolError
from flq.kernels import squared_norm
from flq.learning.interface import Learner
from flq.modes import own_hash
from flq.parameters import Layout
from flq.protocol import PROTOCOL_VERSION, frames
from flq.protocol.frames import Expected
from flq.protocol.messages import Registration
from flq.records import Bid, Option
from flq.settings import Config

_OTHER_SHARDS = "the worker partitioned the data differently"
_OTHER_NAMES = ("the worker's file has other columns or classes (python -m flq check-data prints "
                "those of a machine)")


@dataclass(frozen=True)
class Received:
    """A checked upload, kept until the open round closes. frame: the bytes as they came. bid.round:
    the open round.

    bid: what the frame says of itself, with one option. The three fields after it, and activity and
    measure, are those of Upload. computed_in: the round whose model it was computed from, an
    earlier one for a late upload.
    """

    bid: Bid
    innovation: np.ndarray
    non_trainable: np.ndarray
    reference_hash: bytes
    nominal_bits: int
    frame: bytes
    computed_in: int
    activity: np.ndarray | None = None
    measure: Measure | None = None

    @property
    def staleness(self) -> int:
        return self.bid.round - self.computed_in

    @property
    def option(self) -> Option:
        return self.bid.options[0]

    @property
    def norm2(self) -> float:
        """||c||^2."""
        return squared_norm(self.innovation) if self.measure is None else self.measure.norm2

    @property
    def upload(self) -> Upload:
        return Upload(self.bid.worker, self.innovation, self.non_trainable, self.reference_hash,
                      self.option.gain, self.activity, self.measure)


def check_registration(registration: Registration, config: Config, learner: Learner,
                       first_hash: bytes) -> None:
    """Both sides must mean the same protocol, model, data and initial weights. first_hash: of
    version 0.

    Raises ProtocolError.
    """
    local = config.dataset.partition == "local"
    initial = first_hash.hex() if learner.builtin_model else ""
    samples = registration.num_samples if local else learner.num_samples(registration.worker)
    for name, what, want, got in (("bad_request", "another version of the protocol",
                                   PROTOCOL_VERSION, registration.protocol),
                                  ("shapes_mismatch", "the worker's model has other shapes",
                                   learner.layout.hash(), registration.shapes_hash),
                                  ("data_mismatch", _OTHER_NAMES if local else _OTHER_SHARDS,
                                   learner.partition_hash, registration.partition_hash),
                                  ("data_mismatch", "the worker's shard has another size", samples,
                                   registration.num_samples),
                                  ("model_mismatch", "the worker drew other initial weights",
                                   initial, registration.params_hash),
                                  ("bad_request", "the worker's memory_rate is another one",
                                   memories.configured(config.flq_algorithm).rate,
                                   registration.memory_rate)):
        if want != got:
            raise ProtocolError(name, what, want, got,
                                "run the same version of FLQ with the same data on both machines")
    if local and samples > config.security.max_samples:
        raise ProtocolError("data_mismatch", "the worker says that it has too many samples",
                            f"at most {config.security.max_samples}", samples,
                            "security.max_samples sets the limit")
    mode, own = config.flq_algorithm.mode, own_hash(config.flq_algorithm.mode)
    if own != registration.quantizer_hash:
        raise ProtocolError("quantizer_mismatch", f"the worker's source of {mode} is another one",
                            own or "none", registration.quantizer_hash or "none",
                            "copy the master's file to the worker's machine")


def check_upload(worker: int, head: frames.Head, data: bytes, base_hash: bytes, account: Account,
                 settings: UplinkSettings, config: Config, expected: Expected,
                 key: bytes | None = None) -> Received:
    """An upload must come from this worker, the model of its round (base_hash) and this reference.
    Only then is its payload read: with the reference it has the history that the account has.

    key: of the run's sketches, with which it is measured. Raises ProtocolError.
    """
    header, terms = head.header, head.terms
    for name, what, want, got in (("bad_frame", "the upload is another worker's", worker,
                                   header.worker), ("bad_frame", "the run uses another quantiser",
                                                    settings.quantizer.wire_id, header.quantizer),
                                  ("bad_frame", "the run uses another size of blocks",
                                   settings.quantizer.block_size,
                                   head.quantizer.block_size),
                                  ("other_base", "the update was computed from another model",
                                   base_hash.hex(), header.params_hash.hex()),
                                  ("other_base", "the update belongs to another reference",
                                   account.reference_hash[:8].hex(), header.reference_hash.hex())):
        if want != got:
            raise ProtocolError(name, what, want, got)
    low = config.flq_algorithm.b_up
    high = settings.quantizer.max_bits if settings.quantizer.mode.adds_bits else low
    if not low <= header.bits <= high:
        raise ProtocolError("bad_frame", "the run uses another number of bits", f"{low} to {high}",
                            header.bits)
    history = uplink.history(settings, account.activity)
    frame = frames.read(head, frames.UPLOAD_KIND, expected._replace(activity=history))
    nominal = payload.nominal_bits(settings.quantizer, header.bits, settings.sizes,
                                   expected.layout.num_non_trainable)
    option = Option(header.bits, frame.body_bits, terms.gain)
    bid = Bid(worker, header.round, False, "", (option,), terms.loss, terms.residual_norm)
    with np.errstate(over="ignore", invalid="ignore"):  # a finite scale times a level may be inf
        innovation = codec.decode(frame.encoded, settings.sizes)
        measure = None if key is None else bounds.measure(key, settings.memory, innovation,
                                                          frame.non_trainable)
    finite = np.isfinite(innovation).all() if measure is None else math.isfinite(measure.norm2)
    if not finite:
        raise FrameError("bad_value", f"a level of worker {worker} stands for no finite value",
                         "finite float32 values", "inf or nan")
    return Received(bid, innovation, frame.non_trainable,
                    uplink.next_reference_hash(account.reference_hash, frame.payload), nominal,
                    data, header.round, codec.next_activity(history, frame.encoded), measure)


def check_bid(bid: Bid, settings: UplinkSettings, layout: Layout) -> None:
    """The size that a bid names must be one that an upload of this run can have.

    Raises ProtocolError.
    """
    for option in bid.options:
        low, high = settings.quantizer.min_bits, settings.quantizer.max_bits
        if not low <= option.b <= high:
            raise ProtocolError("bad_request",
                                f"worker {bid.worker} bids a width that the mode does not have",
                                f"{low} to {high}", option.b)
        smallest, largest = (payload.num_bits(length, layout.num_non_trainable)
                             for length in _lengths(settings, option.b))
        if not smallest <= option.bits <= largest:
            raise ProtocolError("bad_request",
                                f"worker {bid.worker} bids a size that no upload has at "
                                f"b = {option.b}", f"{smallest} to {largest} bits", option.bits)


def _lengths(settings: UplinkSettings, bits: int) -> tuple[int, int]:
    """Smallest and largest number of bytes of an upload's body."""
    low, high = codec.body_length_range(settings.quantizer, bits, settings.sizes, False)
    if (settings.entropy_coding or settings.keeps_history) and bits <= 16:  # float32 never is
        low, _ = codec.body_length_range(settings.quantizer, bits, settings.sizes, True)
    return low, high


def check_grant(received: Received, granted: Option | None) -> None:
    """An upload in two phases must be the option that was granted. Raises ProtocolError."""
    if granted is None:
        raise ProtocolError("not_granted", "this upload was not granted")
    came = received.option
    if (granted.b, granted.bits) != (came.b, came.bits):
        raise ProtocolError("wrong_option", "the upload is not the one that was granted",
                            {"b": granted.b, "bits": granted.bits},
                            {"b": came.b, "bits": came.bits})


def check_budget(config: Config, settings: UplinkSettings, layout: Layout) -> None:
    """Refuse a budget that no upload can ever meet, where the size of an upload is known in
    advance.
    """
    budget, bits = config.budget_selection.up_budget_bits, config.flq_algorithm.b_up
    _, body_length = codec.body_length_range(settings.quantizer, bits, settings.sizes, False)
    smallest = payload.num_bits(body_length, layout.num_non_trainable)
    coded = settings.entropy_coding and bits <= 16  # float32 is never coded
    if budget and not coded and budget < smallest:
        raise ConfigError("budget_selection.up_budget_bits is below one upload of this model",
                          f"at least {smallest}", budget)
