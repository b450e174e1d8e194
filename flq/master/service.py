"""A run as it is served: the one lock, the clock, one driver thread, and what is written
(protocol.md 3 and 4).

Requests come in on many threads. Each takes the lock and asks the run; what has no answer yet waits
in questions.py. The driver does what the run asks for: it closes rounds.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Any, Callable, Iterator

from flq.algorithm.round import NonFiniteError
from flq.host import crash_points
from flq.learning.interface import Learner
from flq.master import coder
from flq.master.evaluator import Evaluator
from flq.master.questions import Questions, Then
from flq.master.run.closing import Stored
from flq.master.run.opening import recover
from flq.master.run.recovery import pack_checkpoint
from flq.master.run.run import Keep, Question, Run, Wake, is_tested
from flq.master.store.events import NOBODY, Order
from flq.master.store.run_store import RunStore, StoreError, TooLong
from flq.protocol import frames
from flq.protocol import round_machine as machine
from flq.protocol.frames import UPLOAD_KIND
from flq.protocol.messages import Changed, Hello, Registered, Registration
from flq.records import Evaluation, HeldModel, Outcome
from flq.settings import Config

_log = logging.getLogger("flq.master")

LONGEST_REPLAY_S = 2.0


class Service:
    """One run on the master.

    wire() -> (bits up, bits down) of the whole run as the server measured them; None: no wire.
    """

    def __init__(self, config: Config, learner: Learner, store: RunStore, run_id: str,
                 wire: Callable[[], tuple[int, int]] | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """config: what the run was started with; a store that holds rounds is continued where it
        ends.
        """
        self.run_id, self.learner, self.store, self._clock = run_id, learner, store, clock
        lock = threading.RLock()
        self.changed, self._driver_called = threading.Condition(lock), threading.Condition(lock)
        recovered = recover(config, learner, store, run_id, wire, clock(), coder.start)
        self.run, self._closer = recovered.run, recovered.closer
        self._untested_models = recovered.untested  # what the last master did not come to
        self._due: list[machine.Aggregate] = []
        self._replay_s, self._halted = 0.0, False
        self.news = 0  # counts what may have decided a question
        self._questions = Questions(self.changed, self._ask, clock)
        self._evaluator = Evaluator(learner, self._tested)
        self._driver = threading.Thread(target=self._drive, name="driver", daemon=True)

    def start(self) -> None:
        self._evaluator.start()
        self._questions.start()
        self._driver.start()

    def halt(self) -> None:
        """From now on nothing new is committed; a round that is being stored is finished.

        Returns at once, also in a signal's handler.
        """
        with self.changed:
            if self._halted:
                return
            self._halted = True
            self.tell_news()
            self._driver_called.notify()

    def wait_until_still(self) -> None:
        """After halt(): until nothing is being stored or tested any more."""
        self._questions.close()
        self._evaluator.close()
        self._driver.join()

    def close(self) -> None:
        self.halt()
        self.wait_until_still()
        self.store.close()

    # --- workers' requests

    def hello(self, worker: int) -> Hello:
        return self.run.hello(worker)

    def register(self, registration: Registration) -> Registered:
        with self.locked() as run:
            return run.register(registration, self._clock())

    def constants(self, token: str) -> bytes:
        with self.locked() as run:
            return run.constants(token, self._clock())

    # then: it may have to wait (Questions.answer). held: what a worker that wants a model holds.
    def broadcast(self, token: str, held: HeldModel, wait_s: float,
                  then: Then | None = None) -> Any:
        """Frames for a worker whose answer the open round waits for, None where it does not."""
        with self.locked() as run:
            return self._questions.answer(run.fetch(token, held, self._clock()), wait_s, then)

    def bid(self, token: str, document: dict[str, Any], wait_s: float, then: Then | None = None,
            held: HeldModel | None = None) -> Any:
        """Take a bid and wait for the verdict, an Outcome; a skip's is there at once."""
        with self.locked() as run:
            return self._questions.answer(run.bid(token, document, self._clock(), held), wait_s,
                                          then)

    def upload(self, token: str, data: bytes, wait_s: float, then: Then | None = None,
               held: HeldModel | None = None) -> Any:
        """Check and keep an upload, and wait for its round to be stored: an Outcome."""
        with self.locked() as run:
            session = run.enter(token, self._clock())
        # without the lock, as the checks below
        head = frames.unpack_only_head(data, UPLOAD_KIND, run.expected)
        with self.locked() as run:
            basis = run.begin_upload(session, head)
        received = run.check_upload(basis, head, data)
        with self.locked() as run:
            taken = run.upload(basis, received, self._clock(), held)
            return taken if isinstance(taken, Outcome) else self._questions.answer(
                taken, wait_s, then)

    def outcome(self, token: str, round_: int, wait_s: float, then: Then | None = None,
                held: HeldModel | None = None) -> Any:
        """Wait for the Outcome of a worker's answer."""
        with self.locked() as run:
            return self._questions.answer(run.outcome(token, round_, self._clock(), held), wait_s,
                                          then)

    def heartbeat(self, token: str, temperature_c: float | None = None) -> str:
        with self.locked() as run:
            return run.heartbeat(token, temperature_c, self._clock())

    def leave(self, token: str) -> None:
        with self.locked() as run:
            run.leave(token, self._clock())

    # --- operators' requests

    def pause(self, order: Order = NOBODY) -> None:
        """It is stored when this returns. Raises StoreError, and nothing has changed then."""
        with self.locked() as run:
            self.store.add_events(*run.plan_pause(True, order))
            run.pause(self._clock())

    def resume(self, order: Order = NOBODY) -> None:
        """It is stored when this returns. Raises StoreError, and nothing has changed then."""
        with self.locked() as run:
            self.store.add_events(*run.plan_pause(False, order))
            run.resume(self._clock())

    def stop(self, order: Order = NOBODY) -> None:
        """The run stops also where the disk has no room for the order."""
        with self.locked() as run:
            try:
                self.store.add_events(*run.plan_stop(order))
            except StoreError as error:
                _log.warning("the stop by %s is in no history: %s", order.by, error)
            run.stop(self._clock())

    def remove(self, worker: int, order: Order = NOBODY) -> None:
        """It is stored when this returns. Raises StoreError, and nothing has changed then."""
        with self.locked() as run:
            self.store.add_events(*run.plan_removal(worker, order))
            run.remove(worker, self._clock())

    def change(self, changes: dict[str, Any], by: str, at: float = 0.0) -> Changed:
        """Other values of some keys, all or none, stored as the others."""
        with self.locked() as run:
            change = run.plan_change(changes, by, at)
            self.store.add_events(change.effective_round + 1, change.again)
            self.store.add_events(change.effective_round, change.events)
            return run.change(change, self._clock())

    # --- what others see and wait for

    @contextlib.contextmanager
    def locked(self) -> Iterator[Run]:
        """The run, with nobody else at it; who waits for what happens to it is woken afterwards."""
        with self.changed:
            try:
                yield self.run
            finally:
                self._act()

    def tell_news(self) -> None:
        """Under the lock: who waits for what happens to the run looks again."""
        self.news += 1
        self._questions.ask_again()
        self.changed.notify_all()

    def now(self) -> float:
        return self._clock()

    def wait_for(self, condition: Callable[[Run], bool], timeout_s: float | None = None) -> bool:
        """Until condition(run) or the service is halted; False where neither comes in time."""
        with self.changed:
            return self.changed.wait_for(lambda: self._halted or condition(self.run), timeout_s)

    def wait_for_end(self, timeout_s: float | None = None) -> bool:
        """True once the run is over and its last model was tested."""
        return self.wait_for(lambda run: run.is_over and not run.untested, timeout_s)

    def wait_until_heard(self, timeout_s: float) -> bool:
        """True once all have heard that the run is over."""
        return self.wait_for(lambda run: run.all_heard(self._clock()), timeout_s)

    def settle(self, interrupted: bool = False) -> None:
        """Write what came after the last round; interrupted: see Run.ending. Raises StoreError."""
        with self.locked() as run:
            if not run.history.over:
                ending, changed = run.ending(interrupted)
                self.store.add_ending(ending, changed)
                run.ended(ending, changed)

    # --- under the lock

    def _act(self) -> None:
        """Do what the run asks for."""
        for effect in self.run.take_effects():
            if isinstance(effect, Keep):
                self._keep()
            elif not isinstance(effect, Wake):
                self._due.append(effect)
                self._driver_called.notify()
            else:
                if effect.driver:
                    self._driver_called.notify()
                if effect.requests and effect.whose is not None:
                    self._questions.ask_again(effect.whose)
                    self.changed.notify_all()
                elif effect.requests:
                    self.tell_news()

    def _keep(self) -> None:
        """Store what was counted since the last round was. Without room it goes with the next one;
        once the service is halted it goes with the ending.
        """
        if self._halted:
            return
        so_far, changed = self.run.so_far()
        try:
            self.store.add_ending(so_far, changed)
        except StoreError as error:
            _log.warning("%s", error)
        else:
            self.run.ended(so_far, changed)

    def _ask(self, question: Question, last: bool) -> Any:
        with self.locked() as run:
            return run.answer(question, self._clock(), last=last or self._halted)

    # --- the driver

    def _drive(self) -> None:
        for round_ in sorted(self._untested_models):
            self._evaluator.put(round_, self._untested_models.pop(round_))
        while True:
            with self.locked() as run:
                while not self._due and not self._halted:
                    wake = run.next_wake()
                    self._driver_called.wait(None if wake is
                                             None else max(0.0, wake - self._clock()))
                    run.tick(self._clock())
                    self._act()
                if self._halted:
                    return
                effect = self._due.pop(0)
            try:
                self._close_round(effect)
            except NonFiniteError as error:
                self._fail(str(error))
            except StoreError as error:
                _log.error("%s", error)
                with self.locked() as run:
                    run.store_full(str(error), self._clock())
            # whatever it is, the run pauses with its reason instead of hanging
            except Exception as error:
                _log.exception("closing round %d failed", effect.round)
                self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, message: str) -> None:
        with self.locked() as run:
            run.fail(message, self._clock())

    def _close_round(self, effect: machine.Aggregate) -> None:
        with self.locked() as run:
            opened, measured = run.begin_closing(effect, self._clock(), time.time())
        started = time.perf_counter()
        stored = self._closer.close(opened, measured)
        self._replay_s += time.perf_counter() - started
        crash_points.reach("adopt.before")
        with self.locked() as run:
            run.adopt(stored, measured, self._clock())
            tested = is_tested(run.config, stored.record) or run.is_over
        self._checkpoint_when_due(stored)
        record = stored.record
        _log.info("round %d: %d selected, %d skipped, %d refused, %d missing, %.3f s", record.round,
                  len(record.selected), len(record.skipped), len(record.refused),
                  len(record.missing), record.round_time_s)
        if tested:
            self._evaluator.put(record.round, stored.model)
        else:
            self._tested(record.round, None)

    def _checkpoint_when_due(self, stored: Stored) -> None:
        """A checkpoint when computing the rounds since the last one again would take too long."""
        if self._replay_s >= LONGEST_REPLAY_S:
            self._replay_s = 0.0
            try:
                self.store.add_checkpoint(stored.model.version, *pack_checkpoint(stored.model))
            except StoreError as error:
                # the rounds are there; a restart computes more of them
                _log.warning("no checkpoint: %s", error)
                if isinstance(error, TooLong):  # and so would be the next
                    self._replay_s = float("-inf")

    def _tested(self, round_: int, result: Evaluation | None) -> None:
        """Called by the evaluator with what it found, or at once for a round that is not tested."""
        with self.locked() as run:
            if result is not None:
                self._store_test(round_, result)
            run.tested(round_, result)

    def _store_test(self, round_: int, result: Evaluation) -> None:
        """Write a test down; without room it is tried again until the master ends."""
        told = False
        while not self._halted:
            try:
                self.store.add_evaluation(round_, result)
            except StoreError as error:
                if not told:
                    _log.error("the test of round %d: %s", round_, error)
                told = True
                self.changed.wait(machine.BLOCKED_RETRY_S)
            else:
                break
