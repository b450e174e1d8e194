"""One worker: do what the worker machine asks for, and tell it what came of it."""

import contextlib
import logging
import random
import secrets
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Union

from flq import modes, rng
from flq.algorithm import uplink
from flq.algorithm.uplink import Proposal, UplinkState
from flq.errors import DataError, FlqError, ProtocolError, UnreachableError
from flq.host import crash_points
from flq.learning.interface import Learner
from flq.protocol import PROTOCOL_VERSION
from flq.protocol import worker_machine as machine
from flq.protocol.frames import Expected
from flq.protocol.messages import KnownState, Registration
from flq.records import HeldModel, Outcome
from flq.settings import Config
from flq.worker.client import MasterClient
from flq.worker.next_step import TOKEN_AGAIN
from flq.worker.patience import Patience
from flq.worker.received import Held, KeyframeNeeded, SharedModels
from flq.worker.shelf import Shelf
from flq.worker.state_file import InMemory, StateFile
from flq.worker.upload import lazy_terms, upload_frame
from flq.worker.worker_record import WorkerRecord

LONGEST_POLL_S = 25.0
DISK_PAUSE_S = 1.0

Token = Callable[[], str]


class Done(NamedTuple):
    """What one effect led to. code: the exit code of a worker that has ended, None while it goes
    on. pause_s: how long it is to be left alone before the next one. waits: the master had nothing
    new for it.
    """

    code: Optional[int] = None
    pause_s: Optional[float] = None
    waits: bool = False


class Worker(object):
    """A worker of one run. `run` returns the exit code: 0 when the run has ended, 3 when the master
    refused it.

    token(): the worker's token, read anew at each call. take_over: claim the worker id from a
    process that still seems to hold it. models: those of all workers of the process. shelf: where
    its vectors lie while it waits.
    """

    def __init__(self, worker: int, client: MasterClient, learner: Learner, config: Config,
                 run_id: str, state_file: Union[StateFile, InMemory], token: Token,
                 take_over: bool = False, retry_for_s: Optional[float] = None,
                 models: Optional[SharedModels] = None, shelf: Optional[Shelf] = None) -> None:
        self.worker = worker
        self.training = False  # read by the heartbeat thread
        self.session = ""
        self._client, self._learner, self._config, self._run_id = client, learner, config, run_id
        self._state_file, self._token = state_file, token
        self._take_over = take_over
        self._log = logging.getLogger(f"flq.worker.{worker}")
        self._settings = uplink.settings_from(config, learner.layout)
        self._expected = Expected(run_id, learner.layout, self._settings.sizes,
                                  self._settings.quantizer)
        self._poll_s = min(LONGEST_POLL_S, config.system.worker_timeout_s / 3.0)
        self._stopped = False
        self._patience = Patience(self._log, retry_for_s)
        self._token_retried = False
        self._terms: Any = None
        self._is_saved = False
        # since the last save; None once a keyframe came
        self._broadcasts: Optional[List[bytes]] = []
        # the model of the last round: nothing more is asked of this worker
        self._holds_last = False
        self._models = models or SharedModels(learner, config, run_id)
        self._shelf = shelf or Shelf()
        self._state: Any = None
        self._effect: Any = None
        self._load()

    def _load(self) -> None:
        record, first = self._state_file.load(), self._models.first
        if record is not None and record.run_id == self._run_id:
            self._is_saved = True
            self._instance, version = record.instance, record.version
            # The levels of the broadcasts are coded beside it: it grows with each of them.
            activity = record.activity if first.activity is not None else None
            if activity is None and first.activity is not None:
                version, activity = -1, first.activity  # a keyframe brings it
            self._hold(self._models.same(Held(version, record.params, record.non_trainable,
                                              record.params_hash, activity)))
            self._uplink, self._proposal = self._shelf.keep(record.uplink), record.proposal
            if self._proposal is not None:
                self._proposal = self._shelf.put(self._proposal)
            self._two_phase = record.two_phase
        else:
            self._instance = record.instance if record is not None else secrets.token_hex(16)
            self._hold(first)
            self._uplink = self._fresh_uplink(
                uplink.first_reference_hash(self._run_id, self.worker, 0))
            self._proposal, self._two_phase = None, False
        self._base_hash = self._hash  # the file was written before a newer model came
        self._initial_hash = first.params_hash.hex() if self._learner.builtin_model else ""

    def _hold(self, held: Held) -> None:
        self._version, self._params, self._non_trainable, self._hash, self._activity = held

    def _fresh_uplink(self, reference_hash: bytes) -> UplinkState:
        return self._shelf.keep(
            uplink.initial_state(self._settings, self._expected.layout.num_params,
                                 self._config.flq_algorithm.b_up, reference_hash))

    def stop(self) -> None:
        """Leave after the current effect."""
        self._stopped = True

    def run(self) -> int:
        """The loop, in a thread of its own. Raises what `advance` raises."""
        while True:
            done = self.advance()
            if done.code is not None:
                return done.code
            if done.pause_s is not None:
                time.sleep(done.pause_s)

    def advance(self) -> Done:
        """Do one effect.

        Raises UnreachableError when --retry_for has passed, FlqError when training fails.
        """
        if self._effect is None:
            self._begin()
        effect = self._effect
        if isinstance(effect, machine.Exit):
            self._log.info("the run has ended"
                           if not effect.refused else "leaving: the master refused this worker")
            return Done(3 if effect.refused else 0)
        if self._stopped:
            self.leave()
            return Done(0)
        if isinstance(effect, machine.Retry):
            self._effect = effect.again
            least_s, longest_s = self._patience.next_pause_s()
            return Done(pause_s=max(least_s, random.uniform(0, longest_s)))
        if isinstance(effect, machine.Settle):
            self._settle(effect.accepted)
            self._effect = effect.then
            return Done()
        event = self._perform(effect)
        self._state, self._effect = machine.step(self._state, event)
        return Done(waits=isinstance(event, machine.NothingNew) or (
            isinstance(event, machine.Answered) and event.verdict == "open"))

    def _begin(self) -> None:
        pending = -1 if self._proposal is None else self._proposal.round
        self._state = machine.initial_state(self._version, pending, self._two_phase,
                                            self._proposal is not None and self._proposal.skip)
        self._effect = machine.start()
        if not self._is_saved:
            # the instance must survive from the first moment on: it proves who comes back
            self._save()

    def _perform(self, effect: Any) -> Any:
        """Do one effect and return the event that answers it."""
        try:
            event = _PERFORM[type(effect)](self, effect)
        except UnreachableError as error:
            return machine.Refused(
                self._patience.unreachable(error, self._holds_last, time.monotonic()))
        except ProtocolError as error:
            return self._refusal(error)
        self._patience.answered()
        self._token_retried = False
        return event

    # --- effects

    def _register(self, effect: machine.Register) -> Any:
        self._client.authorize(self._token())
        proposal, samples = self._proposal, self._learner.num_samples(self.worker)
        pending = (-1, "") if proposal is None else (proposal.round,
                                                     proposal.committed.reference_hash.hex())
        held = self._held_model()
        known = KnownState(self._run_id, max(0, held.version), held.params_hash.hex(),
                           self._uplink.reference_hash.hex(), *pending)
        answer = self._client.register(
            Registration(PROTOCOL_VERSION, self.worker, self._instance, samples,
                         self._learner.partition_hash, self._expected.layout.hash(),
                         self._initial_hash, self._learner.device(), (known,), self._take_over,
                         modes.own_hash(self._config.flq_algorithm.mode),
                         self._settings.memory.rate))
        if answer.run_id != self._run_id:
            self._log.error("the master serves run %s now, not %s: start the worker again",
                            answer.run_id, self._run_id)
            return machine.Refused("exit")
        self.session = answer.session
        self._client.authorize(self.session)
        if self._expected.layout.num_constants and not answer.constants_hash:
            raise ProtocolError("bad_request",
                                "the master says nothing of the model's frozen layers",
                                "constants_hash", "none")
        if self._expected.layout.num_constants and self._learner.hold_constants(
                answer.constants_hash, self._client.fetch_constants):
            self._log.info(
                "the frozen layers have the master's values: this process had drawn others")
        reset = answer.reference == "reset"
        if reset:
            if self._proposal is not None or self._uplink.clock == 0:
                self._log.warning(
                    "the master does not share this worker's reference: both start again from 0")
            self._uplink = self._fresh_uplink(bytes.fromhex(answer.reference_hash))
            self._proposal = None
        self._version, self._terms = answer.have, answer.terms
        self._log.info("registered with run %s at round %d, %d samples", self._run_id, answer.round,
                       samples)
        return machine.Registered(answer.round, self._version, answer.owes, answer.outcome, reset)

    def _fetch(self, effect: machine.Fetch) -> Any:
        data = self._client.fetch_model(self._held_model(), self._poll_s)
        if data is None:
            return machine.NothingNew()
        self._take(data)
        return machine.ModelCame(self._version, self._holds_last)

    def _take(self, data: bytes) -> None:
        """From the model held to the one that these frames lead to."""
        while data:
            before, held = data, Held(self._version, self._params, self._non_trainable, self._hash,
                                      self._activity)
            try:
                held, frame, data = self._models.receive(data, held)
            except KeyframeNeeded:
                self._version = -1
                raise
            self._hold(held)
            self._terms, self._holds_last = frame.terms, frame.final
            if frame.keyframe:
                self._broadcasts = None
            elif self._broadcasts is not None:
                self._broadcasts.append(before[:len(before) - len(data)])

    def _train(self, effect: machine.Train) -> machine.Proposed:
        started, self.training = time.monotonic(), True
        try:
            result = self._learner.local_update(self._params, self._non_trainable, self.worker,
                                                effect.round)
        finally:
            self.training = False
        took = time.monotonic() - started
        if 0 < self._terms.deadline_s < took:
            self._log.warning(
                "round %d: training took %.1f s and the master waits %.1f s: this update may come "
                "too late; raise its system.round_deadline_s, or lower local_steps or local_epochs",
                effect.round, took, self._terms.deadline_s)
        rule = lazy_terms(self._config, self._terms, self._learner.num_samples(self.worker))
        draw = rng.Stream(self._config.dataset.seed, rng.UPLINK, self.worker, effect.round).uniform
        self._proposal = uplink.propose(self._uplink, result, effect.round, self._settings, rule,
                                        draw)
        self._base_hash, self._two_phase = self._hash, bool(self._terms.two_phase)
        if self._proposal.kept.bits != self._uplink.bits:
            self._log.info(
                "round %d: the error is more than half of the update, %d bits from now on",
                effect.round, self._proposal.kept.bits)
        self._save()
        self._proposal = self._shelf.put(self._proposal)
        self._learner.prepare(self.worker, effect.round + self._config.system.cohorts)
        return machine.Proposed(self._proposal.skip, self._two_phase)

    def _send_bid(self, effect: machine.SendBid) -> Any:
        bid = self._pending().bid(self.worker)
        return self._answered(self._client.bid(bid, self._poll_s, self._held_model()))

    def _send_upload(self, effect: machine.SendUpload) -> Any:
        frame = upload_frame(self._shelf.take(self._pending()), self._base_hash, self.worker,
                             self._uplink, self._settings, self._expected)
        return self._answered(self._client.upload(frame, self._poll_s, self._held_model()))

    def _ask(self, effect: machine.Ask) -> Any:
        return self._answered(self._client.outcome(effect.round, self._poll_s, self._held_model()))

    def _pending(self) -> Proposal:
        assert self._proposal is not None, "the machine sends what was proposed"
        return self._proposal

    def _answered(self, outcome: Outcome) -> Any:
        crash_points.reach("answer.after")
        if not outcome.frames:
            return machine.Answered(outcome.round, outcome.verdict)
        self._take(outcome.frames)
        return machine.Exchanged(outcome.round, outcome.verdict, self._version, self._holds_last)

    def _settle(self, accepted: bool) -> None:
        if self._proposal is not None:
            self._uplink = self._shelf.settle(self._proposal, accepted)
            self._proposal = None

    def _save(self) -> None:
        """Returns when the state would survive, or when the worker is to stop: it then sends
        nothing more.

        What cannot be written now is tried again, as the master does: a full disk is no reason to
        lose a trained update.
        """
        record = WorkerRecord(self._instance, self._run_id, self._version, self._params,
                              self._non_trainable, self._hash, self._uplink, self._proposal,
                              self._two_phase, self._activity)
        while not self._stopped:
            try:
                self._state_file.save(record, self._broadcasts)
            except DataError as error:
                self._patience.warn("state", error, "retry", time.monotonic())
                time.sleep(DISK_PAUSE_S)
            else:
                self._broadcasts = []
                break

    def _held_model(self) -> HeldModel:
        return HeldModel(self._version, self._hash if self._version >= 0 else b"")

    def _refusal(self, error: ProtocolError) -> machine.Refused:
        action = error.kind.action
        if error.name == "unauthorized" and not self._token_retried:
            # the token file may have been replaced meanwhile
            self._token_retried, action = True, "register"
            self._log.warning("%s; %s", error, TOKEN_AGAIN)
        self._patience.refused(error)
        if action == "exit":
            self._log.error("%s", error)
        # who leaves is no longer known
        elif action != "finish" and error.name != "unauthorized" and not self._stopped:
            self._patience.warn(error.name, error, action, time.monotonic())
        return machine.Refused(action)

    def leave(self) -> None:
        """Say goodbye; from another thread it ends the long poll under way."""
        with contextlib.suppress(FlqError):  # the master will notice by itself
            self._client.leave()


_PERFORM: Dict[type, Callable[[Worker, Any], Any]] = {
    machine.Register: Worker._register, machine.Fetch: Worker._fetch, machine.Train: Worker._train,
    machine.SendBid: Worker._send_bid, machine.SendUpload: Worker._send_upload,
    machine.Ask: Worker._ask,
}
