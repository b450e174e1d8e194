"""Who watches the run: long polls of /status that cost the run little, however many there are.

What a viewer is told is made at most twice a second, for all of them together. A poll holds one of
the server's threads, so only some may wait; whoever comes on top is answered at once.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from typing import Any

from flq.master.run.run import Run
from flq.master.service import Service
from flq.master.status import snapshot
from flq.protocol import messages

MOST_WAITING = 16
_FRESH_S = 0.5


class Viewers:
    """The answers to GET /status?seen=...&wait=...; `status` may be called from any thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # Another process has another one: whoever watched an earlier master has news at once.
        self._process = secrets.token_hex(4)
        self._waiting = threading.Semaphore(MOST_WAITING)
        self._lock = threading.Lock()
        self._made_at, self._made_of, self._made = -_FRESH_S, "", b""

    def status(self, seen: str, wait_s: float) -> bytes:
        """The JSON of /status, once its `news` is not `seen`, or after wait_s seconds."""
        if wait_s and self._waiting.acquire(blocking=False):
            try:
                self._service.wait_for(lambda run: self._news(run) != seen, wait_s)
            finally:
                self._waiting.release()
        with self._lock:
            now = self._service.now()
            news = self._news(self._service.run)
            if news != self._made_of or now >= self._made_at + _FRESH_S:
                with self._service.locked() as run:
                    shown, news = snapshot(run, now), self._news(run)
                self._made_at, self._made_of = now, news
                self._made = messages.to_json({"news": news, **shown})
            return self._made

    def _news(self, run: Run) -> str:
        """Names what has happened so far, but for answers to the open round."""
        state, tested = run.state, run.history.newest_tested
        facts: tuple[Any, ...] = (
            self._process, state.round, state.phase, state.paused, state.stopped, state.error,
            run.untested, tested and tested.round, run.came_and_went, len(state.removed),
            sorted(run.overdue), id(run.config)
        )
        return hashlib.blake2s(repr(facts).encode(), digest_size=8).hexdigest()
