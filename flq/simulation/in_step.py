"""Rounds that wait for the caller: what it is shown of a round is complete, and what it decides
counts from the next one on.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from flq.algorithm import cohorts
from flq.master.service import Service
from flq.records import Bid, HeldModel, Outcome, RoundRecord
from flq.simulation.local_client import LocalClient

_LOOK_EVERY_S = 0.2  # how soon the end of a worker's thread is noticed; all else is told


class InStep:
    """on_round(record) is called for each round in turn, in the thread that calls `wait`; when it
    returns False, the run ends there.

    No worker begins a round before it has returned. The record is final: the model was tested,
    where that is due, and with quorum all everybody who is to have it has received it. With quorum
    deadline nobody waits for who is late; the deadline does not stand still meanwhile.
    """

    def __init__(self, service: Service, on_round: Callable[[RoundRecord], Any]) -> None:
        self._service, self._on_round = service, on_round
        self._shown = len(service.run.history)  # rounds that the caller has seen
        self._received: dict[int, int] = {}  # worker -> the version that it was sent last
        self._over = False

    def arrive(self, worker: int) -> int:
        """A worker was sent a model; gives its version."""
        changed = self._service.changed
        with changed:
            version = self._received[worker] = self._service.run.model.version
            changed.notify_all()
            return version

    def may_begin(self, version: int) -> bool:
        """Whether the caller has seen every round before that version, or nobody waits any more."""
        return self._over or self._shown >= version

    def halt(self) -> None:
        """Nobody waits any more, and nothing new is committed. Returns at once."""
        self._over = True
        self._service.halt()

    def wait(self, living: Sequence[int]) -> None:
        """Show the next round, if that closes before long. living: the workers that still run."""
        changed = self._service.changed
        with changed:
            if not changed.wait_for(lambda: self._is_complete(living), _LOOK_EVERY_S):
                return
            record = self._service.run.history.row(self._shown)
        answer = self._on_round(record)
        with changed:
            if isinstance(answer, (bool, np.bool_)) and not answer:
                self._service.stop()  # the open round, to which nobody has answered, is dropped
            self._shown += 1
            self._service.tell_news()

    def _is_complete(self, living: Sequence[int]) -> bool:
        run = self._service.run
        if len(run.history) == self._shown or run.untested:
            return False
        return run.config.system.quorum != "all" or all(
            self._received.get(worker, 0) > self._shown for worker in living
            if cohorts.plays(worker, self._shown + 1, run.config.system.cohorts))


class ClientInStep(LocalClient):
    """The client of one worker of such a run."""

    def __init__(self, service: Service, worker: int, in_step: InStep) -> None:
        super().__init__(service, worker, longest_wait_s=0.0)
        self._in_step = in_step
        self._came: tuple[bytes, int] | None = None  # a model that waits for the caller

    # A model comes alone here: it waits for the caller, and an outcome does not.
    def bid(self, bid: Bid, wait_s: float, held: HeldModel | None = None) -> Outcome:
        return super().bid(bid, wait_s)

    def upload(self, frame: bytes, wait_s: float, held: HeldModel | None = None) -> Outcome:
        return super().upload(frame, wait_s)

    def outcome(self, round_: int, wait_s: float, held: HeldModel | None = None) -> Outcome:
        return super().outcome(round_, wait_s)

    def fetch_model(self, held: HeldModel, wait_s: float) -> bytes | None:
        if self._came is None:
            data = super().fetch_model(held, wait_s)
            if data is None:
                return None
            self._came = data, self._in_step.arrive(self._worker)
        data, version = self._came
        if not self._in_step.may_begin(version):
            return None
        self._came = None
        if not self._service.run.state.stopped:
            return data
        model = self._service.run.model
        # raises that the run was stopped
        return super().fetch_model(HeldModel(model.version, model.params_hash), 0.0)
