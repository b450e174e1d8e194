"""The way to a master in the same process: the service's methods, called directly.

Frames and JSON stay what they are.
"""

from __future__ import annotations

import json

from flq.errors import FlqError
from flq.master.service import Service
from flq.protocol import messages
from flq.protocol.fields import Message, Record
from flq.protocol.messages import Alive, Heartbeat, Registered, Registration
from flq.records import Bid, HeldModel, Outcome
from flq.worker.client import MasterClient

LONGEST_WAIT_S = 1.0


class LocalClient(MasterClient):
    """One worker's way to the service of this process. Refusals are the same ProtocolErrors.

    A run that pauses with an error ends here with an FlqError: nobody can correct and resume a
    simulation. longest_wait_s: how long an answer is waited for at most, 0 where it is asked for
    again once there is news.
    """

    def __init__(self, service: Service, worker: int,
                 longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._service, self._worker, self._session = service, worker, ""
        self._longest_wait_s = longest_wait_s

    def authorize(self, credential: str) -> None:
        self._session = credential

    def register(self, registration: Registration) -> Registered:
        return _as_sent(messages.REGISTERED,
                        self._service.register(_as_sent(messages.REGISTRATION, registration)))

    def fetch_model(self, held: HeldModel, wait_s: float) -> bytes | None:
        found: bytes | None = self._service.broadcast(self._session, held, self._wait(wait_s))
        return found

    def fetch_constants(self) -> bytes:
        return self._service.constants(self._session)

    def bid(self, bid: Bid, wait_s: float, held: HeldModel | None = None) -> Outcome:
        sent = json.loads(messages.to_json(messages.BID.to_json(bid)))
        return _outcome(self._service.bid(self._session, sent, self._wait(wait_s), held=held))

    def upload(self, frame: bytes, wait_s: float, held: HeldModel | None = None) -> Outcome:
        return _outcome(self._service.upload(self._session, frame, self._wait(wait_s), held=held))

    def outcome(self, round_: int, wait_s: float, held: HeldModel | None = None) -> Outcome:
        return _outcome(self._service.outcome(self._session, round_, self._wait(wait_s),
                                              held=held))

    def heartbeat(self, temperature_c: float | None) -> str:
        sent = _as_sent(messages.HEARTBEAT, Heartbeat(temperature_c))
        return _as_sent(messages.ALIVE,
                        Alive(self._service.heartbeat(self._session, sent.temperature_c))).run_state

    def leave(self) -> None:
        self._service.leave(self._session)

    def close(self) -> None:
        """There is no connection to close."""

    def _wait(self, wait_s: float) -> float:
        state = self._service.run.state
        if state.paused and state.error:
            raise FlqError(state.error)
        return min(wait_s, self._longest_wait_s)


def _as_sent(message: Message[Record], record: Record) -> Record:
    """A record as it would arrive: through its JSON."""
    return message.parse(json.loads(messages.to_json(message.to_json(record))))


def _outcome(outcome: Outcome) -> Outcome:
    return _as_sent(messages.OUTCOME, outcome)._replace(frames=outcome.frames)
