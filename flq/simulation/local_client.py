"""What the worker's HttpClient is over HTTP: the service's methods, called directly. Frames and JSON stay what they are."""

from __future__ import annotations

import json
from typing import Any

from flq.errors import FlqError
from flq.master.service import Service
from flq.protocol import messages

LONGEST_WAIT_S = 1.0


class LocalClient:
    """One worker's way to the service of this process. Refusals are the same ProtocolErrors.

    A run that pauses with an error ends here with an FlqError: nobody can correct and resume a simulation.
    """

    def __init__(self, service: Service, worker: int) -> None:
        self._service, self._worker, self._session = service, worker, ""

    def authorize(self, credential: str) -> None:
        self._session = credential

    def register(self, document: dict[str, Any]) -> dict[str, Any]:
        return self._service.register(messages.parse_registration(_as_sent(document)))

    def fetch_model(self, have: int, params_hash: str, wait_s: float) -> bytes | None:
        return self._service.broadcast(self._session, have, bytes.fromhex(params_hash), self._wait(wait_s))

    def fetch_constants(self) -> bytes:
        return self._service.constants(self._session)

    def bid(self, document: dict[str, Any], wait_s: float) -> dict[str, Any]:
        return self._service.bid(self._session, _as_sent(document), self._wait(wait_s))._asdict()

    def upload(self, frame: bytes, wait_s: float) -> dict[str, Any]:
        return self._service.upload(self._session, frame, self._wait(wait_s))._asdict()

    def outcome(self, round_: int, wait_s: float) -> dict[str, Any]:
        return self._service.outcome(self._session, round_, self._wait(wait_s))._asdict()

    def heartbeat(self, document: dict[str, Any]) -> dict[str, Any]:
        return {"state": self._service.heartbeat(self._session, messages.parse_heartbeat(_as_sent(document)))}

    def leave(self) -> None:
        self._service.leave(self._session)

    def close(self) -> None:
        """There is no connection to close."""

    def _wait(self, wait_s: float) -> float:
        state = self._service.run.state
        if state.paused and state.error:
            raise FlqError(state.error)
        return min(wait_s, LONGEST_WAIT_S)


def _as_sent(document: dict[str, Any]) -> dict[str, Any]:
    """A message as it would arrive: through its JSON."""
    parsed: dict[str, Any] = json.loads(messages.to_json(document))
    return parsed
