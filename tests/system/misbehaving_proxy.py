"""A TCP proxy in front of a master that does to HTTP messages what a bad network does: late, in
part, twice, or not for a minute.
"""

import collections
import contextlib
import json
import random
import re
import threading
import time

from tests.system.proxy import Proxy, close

RETRANSMISSION_S = 1.0  # how long a message waits whose segment was lost and sent again


class MisbehavingProxy(Proxy):
    """One worker's way to a master on this machine.

    delay_s: what an exchange takes longer, half of it each way. loss: the part of all messages that
    are lost; half of these arrive RETRANSMISSION_S late, of the other half a piece arrives and the
    connection is cut. duplicates: the part of the requests that reach the master a second time, up
    to half a second later. While `partition` lasts nothing passes, and what was sent waits.

    acknowledged: {round: reference_hash} of the uploads that the worker was told are accepted.
    counts: what was done.
    """

    def __init__(self, port, delay_s=0.0, loss=0.0, duplicates=0.0, seed=0):
        super().__init__(port)
        self.acknowledged, self.counts = {}, collections.Counter()
        self._delay_s, self._loss, self._duplicates = delay_s, loss, duplicates
        self._dice, self._passable, self._closing = random.Random(seed), threading.Event(), False
        self._passable.set()
        self.listen()

    @contextlib.contextmanager
    def partition(self):
        self._passable.clear()
        yield
        self._passable.set()

    def close(self):
        self._closing = True
        self._passable.set()
        super().close()

    def serve(self, worker):
        self.start(self._serve, worker)

    def _serve(self, worker):
        with contextlib.suppress(OSError), contextlib.closing(worker.makefile("rb")) as requests:
            master = self.connect()
            with contextlib.closing(master.makefile("rb")) as answers:
                while True:
                    request = _read_message(requests)
                    self._pass(request, master, "request")
                    if self._chance(self._duplicates):
                        self.counts["duplicated"] += 1
                        self.start(self._repeat, request)
                    answer = _read_message(answers)
                    self._pass(answer, worker, "answer")
                    self._note(answer)
        close(worker)

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
            close(target)
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
            master = self.connect()
            master.sendall(request)
            with contextlib.closing(master.makefile("rb")) as answers:
                _read_message(answers)
            close(master)

    def _chance(self, part):
        with self._lock:
            return not self._closing and self._dice.random() < part

    def _note(self, answer):
        head, _, body = answer.partition(b"\r\n\r\n")
        beside = re.search(br"^FLQ-Outcome: ([^\r]*)", head, re.MULTILINE | re.IGNORECASE)
        outcome = beside.group(1) if beside else body if b"json" in head else b""
        if head.startswith(b"HTTP/1.1 200") and b'"state"' in outcome:
            told = json.loads(outcome.decode("utf-8"))
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
