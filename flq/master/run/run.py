"""A run as its master knows it, without a lock, a thread, a socket, a clock or a write.

Each request is a method that takes `now`. What can be answered at once is returned; what must wait
is a Question, to be asked again with `answer` whenever something happened. What somebody else has
to do is in `take_effects`: close a round, keep what was counted, wake who waits. The service is its
shell; tests drive it without one.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, NamedTuple

from flq import config as configuration
from flq import idle_keys, keys
from flq.algorithm import bounds, cohorts, uplink
from flq.algorithm import round as rounds
from flq.algorithm.model_state import Account, ModelState
from flq.algorithm.selection import Candidate, select
from flq.errors import ConfigError, ProtocolError
from flq.learning.interface import Learner
from flq.master.run.accounting import Bits
from flq.master.run.broadcasts import Broadcasts
from flq.master.run.checks import (
    Received,
    check_bid,
    check_budget,
    check_grant,
    check_registration,
    check_upload,
)
from flq.master.run.closing import Measured, OpenRound, Stored, round_terms
from flq.master.run.history import History
from flq.master.run.membership import Membership
from flq.master.run.outcomes import outcome_of
from flq.master.run.recovery import Recovered, apply_event, is_paused
from flq.master.run.refusals import flagged_in, flagged_late, weight_share
from flq.master.run.sessions import Session, Sessions
from flq.master.run.stall import Stall, stall
from flq.master.store.events import (
    NOBODY,
    Event,
    Expelled,
    Flagged,
    KeyChange,
    Order,
    Pause,
    Remove,
    Resume,
    Stop,
    changed_keys,
)
from flq.master.store.run_store import FINISHED, OPEN, STOPPED, UNFINISHED, Ending, StoredRows
from flq.parameters import constants_hash
from flq.protocol import frames, messages, waits
from flq.protocol import round_machine as machine
from flq.protocol.frames import BROADCAST_KIND, Expected, Head, RoundTerms
from flq.protocol.messages import Changed, Hello, KnownState, Registered, Registration
from flq.records import Bid, Evaluation, HeldModel, Option, Outcome, RoundRecord
from flq.settings import Config

_log = logging.getLogger("flq.master")

_LONGEST_SILENCE_S = 15.0  # a worker whose master was away pauses up to 10 s between two tries


class Wake(NamedTuple):
    """Effect: something happened. driver: what is due may have changed. requests: who waits may see
    something else now. whose: the one worker whose questions it may decide, None for all.
    """

    driver: bool
    requests: bool
    whose: int | None = None


class Keep(NamedTuple):
    """Effect: something was counted that nobody will say again to a master that starts after a
    kill. It is to be stored before the answer is out.
    """


class _Pending:
    """The answer to a question that has none yet."""


PENDING = _Pending()


class Question(NamedTuple):
    """What a worker waits to hear: the outcome of its answer to a round, the frames after the model
    that it holds (round None), or both.
    """

    session: Session
    round: int | None
    held: HeldModel | None = None


class UploadBasis(NamedTuple):
    """What an upload is compared with, taken when it has arrived. base_hash: of its round's model,
    None where no round takes it. option: what was granted."""

    session: Session
    round: int
    model: ModelState
    account: Account
    base_hash: bytes | None
    option: Option | None
    config: Config


HIGHEST_LOSS = 100.0
"""Mean cross-entropy of a test above which training has diverged: the model gives the right label a
probability of e^-100."""


class Change(NamedTuple):
    """A change of the configuration that can be made: it is once its events are stored. again:
    those that must follow for the round after effective_round, and are stored first: an older
    change counts from there and would undo this one."""

    config: Config
    effective_round: int
    events: list[KeyChange]
    again: list[KeyChange]


def is_tested(config: Config, record: RoundRecord) -> bool:
    """Whether the model after this round is to be tested."""
    return (record.round % config.logging.eval_every == 0
            or record.version >= config.system.max_rounds)


class Run:
    """One run. learner: the master's. store: what is read of older rounds; the run writes nothing.

    wire() -> (bits up, bits down) of the whole run as the server measured them, None where there is
    no wire.
    """

    def __init__(self, run_id: str, given_config: Config, learner: Learner, store: StoredRows,
                 history: History, recovered: Recovered, first: ModelState, broadcasts: Broadcasts,
                 now: float) -> None:
        """given_config: what the run was started with. recovered: where it stands. first: version
        0.
        """
        self.run_id, self.given_config = run_id, given_config
        self.config, self.learner = recovered.config, learner
        self.history, self.members = history, Membership(
            run_id, recovered.model, given_config.flq_algorithm.weighting == "uniform")
        self.settings = uplink.settings_from(given_config, learner.layout)
        self.expected = Expected(run_id, learner.layout, self.settings.sizes,
                                 self.settings.quantizer)
        self.sessions = Sessions()
        self._kept_pause = is_paused(store)
        self.state = machine.initial_state(self._round_settings(), now, recovered.model.version,
                                           recovered.removed, self._kept_pause)
        self.untested = len(recovered.untested)
        self.came_and_went = 0  # how often it was others who are there
        self._told_of_loss = False
        self._store, self._broadcasts, self._first_hash = store, broadcasts, first.params_hash
        newest = next(store.broadcasts(), None)
        # What workers were told of the open round stands, whatever was changed since.
        self._terms: RoundTerms = (
            round_terms(given_config, recovered.model, self.state) if newest is None else
            frames.unpack_head(newest, BROADCAST_KIND, self.expected).terms)
        self.state = self.state._replace(two_phase=bool(self._terms.two_phase))
        self._effects: list[machine.Aggregate | Keep | Wake] = []
        self._received: dict[int, Received] = {}
        self._opened: OpenRound | None = None  # what the round that is being closed was taken from
        self._keep_again = False
        self._later: list[Event] = []  # changes that count from the round after the open one
        self._heard_end: set[int] = set()
        self._told_overdue: tuple[int, frozenset[int]] = (-1, frozenset())
        self._started_at = now
        if recovered.model.version or store.events() or store.ending():
            self._restore()

    def _restore(self) -> None:
        """What the store knows beside the model: records, counts, bits, the frames of the last
        versions.
        """
        ending = self._store.ending()
        self._broadcasts.restore(self._store.broadcasts(), self._first_hash)
        self.history.restore(self._store.newest_accounting() if ending is
                             None else ending.accounting)
        self.history.over = ending is not None and ending.phase == FINISHED and self.is_over
        self.members.restore(self._store)
        self._later = self._store.events(self.model.version + 1)
        self._expel()
        _log.info("round %d is the next: %d rounds are in %s", self.model.version,
                  len(self.history), self._store.path)
        if self.state.paused:
            _log.warning("the run is paused, as its operator left it: POST /resume lets it go on")

    def _expel(self) -> None:
        """The references of those who were flagged too often leave with the open round."""
        for event in self.history.to_expel():
            if self.members.is_member(event.worker) and event.worker not in self.members.departing:
                self.members.depart(event)
                _log.warning("worker %d is expelled until round %d: its reference leaves the "
                             "average", event.worker, event.until)

    @property
    def model(self) -> ModelState:
        return self.members.model

    @property
    def is_over(self) -> bool:
        return self.state.phase == machine.FINISHED

    def take_effects(self) -> list[machine.Aggregate | Keep | Wake]:
        """What is to be done since this was asked last: Aggregate, Keep and Wake, in order."""
        effects, self._effects = self._effects, []
        return effects

    # --- workers' requests

    def hello(self, worker: int) -> Hello:
        """The answer to a registration without data: what a worker needs to build its model and
        find its samples.
        """
        self._check_worker(worker)
        return Hello(self.run_id, configuration.shared_values(self.given_config))

    def register(self, registration: Registration, now: float) -> Registered:
        worker = registration.worker
        known = next((held for held in registration.states if held.run_id == self.run_id), None)
        self._check_worker(worker)
        if not self._lacks_last_model(worker, known):
            self._check_alive(worker)
        self._check_room()
        check_registration(registration, self.given_config, self.learner, self._first_hash)
        session = self.sessions.open(worker, registration.instance, registration.take_over, now,
                                     self.config.system.worker_timeout_s)
        account = self.members.come(worker, registration.num_samples)
        held = b"" if known is None else bytes.fromhex(known.reference_hash)
        pending = b"" if known is None else bytes.fromhex(known.pending_hash)
        other_data = account.num_samples != registration.num_samples
        keep = account.reference_hash in (held, pending) and not other_data
        if other_data:
            _log.info("worker %d has %d samples now, not %d", worker, registration.num_samples,
                      account.num_samples)
        if not keep:
            account = self.members.reset(worker, registration.num_samples if other_data else None)
        fresh = not keep or known is None or (known.pending < 0
                                              and known.round <= self.model.version)
        have = self._confirm_version(worker, known)
        self.members.note_device(worker, registration.device, now)
        if fresh:
            self._drop_received(worker)
        self._step(machine.Joined(worker, fresh), now)
        outcome = "" if known is None or known.pending < 0 else self._outcome(
            worker, known.pending).verdict
        _log.info("worker %d registered: %d samples, %s", worker, account.num_samples,
                  "reference kept" if keep else "reference reset to 0")
        return Registered(
            run_id=self.run_id, session=session.token, round=self.state.round,
            version=self.model.version, have=have, params_hash=self.model.params_hash.hex(),
            owes=machine.owes(self.state, worker), outcome=outcome,
            reference="keep" if keep else "reset", reference_hash=account.reference_hash.hex(),
            terms=self._terms, constants_hash=constants_hash(self.learner.constants)
            if self.learner.layout.num_constants else "")

    def constants(self, token: str, now: float) -> bytes:
        """The values of the model's frozen layers, for a worker that holds others."""
        worker = self.enter(token, now).worker
        if not self.learner.layout.num_constants:
            raise ProtocolError("not_found", "the model has no frozen layers")
        data = self.learner.constants
        if self.history.sent_constants(worker, Bits(8 * len(data), 8 * len(data), 0)):
            self._keep_counts()
        return data

    # held: what the worker holds, where it waits for the next model with the outcome.
    def fetch(self, token: str, held: HeldModel, now: float) -> Question:
        """A worker asks for the frames after the model that it holds; it is answered when the open
        round waits for it.
        """
        return Question(self.enter(token, now), None, held)

    def bid(self, token: str, document: dict[str, Any], now: float,
            held: HeldModel | None = None) -> Question:
        """Take a bid; a skip has its outcome at once. document: the JSON of POST /bid."""
        session = self.enter(token, now)
        bid = messages.BID.parse(document, worker=session.worker)
        self._check_round(bid.worker, bid.round)
        check_bid(bid, self.settings, self.expected.layout)
        self._step(machine.BidCame(bid) if bid.round == self.state.round else
                   machine.LateAnswer(bid.worker, bid.round), now)
        return Question(session, bid.round, held)

    def begin_upload(self, session: Session, head: Head) -> UploadBasis:
        """What an upload that has arrived is compared with."""
        worker, round_, base_hash = session.worker, head.header.round, None
        account = self.members.account(worker)
        if round_ == self.model.version:
            base_hash = self.model.params_hash
        elif round_ < self.model.version and self._takes_late(worker, round_, account):
            base_hash = bytes.fromhex(
                self.history.row(round_ - 1).params_hash) if round_ else self._first_hash
        return UploadBasis(session, round_, self.model, account, base_hash,
                           (self.state.granted or {}).get(worker), self.config)

    def check_upload(self, basis: UploadBasis, head: Head, data: bytes) -> Received | None:
        """Read an upload; this takes milliseconds and changes nothing, so other requests may go on
        meanwhile. Raises ProtocolError.

        None where no round takes it, or for a closed round that another master, on an older copy of
        the store, closed otherwise.
        """
        is_late = basis.round < basis.model.version
        if basis.base_hash is None or (is_late and head.header.params_hash != basis.base_hash):
            return None
        observed = basis.model.observed
        return check_upload(basis.session.worker, head, data, basis.base_hash, basis.account,
                            self.settings, basis.config, self.expected,
                            None if observed is None else observed.key)

    def upload(self, basis: UploadBasis, received: Received | None, now: float,
               held: HeldModel | None = None) -> Question | Outcome:
        """Keep an upload that was checked; its outcome comes when the round that takes it is
        stored.
        """
        session, round_ = basis.session, basis.round
        worker = session.worker
        self.sessions.check(session)  # another process may have taken the id meanwhile
        self._still_there(session, now)
        if round_ < basis.model.version:
            self._step(machine.LateAnswer(worker, round_), now)
            if basis.base_hash is not None and (received is None or self._is_too_long(received)
                                                or self._is_beyond(received)):
                return Outcome(round_, "late", 0, basis.account.reference_hash.hex())
            if received is not None and self._takes_late(worker, round_, basis.account):
                self._keep_late(received, now)
            return Question(session, round_, held)
        self._check_round(worker, round_)
        answering = round_ == self.state.round and self.state.phase in machine.ANSWERING
        if received is not None and answering:
            if self.state.two_phase:
                check_grant(received, basis.option)
            self._keep(received, now)
        return Question(session, round_, held)

    def _mark_late(self, worker: int, round_: int) -> bool:
        marked = self.history.mark_late(worker, round_)
        if marked:
            self._keep_counts()
        return marked

    def _keep_counts(self) -> None:
        self._effects.append(Keep())
        # the round that is being closed is stored with the counts of when that began
        self._keep_again = self._opened is not None

    def _takes_late(self, worker: int, round_: int, account: Account) -> bool:
        """True when an upload of that closed round, which continues this account's chain, may
        become part of the open round.
        """
        same = self.members.account(worker).reference_hash == account.reference_hash
        return same and self._outcome(worker, round_).verdict == "granted"

    def _keep_late(self, received: Received, now: float) -> None:
        """An upload of a closed round becomes part of the open one."""
        worker, round_ = received.bid.worker, received.computed_in
        self._keep(replace(received, bid=received.bid._replace(round=self.state.round)), now)
        if self._mark_late(worker, round_):
            _log.info("worker %d: the update of round %d came late and is taken for round %d",
                      worker, round_, self.state.round)

    def outcome(self, token: str, round_: int, now: float,
                held: HeldModel | None = None) -> Question:
        session = self.enter(token, now)
        if round_ > self.state.round:
            raise ProtocolError("wrong_round", "that round is not open yet",
                                f"at most {self.state.round}", round_)
        if round_ == self.state.round and machine.owes(self.state, session.worker) == "bid":
            raise ProtocolError("not_participant",
                                f"no answer of worker {session.worker} to round {round_} is here",
                                hint="register and send it again")
        return Question(session, round_, held)

    def answer(self, question: Question, now: float, last: bool = False) -> Any:
        """Frames or an Outcome, PENDING where there is none yet. last: what can be said now, None
        where a model would be asked for.

        Raises what became of the session, or that the run is over.
        """
        session = question.session
        self.sessions.check(session)
        found = self._frames(question) if question.round is None else self._final_outcome(
            question, question.round)
        if found is PENDING:
            if not last:
                return PENDING
            found = None if question.round is None else self._outcome(session.worker,
                                                                      question.round)
        self._still_there(session, now)  # it was there all the time
        if isinstance(found, Outcome) and found.verdict == "late" and self._mark_late(
                session.worker, found.round):
            _log.info("worker %d: the update of round %d came late and changes nothing",
                      session.worker, found.round)
        return found

    def heartbeat(self, token: str, temperature_c: float | None, now: float) -> str:
        """A sign of life; answers run, paused or stop. temperature_c: the worker's machine now, for
        /status.
        """
        worker = self.enter(token, now).worker
        devices = self.members.devices
        if temperature_c is not None:
            devices[worker] = {**devices.get(worker, {}), "temperature_c": temperature_c}
        if self.is_over:
            return "stop"
        return "paused" if self.state.paused else "run"

    def leave(self, token: str, now: float) -> None:
        """Taken in every phase, also while the disk is full: the process that leaves would not ask
        again.
        """
        worker = self.sessions.get(token, now).worker
        self.sessions.end(worker)
        self._heard_end.add(worker)
        if not self.state.settings.wait_for_all:
            self._drop_received(worker)
            self.members.leave(worker)
        _log.info("worker %d left", worker)
        self._step(machine.Left(worker), now)

    # --- operators' requests

    def plan_pause(self, paused: bool, order: Order = NOBODY) -> tuple[int, list[Event]]:
        """What must be stored before the run is paused or resumed, and the round: none where that
        is so already. A pause with an error is not stored: its round is tried again by the next
        master.
        """
        known = self.is_over or paused == self._kept_pause
        return self.next_to_close, [] if known else [(Pause if paused else Resume)(*order)]

    def pause(self, now: float) -> None:
        """It is stored already."""
        self._kept_pause = True
        self._step(machine.Paused(), now)

    def resume(self, now: float) -> None:
        """It is stored already."""
        self._kept_pause = False
        self._step(machine.Resumed(), now)

    def plan_stop(self, order: Order) -> tuple[int, list[Event]]:
        """What is to be stored before the run is stopped: none where it ends already, or it is a
        program that stops its own run.
        """
        known = self.is_over or self.state.stopped or self.state.stopping or order == NOBODY
        return self.next_to_close, [] if known else [Stop(*order)]

    def stop(self, now: float) -> None:
        self._step(machine.StopAsked(), now)

    def plan_removal(self, worker: int, order: Order = NOBODY) -> tuple[int, list[Event]]:
        """What must be stored before a worker is removed, and the round that it counts from:
        answers that stand are not taken back.
        """
        self._check_worker(worker)
        self._check_changeable()
        events: list[Event] = [] if worker in self.state.removed else [
            Remove(worker, True, *order)
        ]
        return self.state.round + self._answers_stand, events

    def remove(self, worker: int, now: float) -> None:
        """Take a worker out of the run for good; its reference leaves the average with the next
        round.
        """
        self.sessions.end(worker)
        self._drop_received(worker)
        self.members.remove(worker, self._answers_stand)
        self._step(machine.Removed(worker), now)
        _log.info("worker %d was removed by the operator", worker)

    def note_revoked(self, times: dict[int, int]) -> None:
        """How many tokens of each worker are revoked now: who has one more has lost its session."""
        before, self.sessions.tokens_revoked = self.sessions.tokens_revoked, times
        for worker, count in times.items():
            if count > before.get(worker, 0):
                self.end_session(worker)

    def end_session(self, worker: int) -> None:
        """Its token was revoked. That is no removal: what it sent counts, its reference stays, and
        with another token it comes back.
        """
        self.sessions.end(worker)
        self._effects.append(Wake(False, True))

    def plan_change(self, changes: dict[str, Any], by: str, at: float = 0.0) -> Change:
        """Other values of some keys, all or none. Raises ProtocolError where that is not possible.

        The open round keeps what it was opened with where that shapes it.
        """
        self._check_changeable()
        config = self.config
        try:
            for path, value in changes.items():
                config = configuration.change(config, path, value)
            check_budget(config, self.settings, self.learner.layout)
        except ConfigError as error:
            changeable = any(path in (key.path, key.name) for key in keys.KEYS if key.runtime)
            raise ProtocolError("bad_value" if changeable else "cannot_change", error.message,
                                error.expected, error.got, error.hint)
        effective = self.next_to_close
        if config.system.max_rounds <= effective:
            raise ProtocolError("bad_value", "system.max_rounds is in the past",
                                f"more than {effective}", config.system.max_rounds)
        before, after = configuration.flat(self.config), configuration.flat(config)
        events = [
            KeyChange(path, by, before[path], after[path], at) for path in after
            if before[path] != after[path]
        ]
        later = {} if self._opened is not None else changed_keys(self._later)
        return Change(config, effective, events, [event for event in events if event.key in later])

    def change(self, change: Change, now: float) -> Changed:
        """Make a change whose events are stored."""
        for event in change.events:
            _log.info("%s changed %s from %s to %s, effective in round %d", event.by, event.key,
                      event.old, event.new, change.effective_round)
        changed = {event.key: {"old": event.old, "new": event.new} for event in change.events}
        for line in idle_keys.without_effect(change.config, set(changed)):
            _log.warning("%s", line)
        self.config = change.config
        self._later = [
            event for event in self._later
            if not (isinstance(event, KeyChange) and event.key in changed)
        ]
        if self._opened is not None:
            self._later += change.events
        self._step(machine.Reconfigured(self._round_settings()), now)
        return Changed(change.effective_round, changed)

    # --- closing a round

    @property
    def next_to_close(self) -> int:
        """The first round whose result can still be changed."""
        return self.state.round + (self._opened is not None)

    def begin_closing(self, effect: machine.Aggregate, now: float,
                      time_of_day: float) -> tuple[OpenRound, Measured]:
        """All that the round's result depends on, and what it has cost."""
        received = {worker: self._received[worker] for worker in effect.selected}
        awaited = {
            worker for worker in self.members.awaited() - self.state.removed
            if machine.is_turn(self.state, worker)
        } - {*effect.selected, *effect.skipped, *effect.refused}
        effect = effect._replace(missing=tuple(sorted({*effect.missing, *awaited})))
        flagged = flagged_in(effect, self.state, self.model, received, self.members.standing[0],
                             self.config, self.settings, self.history.is_out)
        untaken = {item.worker for item in flagged if item.worker in received}
        # As of those who have nothing new: nobody else stands for what they would have added.
        effect = effect._replace(
            selected=tuple(worker for worker in effect.selected if worker not in untaken),
            skipped=tuple(sorted({*effect.skipped, *untaken})))
        self._opened = OpenRound(
            effect, self.state, self.model, self.config,
            {worker: item for worker, item in received.items() if worker not in untaken},
            *self.members.standing, flagged)
        return self._opened, self.history.measured(machine.round_time_s(self.state, now),
                                                   time_of_day)

    def adopt(self, stored: Stored, measured: Measured, now: float) -> None:
        """The round that was begun to be closed is stored: its model is the current one."""
        opened, self._opened = self._opened, None
        assert opened is not None
        for event in self._later:
            self.config, _ = apply_event(self.config, frozenset(), event)
        if self._later:
            self._later = []
            self._step(machine.Reconfigured(self._round_settings()), now)
        self._terms = stored.terms
        self.history.stored(measured.changed)
        for event in opened.events:
            if isinstance(event, Expelled):
                self.history.expelled(event)
        late = [event for event in opened.events if isinstance(event, Flagged)]
        flagged = (*late, *opened.flagged)
        self.history.add(stored, opened.received, flagged)
        for item in flagged:
            _log.warning("worker %d is flagged in round %d: %s (%.6g, at most %.6g)", item.worker,
                         item.round, bounds.REASONS[item.reason], item.value, item.limit)
        for worker in (*opened.received, *(item.worker for item in opened.flagged)):
            self._received.pop(worker, None)
        self.members.adopt(
            stored.model, opened.departing, len(opened.events),
            None if self.state.settings.wait_for_all else opened.config.system.absent_rounds,
            weight_share(opened.config))
        self._expel()
        self.untested += 1
        if self._keep_again:
            self._keep_counts()
        self._step(machine.RoundClosed(bool(stored.terms.two_phase)), now)

    def fail(self, message: str, now: float) -> None:
        """The round could not be computed."""
        self._not_closed(machine.RoundFailed(message), now)
        # Its answers can be lost again: what left with the same round would be all but the answer,
        # under a chain that says the whole.
        for worker in self.members.gone_since():
            self._received.pop(worker, None)
            is_there = worker in self.state.present
            self._step(machine.Joined(worker, True), now)
            if not is_there:
                self._step(machine.Left(worker), now)

    def store_full(self, message: str, now: float) -> None:
        """The round could not be written."""
        self._not_closed(machine.StoreFull(message), now)

    def _not_closed(self, event: Any, now: float) -> None:
        """The round will be closed again: what was changed meanwhile counts from the one after it,
        as the operator was told.
        """
        opened, self._opened = self._opened, None
        if opened is not None and self.config is not opened.config:
            self.config = opened.config
            self._step(machine.Reconfigured(self._round_settings()), now)
        self._step(event, now)

    def tested(self, round_: int, result: Evaluation | None) -> None:
        """A test's result, which is stored; None for a model that is not tested."""
        if result is not None:
            self.history.tested(round_, result)
            _log.info("round %d: accuracy %.4f, loss %.6g", round_, result.accuracy, result.loss)
            if not result.loss <= HIGHEST_LOSS and not self._told_of_loss:
                self._told_of_loss = True
                scale = "" if self.config.dataset.standardize else (
                    ", or, where features have large values, set dataset.standardize to true; "
                    "python -m flq check-data shows them")
                _log.warning("round %d: a loss of %.3g: training diverges; in a new run lower "
                             "model.local_lr%s", round_, result.loss, scale)
        self.untested -= 1
        self._effects.append(Wake(False, True))

    def tick(self, now: float) -> None:
        """Time has passed."""
        wake = machine.next_wake(self.state)
        if wake is not None and now >= wake:
            self._step(machine.Tick(), now)
        self._tell_overdue(now)

    def next_wake(self) -> float | None:
        """When `tick` can change something or has something to tell, None when only a message can.
        """
        moments = machine.next_wake(self.state), waits.next_overdue(self.state, self.overdue)
        return min((moment for moment in moments if moment is not None), default=None)

    def stall(self, now: float) -> Stall | None:
        """For whom the open round waits longer than it should."""
        return stall(self.state, self.members.devices, now)

    @property
    def overdue(self) -> frozenset[int]:
        """Workers of whom the log says that the open round waits for them."""
        round_, workers = self._told_overdue
        return workers if round_ == self.state.round else frozenset()

    def _tell_overdue(self, now: float) -> None:
        """A warning for each worker that became overdue, once a round."""
        moment = waits.next_overdue(self.state, self.overdue)
        if moment is None or now < moment:
            return
        self._told_overdue = self.state.round, self.overdue | waits.overdue(self.state, now)
        found = self.stall(now)
        assert found is not None
        # Where there is no wire, in a simulation, nobody can send what would help.
        helps = self.history.has_wire or found.goes_on_in_s is not None
        _log.warning("round %d: %s%s", self.state.round, found.text,
                     f"; {found.advice}" if helps else "")
        self._effects.append(Wake(False, True))

    # --- the end

    @property
    def hearing_s(self) -> float:
        """How long a worker may need to hear that the run is over."""
        return max(self.config.system.worker_timeout_s, _LONGEST_SILENCE_S)

    def all_heard(self, now: float) -> bool:
        """True once all have heard that the run is over: who was seen lately, and who may not have
        come back to a new master yet.
        """
        # It is asked whenever a worker goes, and of many the first decides.
        seen = self.sessions.seen_since(now - self.config.system.worker_timeout_s)
        if not all(worker in self._heard_end for worker in seen):
            return False
        if now - self._started_at >= self.hearing_s:
            return True
        away = {worker for worker in self.model.accounts if self.sessions.last_seen(worker) is None}
        return away - self.state.removed <= self._heard_end

    def ending(self, interrupted: bool = False) -> tuple[Ending, tuple[RoundRecord, ...]]:
        """What is to be written when the run ends or is interrupted: the rows then add up to all
        that travelled. interrupted: a worker that was not sent the last model yet may still ask for
        it, of who goes on with the run.
        """
        over = self.is_over and not self.untested
        delivered = self.history.accounting.delivered
        lacking = interrupted and any(
            delivered.get(worker, -1) < self.model.version
            for worker in self.members.awaited() - self.state.removed)
        self.history.settle_wire()
        devices = {
            str(worker): self.members.devices[worker] for worker in sorted(self.members.devices)
        }
        return self._ending_as(
            UNFINISHED if not over else STOPPED if self.state.stopped else
            OPEN if lacking else FINISHED, devices)

    def so_far(self) -> tuple[Ending, tuple[RoundRecord, ...]]:
        """The same while the run goes on, but for the wire, whose counter keeps a file, and for the
        devices, of which the store has events: each worker may have this written once.
        """
        return self._ending_as(OPEN, {})

    def _ending_as(self, phase: str,
                   devices: dict[str, Any]) -> tuple[Ending, tuple[RoundRecord, ...]]:
        return Ending(len(self.history), phase, self.history.save(),
                      devices), self.history.changed()

    def ended(self, ending: Ending, changed: tuple[RoundRecord, ...]) -> None:
        """That was written. Nothing changes the rows of a run that is over any more."""
        self.history.stored(changed)
        self.history.over = ending.phase in (FINISHED, STOPPED)

    # --- checks

    def _check_changeable(self) -> None:
        opened = self._opened
        is_last = opened is not None and (opened.state.stopping
                                          or self.next_to_close >= opened.config.system.max_rounds)
        if self.is_over or is_last:
            raise ProtocolError(
                "finished",
                f"the run is over after {self.next_to_close} rounds: nothing can be changed any "
                "more",
                hint="start a new run for more")

    def _check_worker(self, worker: int) -> None:
        if worker >= self.config.system.total_workers:
            raise ProtocolError("not_found", f"worker {worker} is not in this run",
                                f"0 to {self.config.system.total_workers - 1}", worker,
                                "system.total_workers sets the number of workers")

    def _check_alive(self, worker: int) -> None:
        if worker in self.state.removed:
            raise ProtocolError("removed",
                                f"worker {worker} was removed from this run by its operator")
        if self.is_over:
            self._end_for(worker)

    def _lacks_last_model(self, worker: int, known: Any) -> bool:
        """True for a worker that the run ended for before it was sent the last model: the master or
        it went in between. It is sent that as it would have been, so that the bits are the same.
        """
        return (self.is_over and not self.state.stopped and not self.history.over
                and worker not in self.state.removed and worker in self.model.accounts
                and known is not None and known.round < self.model.version
                and self.history.accounting.delivered.get(worker, -1) < self.model.version)

    def _end_for(self, worker: int) -> None:
        self._heard_end.add(worker)
        self._effects.append(Wake(False, True, worker))
        if self.state.stopped:
            raise ProtocolError("stopped", "the run was stopped by its operator")
        raise ProtocolError("finished", "the run is finished")

    def _check_round(self, worker: int, round_: int) -> None:
        if round_ > self.state.round:
            raise ProtocolError("wrong_round", "that round is not open yet", self.state.round,
                                round_)
        is_open = round_ == self.state.round and self.state.phase in machine.ANSWERING
        if is_open and not machine.may_answer(self.state, worker):
            raise ProtocolError("not_participant",
                                f"worker {worker} does not take part in round {round_}",
                                hint="register and wait for the next round")

    def _check_room(self) -> None:
        if self.state.phase == machine.BLOCKED:
            raise ProtocolError("blocked", self.state.error or "the master cannot write its disk")

    # --- what the requests share

    def enter(self, token: str, now: float) -> Session:
        """The session of a request, which is a sign of life."""
        session = self.sessions.get(token, now)
        self._step(machine.Seen(session.worker), now)
        self._check_room()
        return session

    def _still_there(self, session: Session, now: float) -> None:
        """A request that took some time is a sign of life once more."""
        self.sessions.seen(session, now)
        self._step(machine.Seen(session.worker), now)
        self._check_room()

    def _frames(self, question: Question) -> Any:
        worker, held = question.session.worker, question.held
        assert held is not None
        if self._is_due(worker, held):
            return self._deliver(worker, held)
        if self.is_over:
            self._end_for(worker)
        return PENDING

    def _is_due(self, worker: int, held: HeldModel) -> bool:
        """Whether a worker is sent the model now: the open round waits for its answer, or the run
        is over. The last model goes to the cohort that would play next."""
        if self.is_over:
            return held.version != self.model.version and machine.is_turn(self.state, worker)
        return machine.owes(self.state, worker) == "bid"

    def _deliver(self, worker: int, held: HeldModel) -> bytes:
        model = self.model
        counted = self.history.accounting.delivered.get(worker, -1)
        delivery = self._broadcasts.deliver(model, held.version, held.params_hash, self._terms,
                                            self.is_over, counted)
        # Without compression a receiver would be sent p float32 for each version.
        bits = Bits(delivery.nominal_bits, delivery.payload_bits,
                    32 * self.expected.layout.num_params)
        if self.history.sent(worker, model.version, bits) and self.is_over:
            self._keep_counts()  # who has the last model ends and does not come back
        return delivery.data

    def _final_outcome(self, question: Question, round_: int) -> Any:
        worker, held = question.session.worker, question.held
        outcome = self._outcome(worker, round_)
        if self.is_over and outcome.verdict in ("open", "granted"):
            self._end_for(worker)  # the run ended without closing that round
        if outcome.verdict == "open":
            return PENDING
        if held is None or outcome.verdict == "granted":
            return outcome
        if round_ == self.state.round and not self.is_over:
            return PENDING  # what is provisional comes with the model that makes it final
        if held.version == self.model.version or not self._is_due(worker, held):
            return outcome
        return outcome._replace(frames=self._deliver(worker, held))

    def _outcome(self, worker: int, round_: int) -> Outcome:
        return outcome_of(worker, round_, self.state, self.members.account(worker), self._received,
                          self._store, self.config.system.late_updates == "apply")

    def _step(self, event: Any, now: float) -> None:
        """Tell the round machine what happened, and answer what it asks to be decided."""
        waiting = [event]
        while waiting:
            bids = self._tell(waiting.pop(), now)
            if bids is not None:
                waiting.append(machine.Selected(self._select(bids)))

    def _tell(self, event: Any, now: float) -> tuple[Bid, ...] | None:
        """One step of the round machine; the bids among which it wants a decision, None where it
        wants none.
        """
        before, bids = self.state, None
        self.state, effects = machine.step(self.state, event, now)
        for effect in effects:
            if isinstance(effect, machine.Select):
                bids = effect.bids
            elif isinstance(effect, machine.Aggregate):
                if before.phase != machine.BLOCKED:
                    self.members.stand()
                self._effects.append(effect)
            elif isinstance(effect, machine.Opened):
                _log.debug("round %d is open for %d workers", effect.round,
                           len(self.state.participants))
            elif isinstance(effect, machine.LeftOut):
                _log.warning(
                    "worker %d let %d deadlines pass in a row without an answer: no round waits "
                    "for it until it answers", effect.worker, machine.LONGEST_SILENCE)
            elif isinstance(effect, machine.Ended):
                _log.info("the run is over after %d rounds%s", self.state.round,
                          " (stopped)" if effect.stopped else "")
        self.came_and_went += len(self.state.present) != len(before.present)
        if self.state.paused and self.state.error and self.state.error != before.error:
            _log.error("the run pauses: %s", self.state.error)
        opened = any(isinstance(effect, machine.Opened) for effect in effects)
        # A sign of life or an answer is no news to the other workers' requests, unless a round
        # opens with it. Were they woken by every upload, they would all stand before the driver
        # when the last one comes. Who comes or goes decides nothing for the others either, unless
        # the phase ends with it.
        alone = isinstance(event, (machine.Joined, machine.Left)) and (
            self.state.phase, self.state.round) == (before.phase, before.round)
        wake = Wake(
            opened or machine.may_wake_earlier(before, event, self.state), opened
            or not isinstance(event,
                              (machine.Seen, machine.LateAnswer, machine.BidCame,
                               machine.UploadCame)), event.worker if alone else None)
        if wake.driver or wake.requests:
            self._effects.append(wake)
        return bids

    def _select(self, bids: tuple[Bid, ...]) -> dict[int, Option]:
        candidates, total = [], self.model.total_weight
        for bid in bids:
            account = self.members.account(bid.worker)
            weight, overdue = rounds.candidate_weight(total, account), rounds.is_overdue(
                account, self.config.lazy_selection.C)
            flagged = self.history.is_distrusted(bid.worker, self.state.round)
            candidates.append(Candidate(bid.worker, weight, overdue, bid.options[0], flagged))
        budget = self.config.budget_selection
        granted = select(candidates, budget.sel_clients, budget.up_budget_bits)
        if budget.up_budget_bits and sum(option.bits
                                         for option in granted.values()) > budget.up_budget_bits:
            _log.warning(
                "round %d: the budget of %d bits is below the smallest bid; the best single upload "
                "was granted",
                self.state.round, budget.up_budget_bits)
        return granted

    def _keep(self, received: Received, now: float) -> None:
        bid = received.bid
        if self._is_too_long(received):
            self._step(machine.BidCame(bid._replace(skip=True, reason="nonfinite", options=())),
                       now)
            return
        self._received[bid.worker] = received
        self._step(machine.UploadCame(bid), now)

    def _is_too_long(self, received: Received) -> bool:
        limit = self.config.security.max_update_norm
        if not limit or received.norm2 <= limit * limit:
            return False
        _log.warning(
            "worker %d: the update of round %d is longer than security.max_update_norm and counts "
            "as missing",
            received.bid.worker, received.computed_in)
        return True

    def _is_beyond(self, received: Received) -> bool:
        """Whether an upload of a closed round is beyond a bound; it is flagged with the open one.
        """
        flagged = flagged_late(received, self.model, self.members.departing, self.config,
                               self.settings)
        if flagged is not None:
            self.members.events.append(flagged)
        return flagged is not None

    def _drop_received(self, worker: int) -> None:
        """Forget an upload as the machine forgets an answer: not once its round is being closed."""
        if not self._answers_stand:
            self._received.pop(worker, None)

    @property
    def _answers_stand(self) -> bool:
        return self.state.phase not in machine.ANSWERING

    def _confirm_version(self, worker: int, known: KnownState | None) -> int:
        held = (-1, b"")
        if known is not None:
            held = known.round, bytes.fromhex(known.params_hash)
        cohort = cohorts.cohort_of(worker, self.config.system.cohorts)
        if not self._broadcasts.knows(self.model, *held, cohort):
            return -1
        counted = self.history.accounting.delivered.get(worker, -1)
        # a master that died after it sent a version and before it wrote that down left it uncounted
        if held[0] > 0:
            self.history.sent(worker, held[0], self._broadcasts.bits(max(0, counted), held[0]))
        self.history.accounting.holds(worker, held[0])
        return held[0]

    def _round_settings(self) -> machine.RoundSettings:
        system, budget = self.config.system, self.config.budget_selection
        return machine.RoundSettings(system.max_rounds, system.min_workers, system.total_workers,
                                     system.quorum == "all",
                                     bool(budget.sel_clients
                                          or budget.up_budget_bits), system.round_deadline_s,
                                     system.worker_timeout_s, system.longest_deadline_s,
                                     system.cohorts, system.start_workers or 1)
