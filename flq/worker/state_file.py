"""What a worker must still know after it was killed, saved once a round before it bids (protocol.md 4)."""

from typing import NamedTuple, Optional

import numpy as np

from flq.algorithm.uplink import Proposal, UplinkState


class WorkerRecord(NamedTuple):
    """instance: 128 random bits as hex, which prove that a process is this worker's successor.

    version, params, state: the broadcast model held. uplink: h or e with its chain and clock.
    proposal: the unsettled answer to round `proposal.round`, None when everything is settled.
    """

    instance: str
    run_id: str
    version: int
    params: np.ndarray
    state: np.ndarray
    uplink: UplinkState
    proposal: Optional[Proposal]
    two_phase: bool


class InMemory(object):
    """A state that lives as long as its process. Whoever restarts it registers with a new instance."""

    def __init__(self) -> None:
        self._record = None  # type: Optional[WorkerRecord]

    def load(self) -> Optional[WorkerRecord]:
        """The record that was saved last, or None."""
        return self._record

    def save(self, record: WorkerRecord) -> None:
        """Returns when the record would survive."""
        self._record = record
