"""A TCP proxy in front of a master that does to HTTP messages what a bad network does: late, in part, twice, or not for a minute."""

import collections
import contextlib
import json
import random
import socket
import threading
import time

RETRANSMISSION_S = 1.0  # how long a message waits whose segment was lost and sent again


class MisbehavingProxy:
    """One worker's way to a master on this machine.

    delay_s: what an exchange takes longer, half of it each way. loss: the part of all messages that are lost; half of these arrive
    RETRANSMISSION_S late, of the other half a piece arrives and the connection is cut. duplicates: the part of the requests that
    reach the master a second time, up to half a second later. While `partition` lasts nothing passes, and what was sent waits.

    acknowledged: {round: reference_hash} of the uploads that the worker was told are accepted. counts: what was done.
    """

    def __init__(self, port, delay_s=0.0, loss=0.0, duplicates=0.0, seed=0):
        self.acknowledged, self.counts = {}, collections.Counter()
        self._master, self._delay_s, self._loss, self._duplicates = ("127.0.0.1", port), delay_s, loss, duplicates
        self._dice, self._lock, self._passable, self._closing = random.Random(seed), threading.Lock(), threading.Event(), False
        self._passable.set()
        self._sockets, self._threads = [], []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)

    @property
    def url(self):
        return "http://127.0.0.1:{}".format(self._listener.getsockname()[1])

    @contextlib.contextmanager
    def partition(self):
        self._passable.clear()
        yield
        self._passable.set()

    def close(self):
        self._closing = True
        self._passable.set()
        for end in [self._listener] + self._sockets:
            _close(end)
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
            self._sockets.append(worker)
            self._start(self._serve, worker)

    def _serve(self, worker):
        with contextlib.suppress(OSError), contextlib.closing(worker.makefile("rb")) as requests:
            master = self._connect()
            with contextlib.closing(master.makefile("rb")) as answers:
                while True:
                    request = _read_message(requests)
                    self._pass(request, master, "request")
                    if self._chance(self._duplicates):
                        self.counts["duplicated"] += 1
                        self._start(self._repeat, request)
                    answer = _read_message(answers)
                    self._pass(answer, worker, "answer")
                    self._note(answer)
        _close(worker)

    def _connect(self):
        master = socket.create_connection(self._master)
        self._sockets.append(master)
        return master

    def _pass(self, message, target, kind):
        """Raises ConnectionError when the message is cut."""
        self.counts["messages"] += 1
        time.sleep(self._delay_s / 2)
        lost = self._chance(self._loss)
        if lost and self._chance(0.5):
            self.counts["cut " + kind] += 1
            with self._lock:
                length = self._dice.randrange(len(message))
            target.sendall(message[:length])
            _close(target)
            raise ConnectionError
        if lost:
            self.counts["late"] += 1
            time.sleep(RETRANSMISSION_S)
        self._passable.wait()
        target.sendall(message)

    def _repeat(self, request):
        """The same bytes once more; nobody hears the answer."""
        with self._lock:
            pause = self._dice.uniform(0.0, 0.5)
        time.sleep(pause)
        self._passable.wait()
        with contextlib.suppress(OSError):
            master = self._connect()
            master.sendall(request)
            with contextlib.closing(master.makefile("rb")) as answers:
                _read_message(answers)
            _close(master)

    def _chance(self, part):
        with self._lock:
            return not self._closing and self._dice.random() < part

    def _note(self, answer):
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200") and b'"state"' in body and b"json" in head:
            told = json.loads(body.decode("utf-8"))
            if told["state"] == "accepted":
                self.acknowledged[told["round"]] = told["reference_hash"]


def _read_message(file):
    """One request or answer, whole. Raises ConnectionError at its end."""
    head, length = b"", 0
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            raise ConnectionError
        head += line
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = file.read(length)
    if len(body) < length:
        raise ConnectionError
    return head + body


def _close(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it
    end.close()
