"""TLS for the server's connections (protocol.md 6), with the standard library's ssl on sockets that
never block.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import threading
from http import HTTPStatus
from typing import Any, NamedTuple

from flq import tokens
from flq.errors import ConfigError, ProtocolError
from flq.protocol.messages import to_json

URN = "urn:flq:"
"""Before the key of each holder (tokens.Holder) that a client's certificate is for."""


class Peer(NamedTuple):
    """Who a client's certificate says is there. fingerprint: its SHA-256. holders: their keys."""

    fingerprint: str
    holders: frozenset[str]


def server_context(certfile: str, keyfile: str | None,
                   client_ca: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate (PEM, with what signed it below) and its key, which
    may stand in the same file. client_ca: with it nobody is let in without a certificate that one
    of these authorities signed for clients.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        names = certfile if keyfile is None else f"{certfile} and {keyfile}"
        raise ConfigError(f"cannot serve TLS with {names}",
                          "a PEM certificate and its key without a password", error.strerror
                          or str(error), "`python -m flq certs --help` says how to make them")
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise ConfigError(f"cannot use the clients' authority {client_ca}",
                              "a PEM file with certificates",
                              "no certificate" if isinstance(error, ssl.SSLError) else
                              error.strerror, "name another one with --client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _peer(connected: ssl.SSLSocket) -> Peer:
    """Whom the certificate is for that was checked when this connection began."""
    data = connected.getpeercert(binary_form=True) or b""
    shown: dict[str, Any] = dict(connected.getpeercert() or {})
    names = [name for kind, name in shown.get("subjectAltName", ()) if kind == "URI"]
    return Peer(
        hashlib.sha256(data).hexdigest(),
        frozenset(name[len(URN):] for name in names
                  if name.startswith(URN) and _is_holder(name[len(URN):])))


def _is_holder(key: str) -> bool:
    try:
        return bool(tokens.holder(key))
    except ConfigError:
        return False


def _no_password() -> str:
    raise OSError("the key has a password")


class SpeaksHttp(Exception):
    """The peer of this connection sent a request in the clear."""

    def __init__(self, connection: TlsConnection) -> None:
        super().__init__()
        self.connection = connection


class TlsConnection:
    """An accepted socket under TLS. One thread receives while others send: OpenSSL wants them one
    after the other.

    The handshake happens in the first calls of `receive`. What it sends fits into the socket's
    empty buffer.
    """

    def __init__(self, context: ssl.SSLContext, accepted: socket.socket) -> None:
        self._lock = threading.Lock()
        self._asks = context.verify_mode != ssl.CERT_NONE
        self.peer: Peer | None = None
        """Whom the client's certificate is for, from the first byte on that was received; None
        where none was asked for."""
        accepted.setblocking(False)
        self.socket = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)

    def receive(self, size: int) -> bytes | None:
        """At most size bytes; None when nothing can be read yet, b"" at the end.

        Raises OSError, or SpeaksHttp.
        """
        try:
            with self._lock:
                data = self.socket.recv(size)
                # Without data the handshake may not be over: who leaves in between shows nobody.
                if data and self._asks and self.peer is None:
                    self.peer = _peer(self.socket)
                return data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                raise SpeaksHttp(self)
            raise

    def send(self, data: bytes) -> int:
        """How many bytes of data were taken, 0 when the socket takes none now. Raises OSError."""
        try:
            with self._lock:
                return self.socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def say_goodbye(self) -> None:
        """Tell the peer that nothing was cut off; whether it hears is all the same."""
        try:
            with self._lock:
                self.socket.unwrap()
        except (OSError, ValueError):
            pass

    def drain(self) -> None:
        """Take what lies there unread: a connection that is closed before would be reset, and the
        reset can overtake the alert that says what was wrong.
        """
        with contextlib.suppress(OSError):
            os.read(self.socket.fileno(), 65536)

    def send_in_the_clear(self, data: bytes) -> None:
        """A short answer to a peer that does not speak TLS."""
        try:
            self.drain()
            os.write(self.socket.fileno(), data)
        except OSError:
            pass


def _in_the_clear(refusal: ProtocolError) -> bytes:
    body = to_json(refusal.to_json())
    return (
        f"HTTP/1.1 {refusal.kind.status} {HTTPStatus(refusal.kind.status).phrase}\r\nContent-Type: "
        "application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode("ascii") + body


ONLY_TLS = _in_the_clear(
    ProtocolError("bad_request", "this master speaks TLS only", "https://", "http://",
                  "write https:// in its address, and give its authority with --cafile"))
"""What a client without TLS is told, in bytes."""
