"""Who is who: a session stands for one live process that holds one worker id (protocol.md 4, last
points).
"""

from __future__ import annotations

import collections
import contextlib
import secrets
from typing import Callable, Iterator, NamedTuple, NoReturn

from flq.errors import ProtocolError

_MOST_OPENED, _WINDOW_S, _RETRY_S = 60, 60.0, 10.0


class Session(NamedTuple):
    """token: what the worker sends in Authorization. instance: the process's 128 random bits."""

    token: str
    worker: int
    instance: str


class Sessions:
    """The newest session of each worker. Not thread-safe: the service's lock guards it."""

    def __init__(self) -> None:
        self._by_token: dict[str, Session] = {}
        self._by_worker: dict[int, Session] = {}
        self._superseded: dict[int, str] = {}
        self._last_seen: dict[int, float] = {}
        self.tokens_revoked: dict[int, int] = {}
        """How many tokens of each worker were revoked, for people."""
        self._opened: dict[int, collections.deque[float]] = {}  # when, the newest last

    def open(self, worker: int, instance: str, take_over: bool, now: float,
             timeout_s: float) -> Session:
        """A new session that ends the worker's old one.

        Raises worker_id_in_use while another process is alive, too_many_requests where the worker
        does little else.
        """
        self._check_rate(worker, now)
        holder = self._by_worker.get(worker)
        if holder is not None:
            unseen = now - self._last_seen[worker]
            if holder.instance != instance and not take_over and unseen < timeout_s:
                raise ProtocolError("worker_id_in_use", f"worker {worker} is running already",
                                    "one process for each worker id",
                                    f"another one that was seen {unseen:.1f} s ago",
                                    "use another --worker_id, or --take_over if that one is gone")
            self._by_token.pop(holder.token, None)
            # a process whose own registration came twice just registers again
            if holder.instance != instance:
                self._superseded[worker] = holder.token
        session = Session(secrets.token_urlsafe(16), worker, instance)
        self._by_token[session.token] = self._by_worker[worker] = session
        self._last_seen[worker] = now
        return session

    def _check_rate(self, worker: int, now: float) -> None:
        opened = self._opened.setdefault(worker, collections.deque(maxlen=_MOST_OPENED))
        if len(opened) == _MOST_OPENED and now - opened[0] < _WINDOW_S:
            raise ProtocolError("too_many_requests", f"worker {worker} registers too often",
                                f"at most {_MOST_OPENED} times in {_WINDOW_S:.0f} s",
                                retry_after_s=_RETRY_S)
        opened.append(now)

    def knows(self, token: str) -> bool:
        """Whether a session with this token is open; read without the lock."""
        return token in self._by_token

    def worker_of(self, token: str) -> int | None:
        """Whose open session a token is; read without the lock."""
        session = self._by_token.get(token)
        return None if session is None else session.worker

    def get(self, token: str, now: float) -> Session:
        """The session of a request, which is a sign of life.

        Raises unknown_session or session_superseded.
        """
        session = self._by_token.get(token)
        if session is None:
            self._refuse(token)
        self.seen(session, now)
        return session

    def _refuse(self, token: str) -> NoReturn:
        if token in self._superseded.values():
            raise ProtocolError("session_superseded", "another process took this worker id over",
                                hint="this one ends here")
        raise ProtocolError("unknown_session", "this session is not known here",
                            hint="register again")

    def check(self, session: Session) -> None:
        """Raises what became of a session that is not the worker's any more."""
        if self._by_token.get(session.token) is not session:
            self._refuse(session.token)

    def seen(self, session: Session, now: float) -> None:
        """A sign of life."""
        self._last_seen[session.worker] = now

    def end(self, worker: int) -> None:
        """The worker left or was removed, or its token was revoked."""
        session = self._by_worker.pop(worker, None)
        if session is not None:
            del self._by_token[session.token]

    def last_seen(self, worker: int) -> float | None:
        return self._last_seen.get(worker)

    def seen_since(self, moment: float) -> Iterator[int]:
        """Workers that hold a session and showed a sign of life after that moment, one by one."""
        return (worker for worker in self._by_worker if self._last_seen[worker] > moment)


class LongPolls:
    """The newest request of each kind that waits. Not thread-safe, as Sessions."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, bool], object] = {}

    @contextlib.contextmanager
    def newest(self, kind: tuple[str, bool], wake: Callable[[], None]) -> Iterator[Callable[[],
                                                                                           bool]]:
        """A request waits; gives a function that says whether it is still the newest of its kind.
        wake(): called where another one waits, which is not any more.
        """
        ticket = object()
        if kind in self._newest:
            wake()
        self._newest[kind] = ticket
        try:
            yield lambda: self._newest.get(kind) is ticket
        finally:
            if self._newest.get(kind) is ticket:
                del self._newest[kind]
