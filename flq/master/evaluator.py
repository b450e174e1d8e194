"""Tests models on a thread of its own, while the workers train on them."""

from __future__ import annotations

import collections
import logging
import threading
from typing import Callable

from flq.algorithm.model_state import ModelState
from flq.learning.interface import Learner
from flq.records import Evaluation

_log = logging.getLogger("flq.master")

# models that may wait: more would be memory without end where testing is slower than the rounds
_AHEAD = 2


class Evaluator:
    """found(round, evaluation) is called for every model; evaluation is None when the test failed.
    """

    def __init__(self, learner: Learner, found: Callable[[int, Evaluation | None], None]) -> None:
        self._learner, self._found = learner, found
        self._waiting: collections.deque[tuple[int, ModelState]] = collections.deque()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="evaluator", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, round_: int, model: ModelState) -> None:
        """Blocks while the tests are behind; once it is closed, a model is dropped."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < _AHEAD)
            self._waiting.append((round_, model))
            self._changed.notify_all()

    def close(self) -> None:
        """Returns when the test under way is done; those that wait are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                round_, model = self._waiting.popleft()
                self._changed.notify_all()
            try:
                self._found(round_, self._learner.evaluate(*model.result))
            except Exception:  # a test that fails must not stop the run that it tests
                _log.exception("testing the model of round %d failed", round_)
                self._found(round_, None)
