"""Who is asking, and under which name: tokens, Host header, failed tries (protocol.md 6)."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from typing import Any, Callable, Iterator, NamedTuple, NoReturn

from flask import Response, request

from flq import tokens
from flq.errors import ProtocolError
from flq.master.http.server import PEER
from flq.master.http.tls import Peer
from flq.master.service import Service
from flq.master.store.events import Order
from flq.revoked import NOTHING, Revoked

_FAILURES, _FAILURE_WINDOW_S = 30, 10.0


class Access(NamedTuple):
    """What the API needs to know of the machine it runs on. secret: the operator's. on_loopback:
    bound to it alone. revoked(): what was revoked, now. certificates: whether every client has to
    show one.
    """

    secret: str
    on_loopback: bool
    revoked: Callable[[], Revoked] = lambda: NOTHING
    certificates: bool = False


class Caller(NamedTuple):
    """Who asks with an operator's or a viewer's token, and from where. fingerprint: of the
    connection's certificate, "" without one.
    """

    role: str
    name: str
    address: str
    fingerprint: str

    def order(self) -> Order:
        """What the run's history says of an order of this caller, which is given now."""
        shown = f" certificate {self.fingerprint}" if self.fingerprint else ""
        return Order(f"{self.name}@{self.address}{shown}", round(time.time(), 3))


def is_worker(service: Service, access: Access, authorization: str) -> bool:
    """Whether an Authorization header names a session or a worker's token of this master."""
    token = _bearer_in(authorization)
    return token is not None and (service.run.sessions.knows(token) or tokens.worker_of(
        access.secret, token, access.revoked()) is not None)


def _bearer_in(authorization: str) -> str | None:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.isascii() else None


class Guard:
    """Who is asking. A token is compared in constant time, so a refusal does not tell how much of
    it was right.
    """

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

    def check_certificate(self) -> None:
        """Where clients have to show certificates: this connection's is for somebody and was not
        revoked. That it is valid was checked when the connection began.
        """
        if not self._access.certificates:
            return
        peer = self._peer()
        if peer is None or not peer.holders:
            self._refuse("this certificate is for no worker, operator or viewer",
                         "one that `python -m flq certs` made for one of them")
        if self._is_revoked(peer):
            self._note_failure()
            raise _revoked()

    def unless_revoked(self, respond: Callable[[Any], Response]) -> Callable[[Any], Response]:
        """respond, for a request that may wait: a refusal where the certificate of its connection
        was revoked meanwhile. It is called without the request, on any thread.
        """
        peer = self._peer()

        def checked(found: Any) -> Response:
            if peer is not None and self._is_revoked(peer):
                raise _revoked()
            return respond(found)

        return checked

    def worker(self) -> int:
        """The worker whose token came. Raises unauthorized."""
        token, access = self._bearer(), self._access
        worker = tokens.worker_of(access.secret, token, access.revoked())
        if worker is None:
            self._refuse_revoked(token)
            self._refuse("this is not a worker's token of this master",
                         "the token that `python -m flq token --worker M` prints")
        self._check_holder(str(worker), f"worker {worker}")
        return worker

    @contextlib.contextmanager
    def session(self) -> Iterator[str]:
        """The session that came.

        The service knows whether it is one; where it is none, that is a failure of the peer.
        """
        token = self._bearer()
        worker = self._service.run.sessions.worker_of(token)
        if worker is not None:  # a session that was taken along needs its worker's certificate too
            self._check_holder(str(worker), f"worker {worker}")
        try:
            yield token
        except ProtocolError as error:
            if error.name in ("unknown_session", "session_superseded"):
                self._note_failure()
            raise

    def operator(self) -> Caller:
        """The operator whose token came. Raises unauthorized."""
        caller = self.caller()
        if caller.role != tokens.OPERATOR:
            self._refuse("this needs an operator's token, and a viewer's came",
                         "Authorization: Bearer and an operator's token")
        return caller

    def caller(self) -> Caller:
        """The operator or viewer whose token came. Raises unauthorized."""
        token, access = self._bearer(), self._access
        if tokens.is_operator(access.secret, token):
            whose: tokens.Holder | None = tokens.Holder(tokens.OPERATOR, tokens.OWNER)
        else:
            whose = tokens.holder_of(access.secret, token, access.revoked())
        if whose is None or whose.role == tokens.WORKER:
            self._refuse_revoked(token)
            self._refuse("this needs the operator's token",
                         'Authorization: Bearer and what is in ~/.flq/token')
        self._check_caller(whose)
        peer = self._peer()
        return Caller(whose.role, whose.name, str(request.remote_addr), peer.fingerprint
                      if peer is not None else "")

    def protected_read(self) -> None:
        """Weights and configuration: open on loopback, else for operators and viewers."""
        mode = self._service.run.config.security.protect_reads
        if mode == "always" or (mode == "auto" and not self._access.on_loopback):
            self.caller()

    def _check_caller(self, whose: tokens.Holder) -> None:
        """Raises unauthorized unless the certificate goes with the token: the secret with any
        operator's, an operator's token with that operator's, a viewer's with that viewer's or any
        operator's.
        """
        peer = self._peer()
        if not self._access.certificates or peer is None:
            return
        operators = {key for key in peer.holders if key.startswith(tokens.OPERATOR)}
        if not operators or whose.role == tokens.OPERATOR and whose.name != tokens.OWNER:
            self._check_holder(
                whose.key, "an operator" if whose.name == tokens.OWNER else
                f"{whose.role} {whose.name}")

    def _check_holder(self, key: str, who: str) -> None:
        peer = self._peer()
        if self._access.certificates and (peer is None or key not in peer.holders):
            shown = ", ".join(sorted(peer.holders)) if peer is not None else "none"
            self._refuse("the certificate is not that of the token's holder", f"one for {who}",
                         f"one for {shown[:200]}")

    def _is_revoked(self, peer: Peer) -> bool:
        return peer.fingerprint in self._access.revoked().certificates

    def _peer(self) -> Peer | None:
        found: Peer | None = request.environ.get(PEER)
        return found

    def _bearer(self) -> str:
        token = _bearer_in(request.headers.get("Authorization", ""))
        if token is None:
            self._refuse("a token is missing", "Authorization: Bearer TOKEN")
        return token

    def _refuse_revoked(self, token: str) -> None:
        """Who held a token that was valid once is told what happened to it."""
        if tokens.was_revoked(self._access.secret, token, self._access.revoked()):
            self._refuse("this token was revoked", "the newer one of its holder", None,
                         "`python -m flq token` prints it on the master's machine")

    def _refuse(self, message: str, expected: str, got: str | None = None,
                hint: str | None = None) -> NoReturn:
        self._note_failure()
        raise ProtocolError("unauthorized", message, expected, got, hint)

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


def _revoked() -> ProtocolError:
    return ProtocolError("unauthorized", "this certificate was revoked", "another one")
