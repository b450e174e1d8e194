"""Workers' questions that have no answer yet and hold no thread: one thread asks them again when
something has happened that may have decided them.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import math
import threading
from typing import Any, Callable, NamedTuple

from flq.master.run.run import PENDING, Question
from flq.master.run.sessions import LongPolls

MAX_WAIT_S = 30.0

Then = Callable[[Any, "Exception | None"], None]
"""then(answer, None) or then(None, what was raised): called once, without the service's lock."""

Ask = Callable[[Question, bool], Any]
"""ask(question, last) -> its answer or PENDING; raises as Run.answer, which it is."""

_log = logging.getLogger("flq.master")


_SPARE = 64  # ends that are kept for nobody, beside as many as there are questions


class _Waiting(NamedTuple):
    """until: when it is answered with what can be said then. number: no other one has it."""

    question: Question
    until: float
    then: Then
    number: int


class Questions:
    """Those of one service. changed: the condition of its lock, which guards what is kept here."""

    def __init__(self, changed: threading.Condition, ask: Ask, clock: Callable[[], float]) -> None:
        self._changed, self._ask, self._clock = changed, ask, clock
        # of each worker the newest that waits for a model, and the newest for an outcome
        self._waiting: dict[tuple[int, bool], _Waiting] = {}
        self._ends: list[tuple[float, int, tuple[int, bool]]] = []  # until, number, kind: a heap
        self._numbers = itertools.count()
        self._due: collections.deque[_Waiting] = collections.deque()  # answered whatever is said
        self._polls = LongPolls()
        self._news = self._closed = False
        self._wakes_at = math.inf
        self._thread = threading.Thread(target=self._run, name="questions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Everybody is answered with what can be said now; after halt(), which ends new waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def answer(self, question: Question, wait_s: float, then: Then | None) -> Any:
        """Under the lock: the answer. After wait_s seconds, or as soon as the worker asks another
        question of the same kind, it is what can be said at that moment.

        With `then`: PENDING where it has to wait, and `then` is told later. Without: the request
        waits here, with its thread.
        """
        until = self._clock() + min(max(0.0, wait_s), MAX_WAIT_S)
        if then is None:
            return self._wait(question, until)
        found = self._ask(question, wait_s <= 0 or self._closed)
        if found is PENDING:
            kind = _kind(question)
            self._hurry(kind)
            self._waiting[kind] = _Waiting(question, until, then, next(self._numbers))
            self._note_end(kind)
            if until < self._wakes_at:
                self._changed.notify_all()
        return found

    def _note_end(self, kind: tuple[int, bool]) -> None:
        """Of a question that waits from now on."""
        one = self._waiting[kind]
        heapq.heappush(self._ends, (one.until, one.number, kind))
        if len(self._ends) > 2 * len(self._waiting) + _SPARE:
            self._ends = [(one.until, one.number, kind) for kind, one in self._waiting.items()]
            heapq.heapify(self._ends)

    def _next_end(self) -> _Waiting | None:
        """Whose time is over first, of those that still wait."""
        while self._ends:
            _, number, kind = self._ends[0]
            one = self._waiting.get(kind)
            if one is not None and one.number == number:
                return one
            heapq.heappop(self._ends)
        return None

    def _over(self, now: float) -> list[_Waiting]:
        """Those whose time is over; they end with this."""
        found: list[_Waiting] = []
        one = self._next_end()
        while one is not None and one.until <= now:
            found.append(one)
            heapq.heappop(self._ends)
            one = self._next_end()
        return found

    def _wait(self, question: Question, until: float) -> Any:
        kind = question.session.token, question.round is None
        with self._polls.newest(kind, self._changed.notify_all) as is_newest:
            while True:
                now = self._clock()
                found = self._ask(question, now >= until or not is_newest())
                if found is not PENDING:
                    return found
                self._changed.wait(until - now)

    def ask_again(self, worker: int | None = None) -> None:
        """Under the lock: something happened that may decide the questions of all workers, or that
        ends those of one.
        """
        if worker is None:
            self._news = True
            self._changed.notify_all()
        else:
            for kind in ((worker, False), (worker, True)):
                self._hurry(kind)

    def _hurry(self, kind: tuple[int, bool]) -> None:
        older = self._waiting.pop(kind, None)
        if older is not None:
            self._due.append(older)
            self._changed.notify_all()

    def _run(self) -> None:
        closed = False
        # At the end too: a session that ends while the others are answered has questions due.
        while not closed or self._due:
            with self._changed:
                self._sleep()
                now, closed, news = self._clock(), self._closed, self._news or self._closed
                due = list(self._due)
                waiting = list(self._waiting.values()) if news else self._over(now)
                self._due.clear()
                self._news = False
            for one in due:
                self._answer(one, True, True)
            # The lock is free between two of them: nobody else waits for all.
            for one in waiting:
                self._answer(one, closed or self._clock() >= one.until, False)

    def _sleep(self) -> None:
        while not (self._news or self._due or self._closed):
            first = self._next_end()
            self._wakes_at = math.inf if first is None else first.until
            seconds = self._wakes_at - self._clock()
            if seconds <= 0:
                break
            self._changed.wait(None if math.isinf(seconds) else seconds)
        self._wakes_at = -math.inf  # it looks at them anyway

    def _answer(self, one: _Waiting, last: bool, is_due: bool) -> None:
        found, raised, kind = None, None, _kind(one.question)
        with self._changed:
            if not is_due:
                if self._waiting.get(kind) is not one:
                    return
                # It does not wait while it is asked: its answer can be that nothing else will come.
                del self._waiting[kind]
            try:
                found = self._ask(one.question, last)
            except Exception as error:  # the request's answer says what it was
                raised = error
            if found is PENDING:
                self._waiting[kind] = one
                return
        try:
            one.then(found, raised)
        except Exception:  # one request that cannot be answered must not keep the others waiting
            _log.exception("a question of worker %d was not answered", kind[0])


def _kind(question: Question) -> tuple[int, bool]:
    return question.session.worker, question.round is None
