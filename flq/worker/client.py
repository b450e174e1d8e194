"""What a worker asks of its master, whatever is in between: HTTP, or nothing at all in a
simulation.
"""

import abc
from typing import Optional

from flq.protocol.messages import Registered, Registration
from flq.records import Bid, HeldModel, Outcome


class MasterClient(abc.ABC):
    """One worker's way to its master. Not shared between threads: each worker has its own.

    Every method that asks raises ProtocolError for a refusal, with the worker's action in its kind,
    and for an answer that no master gives; and UnreachableError when no usable answer came. Both
    leave it to the caller to try again. wait_s: for how many seconds the master may keep the answer
    back until there is news. held: with it the outcome comes when its round is stored, or an upload
    is granted, and with the frames that lead from there to the open round's model, where that waits
    for this worker.
    """

    @abc.abstractmethod
    def authorize(self, credential: str) -> None:
        """What the requests from now on carry: the worker's token before its registration, its
        session afterwards. Asks nothing.
        """

    @abc.abstractmethod
    def register(self, registration: Registration) -> Registered:
        """Take part in the run, or come back to it. The credential is the worker's token."""

    @abc.abstractmethod
    def fetch_model(self, held: HeldModel, wait_s: float) -> Optional[bytes]:
        """The frames that lead from the model held to the open round's, oldest first; None when the
        round waited for no answer of this worker within wait_s."""

    @abc.abstractmethod
    def fetch_constants(self) -> bytes:
        """The values of the model's frozen layers, little-endian float32."""

    @abc.abstractmethod
    def bid(self, bid: Bid, wait_s: float, held: Optional[HeldModel] = None) -> Outcome:
        """Offer an upload or say that there is none; the outcome is open when there was no verdict
        within wait_s.
        """

    @abc.abstractmethod
    def upload(self, frame: bytes, wait_s: float, held: Optional[HeldModel] = None) -> Outcome:
        """Send an upload frame; the outcome is open when its round was not stored within wait_s."""

    @abc.abstractmethod
    def outcome(self, round_: int, wait_s: float, held: Optional[HeldModel] = None) -> Outcome:
        """What became of this worker's answer to that round."""

    @abc.abstractmethod
    def heartbeat(self, temperature_c: Optional[float]) -> str:
        """A sign of life of a worker that trains, with its machine's temperature in degrees
        Celsius; answers run, paused or stop.
        """

    @abc.abstractmethod
    def leave(self) -> None:
        """Say goodbye: the session has ended."""

    @abc.abstractmethod
    def close(self) -> None:
        """Nothing is asked any more. Raises nothing."""
