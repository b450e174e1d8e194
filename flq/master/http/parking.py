"""Requests of waitress that wait for their answer without a thread, and the threads of the others.
"""

from __future__ import annotations

import collections
import logging
import time
from typing import Any, Callable

from waitress.channel import HTTPChannel
from waitress.task import ThreadedTaskDispatcher, WSGITask

from flq.master.http.event_loop import EventLoop
from flq.protocol.endpoints import WORKER_PATHS

PLACE, _ANSWER = "flq.place", "flq.answer"
"""In a request's environ: place() -> a Place where its answer can be left later."""

_LAST_ANSWERS_S = 5.0

Application = Callable[[Any, Any], Any]
"""A WSGI application; a response of Flask is one."""


class Parked(BaseException):
    """Ends the thread's work on a request whose answer is left at its Place later. No Exception:
    nobody on the way takes it for an error.
    """


class Place:
    """Where the answer to one request is left. answer(response): once, from any thread."""

    def __init__(self, channel: ParkingChannel) -> None:
        self._channel: ParkingChannel | None = channel

    def answer(self, response: Application) -> None:
        channel, self._channel = self._channel, None
        assert channel is not None, "a request is answered once"
        channel.go_on(response)


class Task(WSGITask):
    """A request that may be parked, or one whose answer is there by now."""

    channel: ParkingChannel

    def get_environment(self) -> Any:
        environ = super().get_environment()
        environ[PLACE] = lambda: Place(self.channel)
        # Taken before the response is out: the next request may come while this thread still ends
        # its work on this one.
        environ[_ANSWER], self.channel.answer = self.channel.answer, None
        return environ


def with_answers(application: Application) -> Application:
    """The application, but for requests that were parked: their answers are there."""
    def serve(environ: Any, start_response: Any) -> Any:
        return (environ.get(_ANSWER) or application)(environ, start_response)
    return serve


class ParkingChannel(HTTPChannel):
    """A connection whose request can wait for its answer without a thread.

    The request stays the first of the connection meanwhile, so waitress reads no other one, and
    does not take the connection for an idle one. When its answer is there it is served once more,
    with the answer in the place of the application.
    """

    task_class = Task
    loop: EventLoop  # set by the subclass that `Server` makes
    answer: Application | None = None  # to the request that was parked
    _is_parked = False

    def service(self) -> None:
        try:
            with self.loop.serving(self):
                super().service()
        except Parked:
            with self.requests_lock:
                self._is_parked = self.answer is None
            if not self._is_parked:  # it came meanwhile
                self.server.add_task(self)

    def go_on(self, answer: Application) -> None:
        """The answer to the parked request is there."""
        with self.requests_lock:
            self.answer, was_parked, self._is_parked = answer, self._is_parked, False
        if was_parked and self.requests:  # none once the server ends
            self.server.add_task(self)


class _Lanes:
    """The requests that wait for a thread. People's and workers' are taken in turn, so nobody who
    looks at a run waits for the uploads of a whole round, and nobody holds these up by looking.
    """

    def __init__(self) -> None:
        self._people: collections.deque[Any] = collections.deque()
        self._workers: collections.deque[Any] = collections.deque()
        self._people_next = True

    def __len__(self) -> int:
        return len(self._people) + len(self._workers)

    def append(self, channel: Any) -> None:
        requests = channel.requests
        of_worker = bool(requests) and requests[0].path in WORKER_PATHS
        (self._workers if of_worker else self._people).append(channel)

    def popleft(self) -> Any:
        if not self._people or (self._workers and not self._people_next):
            self._people_next = True
            return self._workers.popleft()
        self._people_next = False
        return self._people.popleft()


class Dispatcher(ThreadedTaskDispatcher):
    """waitress's threads, with _Lanes in the place of its one queue. That a queue forms is no
    trouble: it is one for a moment whenever a round's uploads come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = _Lanes()
        self.queue_logger = logging.getLogger("flq.http.queue")
        self.queue_logger.setLevel(logging.ERROR)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being served and none waits for a thread."""
        with self.lock:
            return not self.queue and not self.active_count


def wait_for_last_answers(server: Any) -> None:
    """Until what was answered is out, before a server of waitress ends: a worker that does not hear
    of the end looks for a master that is gone.
    """
    deadline = time.monotonic() + _LAST_ANSWERS_S
    while time.monotonic() < deadline and (not server.task_dispatcher.is_idle or any(
            channel.total_outbufs_len for channel in list(server.active_channels.values()))):
        time.sleep(0.01)
