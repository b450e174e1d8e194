"""A TCP proxy in front of a master that counts every byte: a second opinion on what the master says
of its wire.
"""

import contextlib
import functools
import socket

from tests.system.proxy import Proxy


class Exchange:
    """One request and its answer. line: the request line; up, down: all bytes of both, headers
    included.
    """

    def __init__(self, line):
        self.line, self.up, self.down = line, 0, 0

    @property
    def path(self):
        return self.line.split(" ")[1].split("?")[0]


class CountingProxy(Proxy):
    """Passes everything on. up: bytes to the master; down: from it."""

    def __init__(self, port):
        super().__init__(port)
        self.up = self.down = 0
        self.exchanges = []
        self.listen()

    def of(self, path):
        """The exchanges of one endpoint, in order."""
        return [exchange for exchange in self.exchanges if exchange.path == path]

    def serve(self, worker):
        try:
            master, connection = self.connect(), _Connection()
        except OSError:  # there is no master now
            worker.close()
            return
        self.start(self._pass_on, worker, master, functools.partial(self._count_up, connection))
        self.start(self._pass_on, master, worker, functools.partial(self._count_down, connection))

    def _pass_on(self, source, target, count):
        with contextlib.suppress(OSError):
            for data in iter(lambda: source.recv(65536), b""):
                count(data)
                # the target has gone, but what the source still sends counts
                with contextlib.suppress(OSError):
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _count_up(self, connection, data):
        with self._lock:
            if connection.exchange is None or connection.exchange.down:
                connection.exchange = Exchange(data[:data.find(b"\r\n")].decode("latin-1"))
                self.exchanges.append(connection.exchange)
            connection.exchange.up += len(data)
            self.up += len(data)

    def _count_down(self, connection, data):
        with self._lock:
            connection.exchange.down += len(data)
            self.down += len(data)


class _Connection:
    exchange = None
