"""The named records that one package hands to the next, with shapes and dtypes beside the fields.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np


class LocalResult(NamedTuple):
    """What one worker's local training gives (learning -> algorithm.uplink).

    update: float32[p], the mean of the gradients on the path (E = 1: the gradient, bit for bit).
    non_trainable: float32[N], the non-trainable values after training. loss: mean loss on the path.
    steps: E, the number of local SGD steps.
    """

    update: np.ndarray
    non_trainable: np.ndarray
    loss: float
    steps: int


class Evaluation(NamedTuple):
    """Accuracy and mean cross-entropy of one model on `samples` test samples."""

    accuracy: float
    loss: float
    samples: int


class Option(NamedTuple):
    """One upload that a worker offers: bits per weight, exact payload bits, and its gain
    max(0, ||d||^2 - ||d - c||^2) before the worker's weight (algorithm.md 5)."""

    b: int
    bits: int
    gain: float


class Bid(NamedTuple):
    """A worker's answer to a round before anything large travels. options is empty when skip is
    set.
    """

    worker: int
    round: int
    skip: bool
    reason: str               # of a skip: lazy or nonfinite, else empty
    options: Tuple[Option, ...]
    loss: Optional[float]     # None where it was not finite
    residual_norm: float


class Outcome(NamedTuple):
    """What became of one worker's answer to one round; /bid, /upload_update and /outcome answer it.

    verdict: open (none yet), granted, accepted, refused, skipped or late; `state` in JSON. option:
    the granted b, else 0. reference_hash: 64 hex digits, the master's chain after this round.
    frames: the broadcast that came with it, for who asked for it; empty where none did.
    """

    round: int
    verdict: str
    option: int
    reference_hash: str
    frames: bytes = b""


class HeldModel(NamedTuple):
    """The broadcast model that a worker says it holds. version: -1 for none. params_hash: of it."""

    version: int
    params_hash: bytes


class WorkerRound(NamedTuple):
    """One worker in one closed round, a row of the per-worker sheet; its fields are the columns.

    state: the verdict on its answer, accepted, refused or skipped, or missing without one
    (RoundRecord.late names those of them that came late). payload_bits: what its upload's body
    measured, 0 when it sent none. staleness: rounds between the one that an accepted upload was
    computed in and this one, 0 unless it came late (late_updates apply). residual_norm: ||d - c||,
    what its quantiser left out; None where it said nothing, and in runs that were stored without
    it.
    """

    round: int
    worker: int
    state: str
    b: int
    payload_bits: int
    gain: float
    loss: Optional[float]
    clock: int
    num_samples: int
    staleness: int = 0
    residual_norm: Optional[float] = None


class RoundRecord(NamedTuple):
    """One closed round, a row of the history. Bits are those of this round alone.

    accuracy, loss: of the model to keep after this round (ModelState.result), None until it was
    tested.
    missing: who the round waited for or left out: everybody of its cohort who ever registered, but
    for who left or was removed. late: of those, whose update came after the round had closed.
    nominal, payload and wire are defined in algorithm.md 6; wire is None where no wire exists
    (simulation).
    """

    round: int
    version: int
    accuracy: Optional[float]
    loss: Optional[float]
    train_loss: Optional[float]
    selected: Tuple[int, ...]
    skipped: Tuple[int, ...]
    refused: Tuple[int, ...]
    missing: Tuple[int, ...]
    late: Tuple[int, ...]
    members: int
    nominal_bits_up: int
    payload_bits_up: int
    wire_bits_up: Optional[int]
    nominal_bits_down: int
    payload_bits_down: int
    wire_bits_down: Optional[int]
    # 32 p times the members whose turn it was: what no compression, no skipping and no budget would
    # send
    float32_bits_up: int
    float32_bits_down: int    # 32 p times the receivers
    round_time_s: float
    server_lr: float
    rho: float
    direction_norm2: float    # ||v||^2 as applied
    history_sum: float        # sent with the next broadcast
    params_hash: str
    closed_at: float          # Unix time
    cohort: int = 0           # whose turn it was; 0 where there is one cohort, and in older runs

    def to_json(self) -> Dict[str, Any]:
        return dict(self._asdict())


class Run(NamedTuple):
    """A finished or stopped run as reports read it: plain JSON values throughout."""

    run_id: str
    config: Dict[str, Dict[str, Any]]
    rounds: List[Dict[str, Any]]         # RoundRecord.to_json() each
    worker_rounds: List[Dict[str, Any]]  # WorkerRound._asdict() each
    summary: Dict[str, Any]
