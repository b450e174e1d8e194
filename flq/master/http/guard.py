"""Who is asking, and under which name: tokens, Host header, failed tries (protocol.md 6)."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from typing import Iterator, NamedTuple, NoReturn

from flask import request

from flq import tokens
from flq.errors import ProtocolError
from flq.master.service import Service

_FAILURES, _FAILURE_WINDOW_S = 30, 10.0


class Access(NamedTuple):
    """What the API needs to know of the machine it runs on. secret: the operator's. on_loopback:
    bound to it alone.
    """

    secret: str
    on_loopback: bool


def is_worker(service: Service, secret: str, authorization: str) -> bool:
    """Whether an Authorization header names a session or a worker's token of this master."""
    token = _bearer_in(authorization)
    return token is not None and (service.run.sessions.knows(token)
                                  or tokens.worker_of(secret, token) is not None)


def _bearer_in(authorization: str) -> str | None:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.isascii() else None


class Guard:
    """Who is asking. Every refusal costs the same time, whatever was wrong with the token."""

    def __init__(self, service: Service, access: Access) -> None:
        self._service, self._access = service, access
        self._failures: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        names = {
            "localhost",
            socket.gethostname(),
            socket.getfqdn(), *service.run.config.security.allowed_hosts
        }
        self._hosts = {name.lower() for name in names}

    def check_host(self) -> None:
        """A page of another site that resolves to this machine must not read or steer it (DNS
        rebinding).
        """
        host = (request.headers.get("Host") or "").rsplit("]", 1)
        name = host[0].lstrip("[") if len(host) == 2 else host[0].split(":")[0]
        if name.lower() in self._hosts:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise ProtocolError("misdirected", "the Host header names another machine",
                                "an IP address or one of security.allowed_hosts", name[:100])

    def worker(self) -> int:
        """The worker whose token came. Raises unauthorized."""
        worker = tokens.worker_of(self._access.secret, self._bearer())
        if worker is None:
            self._refuse("this is not a worker's token of this master",
                         "the token that `python -m flq token --worker M` prints")
        return worker

    @contextlib.contextmanager
    def session(self) -> Iterator[str]:
        """The session that came.

        The service knows whether it is one; where it is none, that is a failure of the peer.
        """
        try:
            yield self._bearer()
        except ProtocolError as error:
            if error.name in ("unknown_session", "session_superseded"):
                self._note_failure()
            raise

    def operator(self) -> None:
        if not tokens.is_operator(self._access.secret, self._bearer()):
            self._refuse("this needs the operator's token",
                         'Authorization: Bearer and what is in ~/.flq/token')

    def protected_read(self) -> None:
        """Weights and configuration: open on loopback, else the operator's."""
        mode = self._service.run.config.security.protect_reads
        if mode == "always" or (mode == "auto" and not self._access.on_loopback):
            self.operator()

    def _bearer(self) -> str:
        token = _bearer_in(request.headers.get("Authorization", ""))
        if token is None:
            self._refuse("a token is missing", "Authorization: Bearer TOKEN")
        return token

    def _refuse(self, message: str, expected: str) -> NoReturn:
        self._note_failure()
        raise ProtocolError("unauthorized", message, expected)

    def _note_failure(self) -> None:
        now, peer = time.monotonic(), str(request.remote_addr)
        with self._lock:
            recent = [
                moment for moment in self._failures.get(peer, [])
                if now - moment < _FAILURE_WINDOW_S
            ]
            self._failures[peer] = [*recent, now][-_FAILURES - 1:]
            if len(self._failures) > 1000:
                self._failures = {peer: self._failures[peer]}
        if len(recent) >= _FAILURES:
            limit = f"at most {_FAILURES} in {_FAILURE_WINDOW_S:.0f} s"
            raise ProtocolError("too_many_requests", "too many requests with a wrong token", limit,
                                retry_after_s=_FAILURE_WINDOW_S)
