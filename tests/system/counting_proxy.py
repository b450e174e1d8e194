"""A TCP proxy in front of a master that counts every byte: a second opinion on what the master says of its wire."""

import contextlib
import socket
import threading


class Exchange:
    """One request and its answer. line: the request line; up, down: all bytes of both, headers included."""

    def __init__(self, line):
        self.line, self.up, self.down = line, 0, 0

    @property
    def path(self):
        return self.line.split(" ")[1].split("?")[0]


class CountingProxy:
    """Listens on a free port and passes everything on to a master on this machine. up: bytes to the master; down: from it."""

    def __init__(self, port):
        self.up = self.down = 0
        self.exchanges = []
        self._master, self._lock, self._sockets, self._threads = ("127.0.0.1", port), threading.Lock(), [], []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)

    @property
    def url(self):
        return "http://127.0.0.1:{}".format(self.address[1])

    @property
    def address(self):
        return self._listener.getsockname()

    def of(self, path):
        """The exchanges of one endpoint, in order."""
        return [exchange for exchange in self.exchanges if exchange.path == path]

    def close(self):
        for end in [self._listener] + self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
            end.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                worker, _ = self._listener.accept()
            except OSError:
                return
            master = socket.create_connection(self._master)
            self._sockets += [worker, master]
            connection = _Connection()
            self._start(self._pass_on, worker, master, lambda data: self._count_up(connection, data))
            self._start(self._pass_on, master, worker, lambda data: self._count_down(connection, data))

    def _pass_on(self, source, target, count):
        with contextlib.suppress(OSError):
            for data in iter(lambda: source.recv(65536), b""):
                count(data)
                with contextlib.suppress(OSError):  # the target has gone, but what the source still sends counts
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
