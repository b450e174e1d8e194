"""What a round starts from, what it is told and what it gives: the records of round.py."""

from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np

from flq.algorithm import server_optimizers
from flq.algorithm.averaging import Average
from flq.algorithm.bounds import Measure, Observed
from flq.algorithm.robust import Kept
from flq.compression.codec import Encoded


class Account(NamedTuple):
    """What the master knows of one worker's reference without holding it.

    weight: n_m, its number of samples, or 1 with uniform weighting. epoch: how often its reference
    was reset. reference_hash: the chain r. clock: turns since its last commit. absent: turns
    without an answer. A worker's turns are the rounds of its cohort. activity: of the uploads that
    the chain hashes (uplink.py), uint8[p]; None before the first, and where no history is kept.
    """

    weight: float
    num_samples: int
    epoch: int
    reference_hash: bytes
    clock: int
    member: bool
    absent: int
    activity: Optional[np.ndarray] = None


class Waiting(NamedTuple):
    """What a cohort holds whose turn it is not: theta_hat float32[p], and the activity of its
    broadcasts, uint8[p] or None.
    """

    broadcast: np.ndarray
    activity: Optional[np.ndarray]


class ModelState(NamedTuple):
    """All that the next round depends on.

    params: theta, broadcast: theta_hat of the cohort that plays next, float32[p]. non_trainable:
    the non-trainable values float32[N]. params_hash: of broadcast and non_trainable.
    reference_sum: A / a float64[p], None where the memory has none or robust holds its parts.
    norms: the last D ||v||^2, newest first. activity: of the broadcasts of that cohort up to this
    version, uint8[p], None where no history is kept (downlink.py). waiting: the same of the other
    cohorts, in the order in which they play. average: None where none is kept. observed: by what
    uploads are bounded; None where nobody asks for that. robust: what a rule against bad
    workers needs, None with the mean.
    """

    version: int
    params: np.ndarray
    broadcast: np.ndarray
    non_trainable: np.ndarray
    params_hash: bytes
    optimizer: server_optimizers.OptimizerState
    reference_sum: Optional[np.ndarray]
    norms: Tuple[float, ...]
    accounts: Dict[int, Account]
    activity: Optional[np.ndarray] = None
    waiting: Tuple[Waiting, ...] = ()
    average: Optional[Average] = None
    observed: Optional[Observed] = None
    robust: Optional[Kept] = None

    @property
    def result(self) -> Average:
        """What is tested and kept: the average, or the last broadcast model where there is none."""
        return self.average or Average(self.broadcast, self.non_trainable)

    @property
    def members(self) -> Tuple[int, ...]:
        return tuple(
            sorted(worker for worker, account in self.accounts.items() if account.member))

    @property
    def total_weight(self) -> float:
        """N = sum n_m over members."""
        return sum(self.accounts[worker].weight for worker in self.members)

    @property
    def mean_weight(self) -> float:
        """N / M: a worker's M w_m is its n_m divided by this. 0 while nobody is a member."""
        members = self.members
        return self.total_weight / len(members) if members else 0.0


class Upload(NamedTuple):
    """One selected upload as received: the decoded innovation float32[p], the non-trainable values
    float32[N], the chain after it, and the bid it came with. activity: of the worker's uploads up
    to it, uint8[p], None where no history is kept. measure: None where the model observes nothing.
    """

    worker: int
    innovation: np.ndarray
    non_trainable: np.ndarray
    reference_hash: bytes
    gain: float
    activity: Optional[np.ndarray] = None
    measure: Optional[Measure] = None


class Answers(NamedTuple):
    """How one round was answered. Every participant is in exactly one of the four.

    refused holds (worker, raw gain) of bids that were not selected or not fulfilled.
    """

    uploads: Tuple[Upload, ...]
    skipped: Tuple[int, ...]
    refused: Tuple[Tuple[int, float], ...]
    missing: Tuple[int, ...]


class Departure(NamedTuple):
    """A worker whose reference leaves the average before this round: g_m = h_m / a, or None when it
    had none.

    float64[p]; float32[p] in a run that an older version began, whose rounds must come out as they
    did.
    """

    worker: int
    reference: Optional[np.ndarray]


class Closed(NamedTuple):
    """The new model and what the round's record says about how it came about. encoded: its
    broadcast difference. history: the activity beside which that may be coded, uint8[p], None where
    none is kept.
    """

    model: ModelState
    encoded: Encoded
    history: Optional[np.ndarray]
    rho: float
    server_lr: float
    direction_norm2: float
    history_sum: float
