"""What every proxy of the tests is: a listener before a master on this machine, its sockets and its
threads.
"""

import contextlib
import socket
import threading


class Proxy:
    """Listens on a free port; a subclass says in `serve(worker)` what becomes of a connection."""

    def __init__(self, port):
        self._master, self._lock, self._sockets, self._threads = ("127.0.0.1",
                                                                  port), threading.Lock(), [], []
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.address[1]}"

    @property
    def address(self):
        return self._listener.getsockname()

    def listen(self):
        """The last that a subclass's constructor does."""
        self.start(self._accept)

    def close(self):
        for end in [self._listener] + self._sockets:
            close(end)
        for thread in self._threads:
            thread.join()

    def start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def connect(self):
        """A connection to the master."""
        master = socket.create_connection(self._master)
        self._sockets.append(master)
        return master

    def _accept(self):
        while True:
            try:
                worker, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(worker)
            self.serve(worker)


def close(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
    end.close()
