"""The HTTP server: waitress in this process, with a channel that counts what travels (protocol.md
7).

wire = every byte of requests to and answers from the workers' endpoints, headers, failed tries and
broken connections included. A byte counts where the socket takes or gives it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from http import HTTPStatus
from typing import Any, Callable

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer, create_server
from waitress.task import ErrorTask

from flq.errors import ConfigError, ProtocolError
from flq.host import open_files
from flq.master.http.event_loop import EventLoop
from flq.master.http.parking import (
    Dispatcher,
    ParkingChannel,
    Task,
    wait_for_last_answers,
    with_answers,
)
from flq.master.http.tls import ONLY_TLS, Peer, SpeaksHttp, TlsConnection
from flq.master.http.wire import WireCounter
from flq.protocol.endpoints import WORKER_PATHS
from flq.protocol.messages import to_json

_log = logging.getLogger("flq.master")

_HEADERS_LIMIT = 16 * 1024
_IDLE_S = 120
_GRACE_S = 20.0
_SLOWEST = 1024  # bytes a second that a request must bring from _GRACE_S on
_FILES_KEPT = 4096  # connections at most, whoever opens them
_THREADS = 32  # half of them for people who watch (viewers.MOST_WAITING)

PEER = "flq.peer"
"""Where a request's environment has the `Peer` of its connection, None without a certificate."""


class _Request(HTTPRequestParser):
    """A request whose path can be asked for at any time."""

    path = ""


class _JsonErrorTask(ErrorTask):
    """What the server refuses by itself, in the form of all other errors."""

    def execute(self) -> None:
        error = self.request.error
        refusal = ProtocolError(error_name(error.code), str(error.body))
        body = to_json(refusal.to_json())
        self.status = f"{refusal.kind.status} {HTTPStatus(refusal.kind.status).phrase}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Task(Task):
    """An application's answer to a request; it is told whose certificate the connection showed."""

    def get_environment(self) -> Any:
        environment = super().get_environment()
        channel = self.channel
        environment[PEER] = channel.peer() if isinstance(channel, _TlsChannel) else None
        return environment


class _CountingChannel(ParkingChannel):
    """A connection.

    It answers one request after the other, so what it takes and sends belongs to the last one.
    """

    parser_class = _Request
    error_task_class = _JsonErrorTask
    task_class = _Task
    counter: WireCounter  # set by the subclass that `Server` makes
    is_worker: Callable[[str], bool]
    _serves_worker = False
    _taken = 0  # bytes that still wait to be counted

    def received(self, data: bytes) -> bool:
        self._taken += len(data)
        used: bool = super().received(data)
        return used

    def service(self) -> None:
        request = self.requests[0]
        if self.answer is None:  # else it was asked when the request came
            # A request too broken to have a path belongs to whom the connection served before.
            self._serves_worker = self._is_workers(request) or (self._serves_worker
                                                                and bool(request.error))
        self._count_taken()
        super().service()

    def send_continue(self) -> None:
        self._serves_worker = self._is_workers(self.request)
        super().send_continue()

    def send(self, data: bytes, do_close: bool = True) -> int:
        count: int = super().send(data, do_close)
        if self._serves_worker:
            self.counter.sent(count)
        return count

    def handle_close(self) -> None:
        if self.request is not None and self.request.path:
            self._serves_worker = self._is_workers(self.request)
        self._count_taken()
        super().handle_close()

    def _is_workers(self, request: Any) -> bool:
        """Whether a request is one of the run's workers to one of their endpoints: what a stranger
        sends there is no part of the run.
        """
        return request.path in WORKER_PATHS and self.is_worker(
            request.headers.get("AUTHORIZATION", ""))

    def _count_taken(self) -> None:
        taken, self._taken = self._taken, 0
        if self._serves_worker:
            self.counter.received(taken)


class _BoundedChannel(HTTPChannel):
    """A connection that has to say something. per_address: how many an address may hold.

    A new one that is beyond that, or beyond what all may hold, takes the place of the one that owes
    the rest of its request for longest, or has been idle for longest. One whose request is being
    answered keeps its place, as long as it takes what it is sent.
    """

    per_address: int  # set by the subclass that `Server` makes
    at_most: int
    loop: EventLoop
    _began: float | None = None  # when the request began that has not arrived yet
    _came = 0  # bytes of it
    _stuck: float | None = None  # since when nothing of an answer was taken

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any,
                 map: Any = None) -> None:
        super().__init__(server, sock, addr, adj, map)
        self._began = time.monotonic()
        if len(server.active_channels) <= min(self.per_address, self.at_most):
            return
        everybody = [other for other in server.active_channels.values() if not other.will_close]
        neighbours = [other for other in everybody if other.addr[0] == addr[0]]
        for crowd, most in ((neighbours, self.per_address), (everybody, self.at_most)):
            if len(crowd) > most:
                waiting = [other for other in crowd if not other.requests and other is not self]
                victim = min(waiting, key=_BoundedChannel._merit, default=self)
                victim._give_up()
                self.loop.look_again(victim)
                break

    def _merit(self) -> tuple[bool, float]:
        return self._began is None, self._began or self.last_activity

    def _give_up(self) -> None:
        """Close it, also where it takes nothing: the loop waits for room before it closes."""
        self.will_close = True
        if self.total_outbufs_len:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def received(self, data: bytes) -> bool:
        if self._began is None:
            self._began, self._came = time.monotonic(), 0
        self._came += len(data)
        used: bool = super().received(data)
        if self.request is None:
            self._began = None
        return used

    def readable(self) -> bool:
        # The loop asks this once a second or more.
        if self._began is not None and not self.requests:
            took = time.monotonic() - self._began
            if took > _GRACE_S + self._came / _SLOWEST:
                self._give_up()
        stuck = self._stuck  # a thread that answers may set it to None meanwhile
        if not self.total_outbufs_len:
            self._stuck = None
        elif stuck is None:
            self._stuck = time.monotonic()
        elif time.monotonic() - stuck > _IDLE_S:
            self._give_up()
        found: bool = super().readable()
        return found

    def send(self, data: bytes, do_close: bool = True) -> int:
        count: int = super().send(data, do_close)
        if count:
            self._stuck = None
        return count


class _TlsChannel(HTTPChannel):
    """A connection under TLS: what is above it sees and counts what was said, not how it was
    encrypted.
    """

    context: ssl.SSLContext  # set by the subclass that `Server` makes
    socket: socket.socket
    _connection: TlsConnection | None = None

    def peer(self) -> Peer | None:
        return None if self._connection is None else self._connection.peer

    def handle_read(self) -> None:
        try:
            # here and not when it was accepted: whatever fails ends this connection and no other
            if self._connection is None:
                self._connection = TlsConnection(self.context, self.socket)
                self.socket = self._connection.socket
            data = self._connection.receive(self.adj.recv_bytes)
        except SpeaksHttp as error:
            error.connection.send_in_the_clear(ONLY_TLS)
            data = b""
        except OSError as error:
            _log.debug("%s: %s", self.addr[0], error)
            if self._connection is not None:
                self._connection.drain()
            data = b""
        if data:
            self.last_activity = time.time()
            self.received(data)
        elif data is not None:
            self.handle_close()

    def send(self, data: bytes, do_close: bool = True) -> int:
        try:
            return self._connection.send(data) if self._connection is not None else 0
        except OSError:  # as waitress takes a peer that is gone; no trace in the log tells of one
            self.will_close = True
            if do_close:
                self.handle_close()
            return 0

    def handle_close(self) -> None:
        if self._connection is not None:
            self._connection.say_goodbye()
        super().handle_close()


class Server:
    """Listens from the moment it is made; `start` begins to answer. tls: with it there is no way in
    without TLS.
    """

    def __init__(self, host: str, port: int, max_workers: int,
                 tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        # of each worker's process a connection for the rounds and one for the signs of life
        open_files.allow(2 * max_workers, f"{max_workers} connected workers")
        self.wire = WireCounter()
        self._socket = _listen(host, port)
        address: tuple[str, int] = self._socket.getsockname()[:2]
        self.host, self.port = address
        self._max_workers = max_workers
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def on_loopback(self) -> bool:
        return self.host == "::1" or self.host.startswith("127.")

    def start(self, application: Any, max_body_bytes: int,
              is_worker: Callable[[str], bool] = lambda authorization: True) -> None:
        """is_worker(the Authorization header) -> whether it is one of the run's workers that asks.
        """
        dispatcher = Dispatcher()
        dispatcher.set_thread_count(_THREADS)
        loop, workers = EventLoop(), self._max_workers
        self._server = create_server(
            with_answers(application), map=loop, sockets=[self._socket], _dispatcher=dispatcher,
            connection_limit=_FILES_KEPT + 64, max_request_body_size=max_body_bytes,
            max_request_header_size=_HEADERS_LIMIT, channel_timeout=_IDLE_S, recv_bytes=65536,
            inbuf_overflow=8 << 20, outbuf_overflow=8 << 20, ident="",
            clear_untrusted_proxy_headers=True)
        assert isinstance(self._server, TcpWSGIServer)
        kinds = (_BoundedChannel, _CountingChannel) + (() if self._tls is None else
                                                       (_TlsChannel,))
        self._server.channel_class = type("Channel", kinds, {
            "counter": self.wire, "context": self._tls, "is_worker": staticmethod(is_worker),
            "loop": loop, "per_address": 2 * workers + 32,
            "at_most": min(_FILES_KEPT, 4 * workers + 128, max(2 * workers, open_files.room()))
        })
        self._thread = threading.Thread(target=loop.run, name="server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end the connections.

        Whoever waits for an answer must have been woken before.
        """
        if self._server is None:
            self._socket.close()
            return
        wait_for_last_answers(self._server)
        self._server.task_dispatcher.shutdown(timeout=2)
        self._server.close()
        self.wire.close()


def error_name(status: int) -> str:
    """The error name for a status that the server or Flask raised by itself."""
    if status == 501:
        return "bad_request"
    names = {
        404: "not_found", 405: "method_not_allowed", 408: "request_timeout", 413: "too_large",
        415: "unsupported_media_type", 421: "misdirected", 429: "too_many_requests",
        431: "headers_too_large"
    }
    return names.get(status, "bad_request" if 400 <= status < 500 else "internal")


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:  # getaddrinfo takes such a number modulo 65536
        hint = "choose one with --port, or 0 for any free one"
        raise ConfigError(f"cannot listen on {host} port {port}", "a port from 0 to 65535", port,
                          hint)
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                                flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}", got=error.strerror or str(error),
            hint="is another program on that port? choose one with --port, or 0 for any free one")
    return listener
