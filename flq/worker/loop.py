"""One worker: do what the worker machine asks for, and tell it what came of it."""

import contextlib
import logging
import random
import secrets
import time
from typing import Any, Callable, Dict, List, Optional, Union

from flq import modes, rng
from flq.algorithm import downlink, uplink
from flq.algorithm.uplink import Proposal, UplinkState
from flq.errors import DataError, FlqError, ProtocolError, UnreachableError
from flq.host import crash_points
from flq.learning.interface import Learner
from flq.parameters import params_hash
from flq.protocol import PROTOCOL_VERSION
from flq.protocol import worker_machine as machine
from flq.protocol.frames import Expected
from flq.protocol.messages import KnownState, Registration
from flq.records import Outcome
from flq.settings import Config
from flq.worker.client import MasterClient
from flq.worker.next_step import AFTER_REFUSAL, TOKEN_AGAIN, OnceAMinute, trying_again
from flq.worker.received import Held, KeyframeNeeded, receive
from flq.worker.state_file import InMemory, StateFile
from flq.worker.upload import lazy_terms, upload_frame
from flq.worker.worker_record import WorkerRecord

LONGEST_POLL_S = 25.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
DISK_PAUSE_S = 1.0
AFTER_THE_END_S = 120.0
"""How long a worker that holds the last model looks for a master that is gone. One that was killed
then and started again still has to hear from it what it received, for the bits."""

Token = Callable[[], str]


class Worker(object):
    """A worker of one run. `run` returns the exit code: 0 when the run has ended, 3 when the master
    refused it.

    token(): the worker's token, read anew at each call. take_over: claim the worker id from a
    process that still seems to hold it.
    """

    def __init__(self, worker: int, client: MasterClient, learner: Learner, config: Config,
                 run_id: str, state_file: Union[StateFile, InMemory], token: Token,
                 take_over: bool = False, retry_for_s: Optional[float] = None) -> None:
        self.worker = worker
        self.training = False  # read by the heartbeat thread
        self.session = ""
        self._client, self._learner, self._config, self._run_id = client, learner, config, run_id
        self._state_file, self._token = state_file, token
        self._take_over, self._retry_for_s = take_over, retry_for_s
        self._log = logging.getLogger(f"flq.worker.{worker}")
        self._settings = uplink.settings_from(config, learner.layout)
        self._expected = Expected(run_id, learner.layout, self._settings.sizes,
                                  self._settings.quantizer)
        self._poll_s = min(LONGEST_POLL_S, config.system.worker_timeout_s / 3.0)
        self._stopped = False
        self._failing_since: Optional[float] = None
        self._attempt = 0
        self._retry_after_s: Optional[float] = None
        self._trouble = OnceAMinute(self._log)
        self._token_retried = False
        self._terms: Any = None
        self._is_saved = False
        # since the last save; None once a keyframe came
        self._broadcasts: Optional[List[bytes]] = []
        # the model of the last round: nothing more is asked of this worker
        self._holds_last = False
        # kept where the levels of the broadcasts are coded beside it: it grows with each of them
        self._activity = downlink.initial_activity(downlink.settings_from(config, learner.layout))
        self._load()

    def _load(self) -> None:
        record = self._state_file.load()
        if record is not None and record.run_id == self._run_id:
            self._is_saved = True
            self._instance, self._version = record.instance, record.version
            self._params, self._non_trainable = record.params, record.non_trainable
            self._hash = record.params_hash
            self._uplink, self._proposal = record.uplink, record.proposal
            self._two_phase = record.two_phase
            if self._activity is not None:
                if record.activity is None:
                    self._version = -1  # a keyframe brings it
                else:
                    self._activity = record.activity
        else:
            self._instance = record.instance if record is not None else secrets.token_hex(16)
            self._params, self._non_trainable = self._learner.initial()
            self._hash = params_hash(self._params, self._non_trainable)
            self._version = 0 if self._learner.builtin_model else -1
            self._uplink = self._fresh_uplink(
                uplink.first_reference_hash(self._run_id, self.worker, 0))
            self._proposal, self._two_phase = None, False
        self._base_hash = self._hash  # the file was written before a newer model came
        self._initial_hash = params_hash(
            *self._learner.initial()).hex() if self._learner.builtin_model else ""

    def _fresh_uplink(self, reference_hash: bytes) -> UplinkState:
        return uplink.initial_state(self._settings, self._expected.layout.num_params,
                                    self._config.flq_algorithm.b_up, reference_hash)

    def stop(self) -> None:
        """Leave after the current effect."""
        self._stopped = True

    def run(self) -> int:
        """The loop.

        Raises UnreachableError when --retry_for has passed, FlqError when training fails.
        """
        pending = -1 if self._proposal is None else self._proposal.round
        state = machine.initial_state(self._version, pending, self._two_phase,
                                      self._proposal is not None and self._proposal.skip)
        effect = machine.start()
        if not self._is_saved:
            # the instance must survive from the first moment on: it proves who comes back
            self._save()
        while not isinstance(effect, machine.Exit):
            if self._stopped:
                self.leave()
                return 0
            if isinstance(effect, machine.Retry):
                self._pause()
                effect = effect.again
                continue
            if isinstance(effect, machine.Settle):
                self._settle(effect.accepted)
                effect = effect.then
                continue
            state, effect = machine.step(state, self._perform(effect))
        self._log.info("the run has ended"
                       if not effect.refused else "leaving: the master refused this worker")
        return 3 if effect.refused else 0

    def _perform(self, effect: Any) -> Any:
        """Do one effect and return the event that answers it."""
        try:
            event = _PERFORM[type(effect)](self, effect)
        except UnreachableError as error:
            return machine.Refused(self._unreachable(error))
        except ProtocolError as error:
            return self._refusal(error)
        self._failing_since, self._attempt = None, 0
        self._retry_after_s, self._token_retried = None, False
        return event

    # --- effects

    def _register(self, effect: machine.Register) -> Any:
        self._client.authorize(self._token())
        proposal, samples = self._proposal, self._learner.num_samples(self.worker)
        pending = (-1, "") if proposal is None else (proposal.round,
                                                     proposal.committed.reference_hash.hex())
        known = KnownState(self._run_id, max(0, self._version), self._held_hash(),
                           self._uplink.reference_hash.hex(), *pending)
        answer = self._client.register(
            Registration(PROTOCOL_VERSION, self.worker,
                         self._instance, samples, self._learner.partition_hash,
                         self._expected.layout.hash(), self._initial_hash,
                         self._learner.device(), (known,), self._take_over,
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
        data = self._client.fetch_model(self._version, self._held_hash(), self._poll_s)
        if data is None:
            return machine.NothingNew()
        while data:
            held = Held(self._version, self._params, self._non_trainable, self._hash,
                        self._activity)
            before = data
            try:
                held, frame, data = receive(data, held, self._expected)
            except KeyframeNeeded:
                self._version = -1
                raise
            self._version, self._params, self._non_trainable, self._hash, self._activity = held
            self._terms, self._holds_last = frame.terms, frame.final
            if frame.keyframe:
                self._broadcasts = None
            elif self._broadcasts is not None:
                self._broadcasts.append(before[:len(before) - len(data)])
        return machine.ModelCame(self._version, self._holds_last)

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
                "too late; raise its "
                "system.round_deadline_s, or lower local_steps or local_epochs", effect.round, took,
                self._terms.deadline_s)
        rule = lazy_terms(self._config, self._terms, self._learner.num_samples(self.worker))
        draw = rng.Stream(self._config.dataset.seed, rng.UPLINK, self.worker, effect.round).uniform
        self._proposal = uplink.propose(self._uplink, result, effect.round, self._settings, rule,
                                        draw)
        self._base_hash, self._two_phase = self._hash, bool(self._terms.two_phase)
        bits = self._proposal.kept.bits
        if bits != self._uplink.bits:
            self._log.info(
                "round %d: the error is more than half of the update, %d bits from now on",
                effect.round, bits)
        self._save()
        return machine.Proposed(self._proposal.skip, self._two_phase)

    def _send_bid(self, effect: machine.SendBid) -> machine.Answered:
        return self._answered(self._client.bid(self._pending().bid(self.worker), self._poll_s))

    def _send_upload(self, effect: machine.SendUpload) -> machine.Answered:
        frame = upload_frame(self._pending(), self._base_hash, self.worker, self._uplink,
                             self._settings, self._expected)
        return self._answered(self._client.upload(frame, self._poll_s))

    def _ask(self, effect: machine.Ask) -> machine.Answered:
        return self._answered(self._client.outcome(effect.round, self._poll_s))

    def _pending(self) -> Proposal:
        assert self._proposal is not None, "the machine sends what was proposed"
        return self._proposal

    def _answered(self, outcome: Outcome) -> machine.Answered:
        crash_points.reach("answer.after")
        return machine.Answered(outcome.round, outcome.verdict)

    def _settle(self, accepted: bool) -> None:
        if self._proposal is not None:
            self._uplink = uplink.settle(self._proposal, accepted)
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
                self._trouble.warn("state", error, AFTER_REFUSAL["retry"], time.monotonic())
                time.sleep(DISK_PAUSE_S)
            else:
                self._broadcasts = []
                break

    def _held_hash(self) -> str:
        return self._hash.hex() if self._version >= 0 else ""

    # --- when the master does not answer, or says no

    def _refusal(self, error: ProtocolError) -> machine.Refused:
        action = error.kind.action
        if error.name == "unauthorized" and not self._token_retried:
            # the token file may have been replaced meanwhile
            self._token_retried, action = True, "register"
            self._log.warning("%s; %s", error, TOKEN_AGAIN)
        self._failing_since, self._retry_after_s = None, error.retry_after_s
        if action == "exit":
            self._log.error("%s", error)
        # who leaves is no longer known
        elif action != "finish" and error.name != "unauthorized" and not self._stopped:
            self._trouble.warn(error.name, error, AFTER_REFUSAL[action], time.monotonic())
        return machine.Refused(action)

    def _unreachable(self, error: UnreachableError) -> str:
        """What to do about it: retry, or finish. Raises the error when --retry_for has passed."""
        now = time.monotonic()
        self._retry_after_s = None
        if self._failing_since is None:
            self._failing_since = now
        if self._retry_for_s is not None and now - self._failing_since >= self._retry_for_s:
            raise error
        if self._holds_last and now - self._failing_since >= AFTER_THE_END_S:
            return "finish"
        limits = [self._retry_for_s, AFTER_THE_END_S if self._holds_last else None]
        self._trouble.warn(
            "unreachable", error,
            trying_again(min((limit for limit in limits if limit is not None), default=None)), now)
        return "retry"

    def _pause(self) -> None:
        """Full jitter: many workers that lost their master at once must not return at once."""
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** self._attempt)
        self._attempt = min(self._attempt + 1, 16)
        time.sleep(max(self._retry_after_s or 0.0, random.uniform(0, longest)))

    def leave(self) -> None:
        """Say goodbye; from another thread it ends the long poll under way."""
        with contextlib.suppress(FlqError):  # the master will notice by itself
            self._client.leave()


_PERFORM: Dict[type, Callable[[Worker, Any], Any]] = {
    machine.Register: Worker._register, machine.Fetch: Worker._fetch, machine.Train: Worker._train,
    machine.SendBid: Worker._send_bid, machine.SendUpload: Worker._send_upload,
    machine.Ask: Worker._ask,
}
