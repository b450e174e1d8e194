"""A service and its workers, moved by hand: every message is one that the test sends, every second
one that it lets pass.
"""

import numpy as np

from flq import config, rng
from flq.algorithm import downlink, uplink
from flq.algorithm.lazy import LazyTerms
from flq.compression import codec
from flq.master.process import run_meta
from flq.master.service import Service
from flq.master.store.run_store import RunStore
from flq.parameters import params_hash
from flq.protocol import frames, messages
from flq.protocol.frames import BROADCAST_KIND, Content, Expected, Place, UploadTerms
from flq.protocol.worker_machine import FINAL_VERDICTS
from flq.records import Bid, HeldModel, Option
from tests.system.quadratic import Quadratic

PATIENCE_S = 30.0  # until something is called broken; nothing waits that long when it works
RUN_ID = "run-1"


class Clock:
    """Stands still until the test moves it."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Run:
    """One service with its store in a directory. settings: key=value. learner, store: their
    classes.
    """

    def __init__(self, directory, *settings, learner=Quadratic, store=RunStore, wire=None):
        self.config = config.load(None, ["eval_every=1000000", "mode=laq", *settings]).config
        self.learner, self.clock = learner(self.config), Clock()
        self.directory = directory
        new = not (directory / "run.db").exists()
        self.store = store(directory, run_meta(RUN_ID, self.config, self.learner) if new else None)
        # what A must be, as the hands saw it come about
        self.committed = np.zeros(self.learner.layout.num_params)
        self.service = Service(self.config, self.learner, self.store, RUN_ID, wire, self.clock)
        self.service.start()

    def close(self):
        self.service.close()

    def hand(self, worker, take_over=False, **kept):
        """A worker that has registered."""
        hand = Hand(self, worker, **kept)
        hand.register(take_over=take_over)
        return hand

    def hands(self, *workers):
        return [self.hand(worker) for worker in workers]

    def advance(self, seconds):
        """Let time pass, and the driver see it."""
        with self.service.locked():
            self.clock.now += seconds
            self.service.changed.notify_all()
            self.service._driver_called.notify()

    def wait(self, condition, what):
        """Until the driver has done what makes condition(state) true; returns the state."""
        done = self.service.wait_for(lambda run: condition(run.state), PATIENCE_S)
        assert done, f"waited in vain until {what}: {self.state}"
        return self.state

    def wait_for_round(self, round_):
        return self.wait(lambda state: state.round >= round_, f"round {round_} is open")

    @property
    def state(self):
        return self.service.run.state

    @property
    def accounts(self):
        return self.service.run.model.accounts

    def play(self, *hands):
        """One round in which these workers upload, in one phase or two."""
        round_ = self.state.round
        for hand in hands:
            proposal = hand.train()
            if proposal.skip or self.state.two_phase:
                hand.bid()
            else:
                hand.upload()
        if self.state.two_phase:
            for hand in hands:
                if not hand.proposal.skip and hand.ask(PATIENCE_S).verdict == "granted":
                    hand.upload()
        self.wait_for_round(round_ + 1)
        for hand in hands:
            hand.settle()
        return self.service.run.history.rows()[round_]


class Hand:
    """A worker as the papers have it: its own reference, chain and model.

    kept: the uplink state that it brings along. like: a worker of an earlier service, whose whole
    state it has.
    """

    def __init__(self, run, worker, kept=None, instance=None, like=None):
        self._run, self._service, self.worker = run, run.service, worker
        self.instance = instance or f"{worker:032x}"
        self._settings = uplink.settings_from(run.config, run.learner.layout)
        self._expected = Expected(RUN_ID, run.learner.layout, self._settings.sizes,
                                  self._settings.quantizer)
        self.uplink = kept or self._fresh(uplink.first_reference_hash(RUN_ID, worker, 0))
        self.proposal = None
        self.params, self.values = run.learner.initial()
        self.version, self.terms, self.session = 0, None, ""
        self.activity = downlink.initial_activity(
            downlink.settings_from(run.config, run.learner.layout))
        if like is not None:
            self.uplink, self.params = like.uplink, like.params
            self.values, self.version = like.values, like.version
            self.activity = like.activity

    def _fresh(self, chain):
        return uplink.initial_state(self._settings, self._expected.layout.num_params,
                                    self._run.config.flq_algorithm.b_up, chain)

    @property
    def hash(self):
        return params_hash(self.params, self.values)

    def registration(self, **changes):
        learner = self._run.learner
        pending = self.proposal
        state = {
            "run_id": RUN_ID, "round": self.version, "params_hash": self.hash.hex(),
            "reference_hash": self.uplink.reference_hash.hex(),
            "pending": -1 if pending is None else pending.round,
            "pending_hash": "" if pending is None else pending.committed.reference_hash.hex()
        }
        document = {
            "protocol": 1, "worker_id": self.worker, "instance": self.instance,
            "num_samples": learner.num_samples(self.worker),
            "partition_hash": learner.partition_hash, "shapes_hash": learner.layout.hash(),
            "params_hash": params_hash(*learner.initial()).hex(), "device": {}, "states": [state],
            "memory_rate": self._settings.memory.rate
        }
        return dict(document, **changes)

    def register(self, **changes):
        """The answer as it travels."""
        answer = self._service.register(messages.REGISTRATION.parse(self.registration(**changes)))
        self.session, self.terms = answer.session, answer.terms
        if answer.reference == "reset":
            self.uplink, self.proposal = self._fresh(bytes.fromhex(answer.reference_hash)), None
        return messages.REGISTERED.to_json(answer)

    @property
    def held(self):
        return HeldModel(self.version, self.hash)

    def fetch(self, wait_s=0.0):
        """Adopt what is newer; the frames that came, or None."""
        return self.take(self._service.broadcast(self.session, self.held, wait_s))

    def take(self, data):
        """Adopt what these frames lead to; the frames, or None where there are none."""
        came = []
        while data:
            frame, data = frames.unpack_first(
                data, BROADCAST_KIND, self._expected._replace(activity=self.activity))
            sizes = self._expected.layout.sizes
            self.params = codec.decode(frame.encoded, sizes) if frame.keyframe else downlink.apply(
                self.params, frame.encoded, sizes)
            self.values, self.terms = frame.non_trainable, frame.terms
            self.version = frame.header.round
            assert self.hash == frame.header.params_hash
            self.activity = frame.activity if frame.keyframe else codec.next_activity(
                self.activity, frame.encoded)
            came.append(frame)
        return came or None

    def train(self, update=None):
        """Propose for the open round: the learner's update, or the given one."""
        round_ = self._run.state.round
        if self.version < round_:
            assert self.fetch(PATIENCE_S), "no model came"
        result = self._run.learner.local_update(self.params, self.values, self.worker, round_)
        if update is not None:
            result = result._replace(update=np.full(self.params.size, update, np.float32))
        draw = rng.Stream(self._run.config.dataset.seed, rng.UPLINK, self.worker, round_).uniform
        lazy = LazyTerms(self.terms.thr_scale, self.terms.history_sum, self.terms.max_skips,
                         self._run.config.lazy_selection.warmup,
                         self._run.config.lazy_selection.lazy_eps, 1.0)
        self.proposal = uplink.propose(self.uplink, result, round_, self._settings, lazy, draw)
        return self.proposal

    def frame(self, **changes):
        proposal = self.proposal
        told = {
            "bits": proposal.bits, "body": proposal.body, "non_trainable": proposal.non_trainable,
            "round_": proposal.round, "params_hash": self.hash, "worker": self.worker,
            "reference_hash": self.uplink.reference_hash
        }
        told.update(changes)
        terms = UploadTerms(proposal.gain, proposal.loss, proposal.residual_norm, self.uplink.clock)
        place = Place(told["round_"], told["round_"], told["params_hash"], told["worker"],
                      told["reference_hash"])
        return frames.pack(
            Content(self._settings.quantizer, told["bits"], told["body"], told["non_trainable"]),
            place, terms, self._expected)

    def upload(self, wait_s=0.0, then=None, held=None, **changes):
        return self._service.upload(self.session, self.frame(**changes), wait_s, then, held)

    def bid(self, wait_s=0.0, then=None, held=None):
        proposal = self.proposal
        bits = 0 if proposal.skip else 8 * (len(proposal.body.data) +
                                            4 * self._expected.layout.num_non_trainable)
        options = () if proposal.skip else (Option(proposal.bits, bits, proposal.gain),)
        bid = Bid(self.worker, proposal.round, proposal.skip, proposal.reason, options,
                  proposal.loss, proposal.residual_norm)
        return self._service.bid(self.session, messages.BID.to_json(bid), wait_s, then, held)

    def ask(self, wait_s=0.0, round_=None, held=None):
        return self._service.outcome(self.session,
                                     self.proposal.round if round_ is None else round_, wait_s,
                                     held=held)

    def settle(self):
        """Take over the verdict of the closed round."""
        outcome, proposal = self.ask(), self.proposal
        assert outcome.verdict in FINAL_VERDICTS
        if outcome.verdict == "accepted":
            encoded = codec.from_body(proposal.body, self._settings.quantizer, proposal.bits,
                                      self._settings.sizes, self.uplink.activity)
            self._run.committed += self.weight * codec.decode(encoded, self._settings.sizes).astype(
                np.float64)
        self.uplink, self.proposal = uplink.settle(proposal, outcome.verdict == "accepted"), None
        return outcome

    @property
    def weight(self):
        return self._run.learner.num_samples(self.worker)

    def leave(self):
        self._service.leave(self.session)
        self.departs()

    def departs(self):
        """Its reference leaves the average."""
        self._run.committed -= self.weight * self.uplink.memory


def play_without(run, *hands):
    """A round that closes at its deadline with these hands alone, as it is stored."""
    round_ = run.state.round
    for hand in hands:
        hand.train()
        hand.upload()
    run.advance(30.0)
    run.wait_for_round(round_ + 1)
    for hand in hands:
        hand.settle()
    return run.service.run.history.rows()[round_]
