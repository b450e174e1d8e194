"""The run: the only lock, the clock, one driver thread (protocol.md 3 and 4).

Requests come in on many threads. Each takes the lock, tells the round machine what happened, and waits
for what it wants to hear. The driver does what the machine asks for: it closes rounds.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Any, Callable

from flq import config as configuration
from flq import crash_points
from flq.algorithm import round as rounds
from flq.algorithm import uplink
from flq.algorithm.round import Account, NonFiniteError
from flq.algorithm.selection import Candidate, select
from flq.errors import ConfigError, ProtocolError
from flq.master.accounting import Bits
from flq.master.broadcasts import Broadcasts
from flq.master.checks import Received, check_budget, check_grant, check_registration, check_upload
from flq.master.closing import Measured, OpenRound, RoundCloser, Stored, new_sizes, round_terms
from flq.master.evaluator import Evaluator
from flq.master.history import History
from flq.master.outcomes import outcome_of
from flq.master.recovery import Replayer, changed_config, pack_state
from flq.master.run_store import FINISHED, STOPPED, UNFINISHED, Ending, Event, RunStore, StoreError
from flq.master.sessions import Session, Sessions
from flq.parameters import constants_hash, squared_norm
from flq.protocol import frames
from flq.protocol import round_machine as machine
from flq.protocol.frames import UPLOAD_KIND, Expected
from flq.protocol.messages import Registration
from flq.records import Bid, Evaluation, Option, Outcome, RoundRecord

_log = logging.getLogger("flq.master")

MAX_WAIT_S = 30.0
LONGEST_REPLAY_S = 2.0
_LONGEST_SILENCE_S = 15.0  # a worker whose master was away pauses up to 10 s between two tries
_LONGEST_UNTESTED = 100  # rounds that a master looks back over for tests that the one before it did not come to


class Service:
    """One run on the master. learner: the master's (layout, initial, evaluate, num_samples, partition_hash).

    wire() -> (bits up, bits down) of the whole run as the server measured them, None where there is no wire.
    """

    def __init__(self, config: Any, learner: Any, store: RunStore, run_id: str,
                 wire: Callable[[], tuple[int, int]] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """config: what the run was started with; a store that holds rounds is continued where it ends."""
        self.run_id, self.config, self.given_config, self.learner, self.store = run_id, config, config, learner, store
        self._clock = clock
        self._settings = uplink.settings_from(config, learner.layout)
        self._expected = Expected(run_id, learner.layout, self._settings.sizes)
        check_budget(config, self._settings, learner.layout)
        if learner.layout.num_constants:
            self._keep_constants()
        lock = threading.RLock()
        self._changed, self._driver_called = threading.Condition(lock), threading.Condition(lock)
        first = rounds.initial_state(config, learner.layout, *learner.initial())
        self.history = History(store, wire)
        self.config = changed_config(config, store)  # a run that was made shorter has another last model
        untested = self.history.untested(self._is_tested, _LONGEST_UNTESTED)
        recovered = Replayer(run_id, store, learner.layout, self._settings).recover(config, first, untested=untested)
        self.model, self.config = recovered.model, recovered.config
        self._first_hash = first.params_hash
        self._broadcasts = Broadcasts(self._expected)
        self._closer = RoundCloser(run_id, config, store, self._broadcasts, self._settings, self._expected)
        self._sessions = Sessions()
        self._machine = machine.initial_state(self._round_settings(), clock(), self.model.version, recovered.removed)
        self._terms = round_terms(self.config, self.model, self._machine)
        self._effects: list[machine.Aggregate] = []
        self._received: dict[int, Received] = {}
        self._opened: OpenRound | None = None  # what the round that is being closed was taken from
        self._departing: set[int] = set()
        self._left: set[int] = set()  # who said goodbye and did not come back
        self._events: list[Event] = []
        self.devices: dict[int, dict[str, Any]] = {}
        self._heard_end: set[int] = set()
        self._started_at = clock()
        self._untested_models = recovered.untested  # what the last master did not come to
        self._untested = len(recovered.untested)
        self._replay_s = 0.0
        self._closing = False
        if self.model.version or store.events():
            self._restore()
        self._evaluator = Evaluator(learner, self._tested)
        self._driver = threading.Thread(target=self._drive, name="driver", daemon=True)

    def _keep_constants(self) -> None:
        """The frozen layers keep the values that the run began with, also where the model's function draws others now."""
        kept = self.store.constants()
        if kept is None:
            self.store.add_constants(self.learner.constants)
        elif self.learner.hold_constants(constants_hash(kept), lambda: kept):
            _log.info("the frozen layers have the values that the run began with: this process had drawn others")

    def _restore(self) -> None:
        """What the store knows besides the model: records, counts, bits, the frames of the last versions."""
        ending, finished = self.store.ending(), self._machine.phase == machine.FINISHED
        self._broadcasts.restore(self.store.broadcasts(), self._first_hash)
        self.history.restore(self.store.newest_accounting() if ending is None else ending.accounting)
        self.history.over = ending is not None and ending.phase == FINISHED and finished
        self.devices.update((event.detail["worker"], event.detail["device"]) for event in self.store.events() if event.kind == "device")
        if ending is not None:
            self.devices.update((int(worker), device) for worker, device in ending.devices.items())
        self._departing = {event.detail["worker"] for event in self.store.events(self.model.version)
                           if event.kind == "remove" and self._is_member(event.detail["worker"])}
        last = self.store.last_rounds()
        self._left = {worker for worker, round_ in self.store.last_leaves().items() if last.get(worker, -1) < round_}
        _log.info("round %d is the next: %d rounds are in %s", self.model.version, len(self.history), self.store.path)

    def start(self) -> None:
        self._evaluator.start()
        self._driver.start()

    def halt(self) -> None:
        """From now on nothing new is committed; a round that is being stored is finished. Returns at once, also in a signal's handler."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            self._driver_called.notify()

    def wait_until_still(self) -> None:
        """After halt(): until nothing is being stored or tested any more."""
        self._evaluator.close()
        self._driver.join()

    def close(self) -> None:
        self.halt()
        self.wait_until_still()
        self.store.close()

    # --- workers' requests

    def hello(self, worker: int) -> dict[str, Any]:
        """The answer to a registration without data: what a worker needs to build its model and find its samples."""
        self._check_worker(worker)
        return {"run_id": self.run_id, "config": configuration.shared_values(self.given_config)}

    def register(self, registration: Registration) -> dict[str, Any]:
        worker = registration.worker
        self._check_worker(worker)
        with self._changed:
            self._check_alive(worker)
            self._check_room()
            check_registration(registration, self.given_config, self.learner)
            session = self._sessions.open(worker, registration.instance, registration.take_over, self._clock(),
                                          self.config.system.worker_timeout_s)
            account = self._open_account(worker, registration.num_samples)
            self._left.discard(worker)
            known = next((state for state in registration.states if state.run_id == self.run_id), None)
            held = b"" if known is None else bytes.fromhex(known.reference_hash)
            pending = b"" if known is None else bytes.fromhex(known.pending_hash)
            other_data = account.num_samples != registration.num_samples
            keep = account.reference_hash in (held, pending) and not other_data
            if not keep:
                account = self._reset(worker, account)
            if other_data:
                _log.info("worker %d has %d samples now, not %d", worker, registration.num_samples, account.num_samples)
                self._events.append(Event("samples", {"worker": worker, "num_samples": registration.num_samples}))
                account = self._account(worker)
            fresh = not keep or known is None or (known.pending < 0 and known.round <= self.model.version)
            have = self._confirm_version(worker, registration, known)
            self._note_device(worker, registration.device)
            if fresh:
                self._drop_received(worker)
            self._step(machine.Joined(worker, fresh))
            outcome = "" if known is None or known.pending < 0 else self._outcome(worker, known.pending).state
            _log.info("worker %d registered: %d samples, %s", worker, account.num_samples,
                      "reference kept" if keep else "reference reset to 0")
            return {"run_id": self.run_id, "session": session.token, "round": self._machine.round, "version": self.model.version,
                    "have": have, "params_hash": self.model.params_hash.hex(), "owes": machine.owes(self._machine, worker),
                    "outcome": outcome, "reference": "keep" if keep else "reset", "reference_hash": account.reference_hash.hex(),
                    "terms": self._terms._asdict(),
                    **({"constants_hash": constants_hash(self.learner.constants)} if self.learner.layout.num_constants else {})}

    def constants(self, token: str) -> bytes:
        """The values of the model's frozen layers, for a worker that holds others."""
        with self._changed:
            worker = self._enter(token).worker
            if not self.learner.layout.num_constants:
                raise ProtocolError("not_found", "the model has no frozen layers")
            data: bytes = self.learner.constants
            self.history.sent_constants(worker, Bits(8 * len(data), 8 * len(data), 0))
            return data

    def broadcast(self, token: str, have: int, params_hash: bytes, wait_s: float) -> bytes | None:
        """Frames for a worker whose answer the open round waits for; None when wait_s passed without that."""
        with self._changed:
            session = self._enter(token)
            return self._wait_for(session, wait_s, lambda: self._deliver(session.worker, have, params_hash))

    def bid(self, token: str, bid: Bid, wait_s: float) -> Outcome:
        """Take a bid and wait for the verdict; a skip is answered at once."""
        with self._changed:
            session = self._enter(token)
            self._check_round(bid.worker, bid.round)
            if bid.round == self._machine.round:
                self._step(machine.BidCame(bid))
            return self._wait_for_outcome(session, bid.round, wait_s)

    def upload(self, token: str, data: bytes, wait_s: float) -> Outcome:
        """Check and keep an upload, and wait for its round to be stored."""
        with self._changed:
            worker = self._enter(token).worker
            model, account, option = self.model, self._account(worker), (self._machine.granted or {}).get(worker)
        # Checking and decoding take milliseconds: other requests go on meanwhile.
        frame = frames.unpack(data, UPLOAD_KIND, self._expected)
        round_ = frame.header.round
        received = None
        if round_ == model.version:
            received = check_upload(worker, frame, data, model.params_hash, account, self._settings, self.config, self._expected.layout)
        elif round_ < model.version and self._takes_late(worker, round_, account):
            return self._upload_late(token, worker, frame, data, account, wait_s)
        with self._changed:
            session = self._enter(token)
            self._check_round(worker, round_)
            if received is not None and round_ == self._machine.round and self._machine.phase in machine.ANSWERING:
                if self._machine.two_phase:
                    check_grant(received, option)
                self._keep(received)
            outcome = self._wait_for_outcome(session, round_, wait_s)
            if outcome.state == "late" and self.history.mark_late(worker, round_):
                _log.info("worker %d: the update of round %d came late and changes nothing", worker, round_)
            return outcome

    def _takes_late(self, worker: int, round_: int, account: Account) -> bool:
        """True when an upload of that closed round, which continues this account's chain, may become part of the open round."""
        with self._changed:
            same = self._account(worker).reference_hash == account.reference_hash
            return same and self._outcome(worker, round_).state == "granted"

    def _upload_late(self, token: str, worker: int, frame: frames.Frame, data: bytes, account: Account, wait_s: float) -> Outcome:
        """Keep an upload of a closed round for the open one, and wait for that to be stored."""
        round_ = frame.header.round
        base_hash = bytes.fromhex(self.history.row(round_ - 1).params_hash) if round_ else self._first_hash
        lost = Outcome(round_, "late", 0, account.reference_hash.hex())
        if frame.header.params_hash != base_hash:
            return lost  # of a round that a master which was restored from an older copy closed in another way
        received = check_upload(worker, frame, data, base_hash, account, self._settings, self.config, self._expected.layout)
        if self._is_too_long(received):
            return lost
        with self._changed:
            session = self._enter(token)
            if self._takes_late(worker, round_, account):
                self._keep(replace(received, bid=received.bid._replace(round=self._machine.round)))
                if self.history.mark_late(worker, round_):
                    _log.info("worker %d: the update of round %d came late and is taken for round %d", worker, round_, self._machine.round)
            return self._wait_for_outcome(session, round_, wait_s)

    def outcome(self, token: str, round_: int, wait_s: float) -> Outcome:
        with self._changed:
            session = self._enter(token)
            if round_ > self._machine.round:
                raise ProtocolError("wrong_round", "that round is not open yet", f"at most {self._machine.round}", round_)
            if round_ == self._machine.round and machine.owes(self._machine, session.worker) == "bid":
                raise ProtocolError("not_participant", f"no answer of worker {session.worker} to round {round_} is here",
                                    hint="register and send it again")
            return self._wait_for_outcome(session, round_, wait_s)

    def heartbeat(self, token: str, temperature_c: float | None = None) -> str:
        """A sign of life; answers run, paused or stop. temperature_c: the worker's machine now, for /status."""
        with self._changed:
            worker = self._enter(token, machine.Seen).worker
            if temperature_c is not None:
                self.devices[worker] = {**self.devices.get(worker, {}), "temperature_c": temperature_c}
            if self._machine.phase == machine.FINISHED:
                return "stop"
            return "paused" if self._machine.paused else "run"

    def leave(self, token: str) -> None:
        """Taken in every phase, also while the disk is full: the process that leaves would not ask again."""
        with self._changed:
            worker = self._sessions.get(token, self._clock()).worker
            self._sessions.end(worker)
            self._heard_end.add(worker)
            if not self._machine.settings.wait_for_all:
                self._drop_received(worker)
                self._depart(worker, "leave")
                self._left.add(worker)
            _log.info("worker %d left", worker)
            self._step(machine.Left(worker))

    # --- operators' requests

    def pause(self) -> None:
        with self._changed:
            self._step(machine.Paused())

    def resume(self) -> None:
        with self._changed:
            self._step(machine.Resumed())

    def stop(self) -> None:
        with self._changed:
            self._step(machine.StopAsked())

    def remove(self, worker: int) -> None:
        """Take a worker out of the run for good; its reference leaves the average with the next round.

        It is stored when this returns. Raises StoreError, and nothing has changed then.
        """
        self._check_worker(worker)
        with self._changed:
            self._check_changeable()
            if worker not in self._machine.removed:
                self.store.add_events(self._next_to_close, [Event("remove", {"worker": worker})])
            self._sessions.end(worker)
            self._drop_received(worker)
            if self._is_member(worker):
                self._departing.add(worker)
            self._step(machine.Removed(worker))
            _log.info("worker %d was removed by the operator", worker)

    def change(self, changes: dict[str, Any], by: str) -> dict[str, Any]:
        """Change keys at run time, all or none. The open round keeps what it was opened with where that shapes it.

        They are stored when this returns. Raises StoreError, and nothing has changed then.
        """
        with self._changed:
            self._check_changeable()
            config = self.config
            try:
                for path, value in changes.items():
                    config = configuration.change(config, path, value)
                check_budget(config, self._settings, self.learner.layout)
            except ConfigError as error:
                changeable = any(path in (key.path, key.name) for key in configuration.KEYS if key.runtime)
                raise ProtocolError("bad_value" if changeable else "cannot_change", error.message, error.expected, error.got, error.hint)
            effective = self._next_to_close
            if config.system.max_rounds <= effective:
                raise ProtocolError("bad_value", "system.max_rounds is in the past", f"more than {effective}", config.system.max_rounds)
            before, after = configuration.flat(self.config), configuration.flat(config)
            changed = {path: {"old": before[path], "new": after[path]} for path in after if before[path] != after[path]}
            self.store.add_events(effective, [Event("config", {"key": path, "by": by, **values}) for path, values in changed.items()])
            for path, values in changed.items():
                _log.info("%s changed %s from %s to %s, effective in round %d", by, path, values["old"], values["new"], effective)
            for line in configuration.without_effect(config, set(changed)):
                _log.warning("%s", line)
            self.config = config
            self._step(machine.Reconfigured(self._round_settings()))
            return {"effective_round": effective, "changed": changed}

    def view(self) -> tuple[machine.RoundState, Sessions]:
        """What status reports read; hold `locked()` meanwhile."""
        return self._machine, self._sessions

    def locked(self) -> threading.Condition:
        return self._changed

    def worker_of(self, token: str) -> int:
        """The worker of a session. Raises unknown_session or session_superseded."""
        with self._changed:
            return self._sessions.get(token, self._clock()).worker

    def now(self) -> float:
        return self._clock()

    @property
    def pending_tests(self) -> int:
        """Closed rounds whose models wait for their test."""
        return self._untested

    def wait_for_end(self, timeout_s: float | None = None) -> bool:
        """True once the run is over and its last model was tested."""
        def over() -> bool:
            return self._closing or (self._machine.phase == machine.FINISHED and not self._untested)

        with self._changed:
            return self._changed.wait_for(over, timeout_s)

    @property
    def hearing_s(self) -> float:
        """How long a worker may need to hear that the run is over."""
        return max(self.config.system.worker_timeout_s, _LONGEST_SILENCE_S)

    def wait_until_heard(self, timeout_s: float) -> bool:
        """True once all have heard that the run is over: who was seen lately, and who may not have come back to a new master yet."""
        def all_heard() -> bool:
            now = self._clock()
            alive = set(self._sessions.seen_since(now - self.config.system.worker_timeout_s))
            if now - self._started_at < self.hearing_s:
                alive |= {worker for worker in self.model.accounts if self._sessions.last_seen(worker) is None} - self._machine.removed
            return self._closing or alive <= self._heard_end

        with self._changed:
            return self._changed.wait_for(all_heard, timeout_s)

    def settle(self) -> None:
        """Write down what came after the last round had closed: the rows add up to all that travelled.

        Once the run is over with this, nothing changes its rows any more. Raises StoreError.
        """
        with self._changed:
            if self.history.over:
                return
            over = self._machine.phase == machine.FINISHED and not self._untested
            phase = UNFINISHED if not over else STOPPED if self._machine.stopped else FINISHED
            self.history.settle_wire()
            changed = self.history.changed()
            devices = {str(worker): self.devices[worker] for worker in sorted(self.devices)}
            self.store.add_ending(Ending(len(self.history), phase, self.history.save(), devices), changed)
            self.history.stored(changed)
            self.history.over = over

    # --- checks

    def _check_changeable(self) -> None:
        opened = self._opened
        is_last = opened is not None and (opened.state.stopping or self._next_to_close >= opened.config.system.max_rounds)
        if self._machine.phase == machine.FINISHED or is_last:
            raise ProtocolError("finished", f"the run is over after {self._next_to_close} rounds: nothing can be changed any more",
                                hint="start a new run for more")

    def _check_worker(self, worker: int) -> None:
        if worker >= self.config.system.total_workers:
            raise ProtocolError("not_found", f"worker {worker} is not in this run", f"0 to {self.config.system.total_workers - 1}", worker,
                                "system.total_workers sets the number of workers")

    def _check_alive(self, worker: int) -> None:
        if worker in self._machine.removed:
            raise ProtocolError("removed", f"worker {worker} was removed from this run by its operator")
        if self._machine.phase == machine.FINISHED:
            self._end_for(worker)

    def _end_for(self, worker: int) -> None:
        self._heard_end.add(worker)
        self._changed.notify_all()
        if self._machine.stopped:
            raise ProtocolError("stopped", "the run was stopped by its operator")
        raise ProtocolError("finished", "the run is finished")

    def _check_round(self, worker: int, round_: int) -> None:
        if round_ > self._machine.round:
            raise ProtocolError("wrong_round", "that round is not open yet", self._machine.round, round_)
        is_open = round_ == self._machine.round and self._machine.phase in machine.ANSWERING
        if is_open and not machine.may_answer(self._machine, worker):
            raise ProtocolError("not_participant", f"worker {worker} does not take part in round {round_}",
                                hint="register and wait for the next round")

    # --- under the lock

    @property
    def _next_to_close(self) -> int:
        """The first round whose result can still be changed."""
        return self._machine.round + (self._opened is not None)

    def _awaited(self) -> set[int]:
        """Who should answer the open round: all that ever registered, but for newcomers, and for who left or was removed."""
        newcomers = {event.detail["worker"] for event in self._events if event.kind == "join"}
        return set(self.model.accounts) - newcomers - self._left - self._machine.removed

    def _enter(self, token: str, event: Any = machine.Asked) -> Session:
        """The session of a request. event: what the round machine hears of it."""
        session = self._sessions.get(token, self._clock())
        self._step(event(session.worker))
        self._check_room()
        return session

    def _check_room(self) -> None:
        if self._machine.phase == machine.BLOCKED:
            raise ProtocolError("blocked", self._machine.error or "the master cannot write its disk")

    def _wait_for(self, session: Session, wait_s: float, look: Callable[[], Any]) -> Any:
        """look() after each change until it gives something or wait_s has passed."""
        deadline = self._clock() + min(max(0.0, wait_s), MAX_WAIT_S)
        while True:
            found = look()
            remaining = deadline - self._clock()
            if found is not None or remaining <= 0 or self._closing:
                self._enter(session.token)  # it was there all the time
                return found
            self._changed.wait(remaining)
            if not self._sessions.is_current(session):
                self._sessions.get(session.token, self._clock())  # raises what became of it

    def _wait_for_outcome(self, session: Session, round_: int, wait_s: float) -> Outcome:
        def look() -> Outcome | None:
            outcome = self._outcome(session.worker, round_)
            if outcome.state != "open":
                return outcome
            if self._machine.phase == machine.FINISHED:
                self._end_for(session.worker)  # the run ended without closing that round
            return None

        return self._wait_for(session, wait_s, look) or self._outcome(session.worker, round_)

    def _deliver(self, worker: int, have: int, params_hash: bytes) -> bytes | None:
        model, over = self.model, self._machine.phase == machine.FINISHED
        if over and have == model.version:
            self._end_for(worker)
        if not over and machine.owes(self._machine, worker) != "bid":
            return None
        counted = self.history.accounting.delivered.get(worker, -1)
        delivery = self._broadcasts.deliver(model, have, params_hash, self._terms, over, counted)
        # Without compression a receiver would be sent p float32 for each version.
        bits = Bits(delivery.nominal_bits, delivery.payload_bits, 32 * self._expected.layout.num_params)
        self.history.sent(worker, model.version, bits)
        return delivery.data

    def _step(self, event: Any) -> None:
        now = self._clock()
        before = self._machine
        self._machine, effects = machine.step(self._machine, event, now)
        for effect in effects:
            if isinstance(effect, machine.Select):
                self._step(machine.Selected(self._select(effect.bids)))
            elif isinstance(effect, machine.Opened):
                _log.debug("round %d is open for %d workers", effect.round, len(self._machine.participants))
            elif isinstance(effect, machine.LeftOut):
                _log.warning("worker %d let %d deadlines pass in a row and sends heartbeats only: no round waits for it until it asks for "
                             "a model or answers", effect.worker, machine.LONGEST_SILENCE)
            elif isinstance(effect, machine.Ended):
                _log.info("the run is over after %d rounds%s", self._machine.round, " (stopped)" if effect.stopped else "")
            else:
                self._effects.append(effect)
        if self._machine.paused and self._machine.error and self._machine.error != before.error:
            _log.error("the run pauses: %s", self._machine.error)
        opened = any(isinstance(effect, machine.Opened) for effect in effects)
        if opened or not isinstance(event, (machine.Seen, machine.Asked)):
            self._driver_called.notify()
        # A sign of life or an answer is no news to the other workers' requests, unless a round opens with it. Were they woken by every
        # upload, they would all stand before the driver when the last one comes.
        if opened or not isinstance(event, (machine.Seen, machine.Asked, machine.BidCame, machine.UploadCame)):
            self._changed.notify_all()

    def _select(self, bids: tuple[Bid, ...]) -> dict[int, Option]:
        candidates = []
        for bid in bids:
            account = self._account(bid.worker)
            weight, overdue = rounds.candidate_weight(self.model, account), rounds.is_overdue(self.config, account)
            candidates.append(Candidate(bid.worker, weight, overdue, bid.options[0]))
        budget = self.config.budget_selection
        granted = select(candidates, budget.sel_clients, budget.up_budget_bits)
        if budget.up_budget_bits and sum(option.bits for option in granted.values()) > budget.up_budget_bits:
            _log.warning("round %d: the budget of %d bits is below the smallest bid; the best single upload was granted",
                         self._machine.round, budget.up_budget_bits)
        return granted

    def _keep(self, received: Received) -> None:
        bid = received.bid
        if self._is_too_long(received):
            self._step(machine.BidCame(bid._replace(skip=True, reason="nonfinite", options=())))
            return
        self._received[bid.worker] = received
        self._step(machine.UploadCame(bid))

    def _is_too_long(self, received: Received) -> bool:
        limit = self.config.security.max_update_norm
        if not limit or squared_norm(received.upload.innovation) <= limit * limit:
            return False
        _log.warning("worker %d: the update of round %d is longer than security.max_update_norm and counts as missing",
                     received.bid.worker, received.computed_in)
        return True

    def _drop_received(self, worker: int) -> None:
        """Forget an upload as the machine forgets an answer: not once its round is being closed."""
        if self._machine.phase in machine.ANSWERING:
            self._received.pop(worker, None)

    def _outcome(self, worker: int, round_: int) -> Outcome:
        return outcome_of(worker, round_, self._machine, self._account(worker), self._received, self.store,
                          self.config.system.late_updates == "apply")

    def _open_account(self, worker: int, num_samples: int) -> Account:
        if worker not in self.model.accounts:
            uniform = self.config.flq_algorithm.weighting == "uniform"
            self.model = rounds.open_account(self.model, self.run_id, worker, num_samples, uniform)
            self._events.append(Event("join", {"worker": worker, "num_samples": num_samples}))
        return self._account(worker)

    def _account(self, worker: int) -> Account:
        """The worker's account as the open round sees it: a departure and another number of samples take effect when it closes."""
        account = self.model.accounts[worker]
        if worker in self._departing:
            account = rounds.departed(self.run_id, worker, account)
        size = new_sizes(self._events).get(worker)
        return account if size is None else rounds.resized(account, size, self.config.flq_algorithm.weighting == "uniform")

    def _reset(self, worker: int, account: Account) -> Account:
        if account.member or worker in self._departing:
            self._depart(worker, "reset")
        return self._account(worker)

    def _note_device(self, worker: int, device: dict[str, Any]) -> None:
        """Written down with the next round that closes, once for each machine: a temperature alone is no news."""
        known, self.devices[worker] = self.devices.get(worker, {}), device
        if {**known, "temperature_c": None} != {**device, "temperature_c": None}:
            self._events.append(Event("device", {"worker": worker, "device": device}))

    def _depart(self, worker: int, kind: str) -> None:
        if self._is_member(worker) and worker not in self._departing:
            self._departing.add(worker)
        elif kind != "leave":  # a goodbye is written down in any case: nobody waits for that worker any more
            return
        self._events.append(Event(kind, {"worker": worker}))

    def _is_member(self, worker: int) -> bool:
        return worker in self.model.members

    def _confirm_version(self, worker: int, registration: Registration, known: Any) -> int:
        held = (-1, b"")
        if known is not None:
            held = known.round, bytes.fromhex(known.params_hash)
        if not self._broadcasts.knows(self.model, *held):
            return -1
        counted = self.history.accounting.delivered.get(worker, -1)
        if held[0] > 0:  # a master that died after it sent a version and before it wrote that down left it uncounted
            self.history.sent(worker, held[0], self._broadcasts.bits(max(0, counted), held[0]))
        self.history.accounting.holds(worker, held[0])
        return held[0]

    def _round_settings(self) -> machine.RoundSettings:
        system, budget = self.config.system, self.config.budget_selection
        return machine.RoundSettings(system.max_rounds, system.min_workers, system.total_workers, system.quorum == "all",
                                     bool(budget.sel_clients or budget.up_budget_bits), system.round_deadline_s, system.worker_timeout_s,
                                     system.longest_deadline_s)

    # --- the driver

    def _drive(self) -> None:
        for round_ in sorted(self._untested_models):
            self._evaluator.put(round_, self._untested_models.pop(round_))
        while True:
            with self._changed:
                while not self._effects and not self._closing:
                    wake = machine.next_wake(self._machine)
                    self._driver_called.wait(None if wake is None else max(0.0, wake - self._clock()))
                    if wake is not None and self._clock() >= wake:
                        self._step(machine.Tick())
                if self._closing:
                    return
                effect = self._effects.pop(0)
            try:
                self._close_round(effect)
            except NonFiniteError as error:
                self._fail(str(error))
            except StoreError as error:
                _log.error("%s", error)
                with self._changed:
                    self._opened = None
                    self._step(machine.StoreFull(str(error)))
            except Exception as error:  # whatever it is, the run pauses with its reason instead of hanging
                _log.exception("closing round %d failed", effect.round)
                self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, message: str) -> None:
        with self._changed:
            self._opened = None
            self._step(machine.RoundFailed(message))

    def _close_round(self, effect: machine.Aggregate) -> None:
        with self._changed:
            received = {worker: self._received[worker] for worker in effect.selected}
            heard = {*effect.selected, *effect.skipped, *effect.refused}
            effect = effect._replace(missing=tuple(sorted({*effect.missing, *(self._awaited() - heard)})))
            opened = self._opened = OpenRound(effect, self._machine, self.model, self.config, received,
                               tuple(sorted(self._departing)), tuple(self._events))
            measured = self.history.measured(machine.round_time_s(self._machine, self._clock()), time.time())
        started = time.perf_counter()
        stored = self._closer.close(opened, measured)
        self._replay_s += time.perf_counter() - started
        crash_points.reach("adopt.before")
        with self._changed:
            self._adopt(opened, stored, measured)
        self._checkpoint_when_due(stored)
        record = stored.record
        _log.info("round %d: %d selected, %d skipped, %d refused, %d missing, %.3f s", record.round, len(record.selected),
                  len(record.skipped), len(record.refused), len(record.missing), record.round_time_s)
        if self._is_tested(record) or self._machine.phase == machine.FINISHED:
            self._evaluator.put(record.round, stored.model)
        else:
            self._tested(record.round, None)

    def _is_tested(self, record: RoundRecord) -> bool:
        return record.round % self.config.logging.eval_every == 0 or record.version >= self.config.system.max_rounds

    def _checkpoint_when_due(self, stored: Stored) -> None:
        """A checkpoint when computing the rounds since the last one again would take too long."""
        if self._replay_s >= LONGEST_REPLAY_S:
            self._replay_s = 0.0
            try:
                self.store.add_checkpoint(stored.model.version, *pack_state(stored.model))
            except StoreError as error:
                _log.warning("no checkpoint: %s", error)  # the rounds are there; a restart computes more of them

    def _adopt(self, opened: OpenRound, stored: Stored, measured: Measured) -> None:
        self._opened = None
        # Workers that registered meanwhile have accounts that the closed round did not see.
        accounts = {worker: stored.model.accounts.get(worker, account) for worker, account in self.model.accounts.items()}
        self.model, self._terms = stored.model._replace(accounts=accounts), stored.terms
        self._departing -= set(opened.departing)
        self._events = self._events[len(opened.events):]
        self.history.stored(measured.changed)
        self.history.add(stored, opened.received)
        for worker in opened.received:
            del self._received[worker]
        for worker in new_sizes(self._events):
            self._depart(worker, "reset")  # where it became a member with this round, it did so with its old weight
        self._drop_absent(opened.config)
        self._untested += 1
        self._step(machine.RoundClosed(bool(stored.terms.two_phase)))

    def _drop_absent(self, config: Any) -> None:
        if self._machine.settings.wait_for_all:
            return
        for worker in self.model.members:
            if self.model.accounts[worker].absent >= config.system.absent_rounds:
                _log.info("worker %d was absent for %d rounds: its reference leaves the average", worker, config.system.absent_rounds)
                self._depart(worker, "absent")

    def _tested(self, round_: int, result: Evaluation | None) -> None:
        """Called by the evaluator with what it found, or at once for a round that is not tested."""
        with self._changed:
            if result is not None:
                self._store_test(round_, result)
                self.history.tested(round_, result)
                _log.info("round %d: accuracy %.4f, loss %.4f", round_, result.accuracy, result.loss)
            self._untested -= 1
            self._changed.notify_all()

    def _store_test(self, round_: int, result: Evaluation) -> None:
        """Write a test down; without room it is tried again until the master ends."""
        told = False
        while not self._closing:
            try:
                self.store.add_evaluation(round_, result)
            except StoreError as error:
                if not told:
                    _log.error("the test of round %d: %s", round_, error)
                told = True
                self._changed.wait(machine.BLOCKED_RETRY_S)
            else:
                break
