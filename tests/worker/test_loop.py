"""The real worker against a client that answers from a script: every request, every pause and every
verdict by example.
"""

import logging

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import downlink, uplink
from flq.compression import QUANTIZERS, codec
from flq.errors import DataError, ProtocolError, UnreachableError
from flq.parameters import Layout, params_hash
from flq.protocol import frames, messages
from flq.protocol.frames import UPLOAD_KIND, Expected, RoundTerms
from flq.records import HeldModel, LocalResult
from flq.worker import loop, patience
from flq.worker.loop import Worker
from flq.worker.state_file import InMemory

RUN_ID, WORKER = "run-1", 2
LAYOUT = Layout(((3, 4), (5,)), ((2,),))
EXPECTED = Expected(RUN_ID, LAYOUT, LAYOUT.sizes)
TERMS = RoundTerms(history_sum=0.0, thr_scale=0.0, mean_weight=50.0, deadline_s=0.0, max_skips=100,
                   two_phase=0)
CHAIN = uplink.first_reference_hash(RUN_ID, WORKER, 0)


class Learner(object):
    """Updates that are drawn from the worker and the round. broken: rounds without a finite update.
    """

    layout, builtin_model, partition_hash = LAYOUT, True, "partition"

    def __init__(self):
        self.trained, self.broken = [], set()
        self.prepared = []

    def num_samples(self, worker):
        return 50

    def device(self):
        return {"name": "test"}

    def initial(self):
        return np.linspace(-1, 1, 17).astype(np.float32), np.zeros(2, np.float32)

    def local_update(self, params, non_trainable, worker, round_):
        self.trained.append((round_, params_hash(params, non_trainable)))
        update = (rng.Stream(5, rng.INIT, worker, round_).uniform(17) - 0.5).astype(np.float32)
        return LocalResult(update * np.float32(np.nan if round_ in self.broken else 1),
                           non_trainable + np.float32(1), 0.5 + round_, 5)

    def prepare(self, worker, round_):
        self.prepared.append((worker, round_, len(self.trained)))


class Script(object):
    """A client whose answers are given beforehand: (method, answer) in order; an exception is
    raised. It notes what it was told.

    Messages are JSON here, as they travel, and records for the worker, as with every client.
    """

    SENT = {"register": messages.REGISTRATION, "bid": messages.BID}
    ANSWERS = {
        "register": messages.REGISTERED, "bid": messages.OUTCOME, "upload": messages.OUTCOME,
        "outcome": messages.OUTCOME
    }

    def __init__(self, *steps):
        self._steps, self.calls, self.credentials = list(steps), [], []

    def authorize(self, credential):
        self.credentials.append(credential)

    def __getattr__(self, name):
        def call(*arguments):
            assert self._steps, f"{name} is called when the script is over"
            expected, answer = self._steps.pop(0)
            assert name == expected, f"{name} is called, not {expected}"
            if name in self.SENT:
                arguments = (self.SENT[name].to_json(arguments[0]),) + arguments[1:]
            self.calls.append((name, arguments))
            if isinstance(answer, Exception):
                raise answer
            if name not in self.ANSWERS:
                return answer
            frames_ = {"frames": answer["frames"]} if "frames" in answer else {}
            return self.ANSWERS[name].parse(answer, **frames_)
        return call

    def told(self, name):
        """The arguments of every call of that method."""
        return [arguments for called, arguments in self.calls if called == name]

    def uploads(self):
        return [frames.unpack(data, UPLOAD_KIND, EXPECTED) for data, *_ in self.told("upload")]

    @property
    def over(self):
        return not self._steps


def registered(round_=0, have=0, owes="bid", outcome="", reference="keep", chain=CHAIN, terms=TERMS,
               session="session", run_id=RUN_ID):
    return ("register", {
        "run_id": run_id, "session": session, "round": round_, "version": round_, "have": have,
        "params_hash": "00" * 8, "owes": owes, "outcome": outcome, "reference": reference,
        "reference_hash": chain.hex(), "terms": terms._asdict()
    })


def outcome(round_, became, name="upload", option=0, **frames_):
    """frames: what came with it."""
    return name, dict({"round": round_, "state": became, "option": option,
                       "reference_hash": CHAIN.hex()}, **frames_)


def refusal(error, name="fetch_model", **details):
    return name, ProtocolError(error, error, **details)


END = refusal("finished")


class Models(object):
    """The master's versions: `delta(k)` leads from k - 1 to k, `keyframe(k)` is the model itself.
    """

    def __init__(self):
        params, non_trainable = Learner().initial()
        self.params, self.non_trainable = [params], [non_trainable]

    def extend(self):
        settings = downlink.settings_from(config.build({"flq_algorithm.downlink": "laq"}), LAYOUT)
        target = self.params[-1] + rng.Stream(6, rng.INIT, 0, len(self.params)).uniform(17).astype(
            np.float32)
        encoded, params = downlink.encode(target, self.params[-1], len(self.params), settings)
        self.params.append(params)
        self.non_trainable.append(self.non_trainable[-1] + np.float32(1))
        return encoded

    def delta(self, final=False, terms=TERMS, hash_=None):
        encoded = self.extend()
        version = len(self.params) - 1
        return self._pack(QUANTIZERS["laq"], 4, codec.to_body(encoded, False), version, version - 1,
                          terms, final, hash_, False)

    def keyframe(self, version, final=False, hash_=None, activity=None):
        body = downlink.keyframe(self.params[version], LAYOUT.sizes)
        return self._pack(QUANTIZERS["fedavg"], 32, body, version, version, TERMS, final, hash_,
                          True, activity)

    def _pack(self, quantizer, bits, body, version, base, terms, final, hash_, keyframe,
              activity=None):
        place = frames.Place(version, base, hash_ or self.hash(version), keyframe=keyframe,
                             final=final)
        return frames.pack(
            frames.Content(quantizer, bits, body, self.non_trainable[version], activity), place,
            terms, EXPECTED)

    def hash(self, version):
        return params_hash(self.params[version], self.non_trainable[version])


class Clock(object):
    """time.monotonic and time.sleep of a clock that only sleeping moves."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    # the longest pause that the jitter may draw
    monkeypatch.setattr(loop.random, "uniform", lambda low, high: high)
    return clock


def worker_of(script, learner=None, file=None, token=lambda: "token", overrides=(), **options):
    settings = config.load(None, list(overrides)).config
    return Worker(WORKER, script, learner or Learner(), settings, RUN_ID, file or InMemory(),
                  token, **options)


def decoded(frame):
    return codec.decode(frame.encoded, LAYOUT.sizes)


# --- rounds


def test_two_rounds_of_one_phase(clock):
    models, learner = Models(), Learner()
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.delta()),
                    outcome(1, "accepted"), ("fetch_model", models.delta(final=True)), END)
    assert worker_of(script, learner).run() == 0 and script.over and clock.slept == []
    assert learner.trained == [(0, models.hash(0)),
                               (1, models.hash(1))], "each round on its own model"
    first, second = script.uploads()
    assert first.header.params_hash == models.hash(
        0) and first.header.reference_hash == CHAIN[:8] and first.header.worker == WORKER
    chain = uplink.next_reference_hash(CHAIN, first.payload)
    assert second.header.reference_hash == chain[:8] and second.header.params_hash == models.hash(1)
    assert second.terms.clock == 0 and first.terms.loss == 0.5 and second.terms.loss == 1.5
    assert first.non_trainable.tolist() == [1.0, 1.0]
    assert second.non_trainable.tolist() == [2.0, 2.0]
    assert [held for held, _ in script.told("fetch_model")] == [
        HeldModel(version, models.hash(version)) for version in range(3)]


@pytest.mark.parametrize("name, became", [("upload", "accepted"), ("bid", "skipped")])
def test_a_model_comes_with_the_outcome(clock, name, became):
    """The next round is trained at once, and what is sent says which model is held."""
    models, learner = Models(), Learner()
    terms = TERMS if name == "upload" else TERMS._replace(history_sum=1e9, thr_scale=1.0,
                                                          max_skips=100)
    script = Script(registered(), outcome(0, "accepted", frames=models.delta(terms=terms)),
                    outcome(1, became, name, frames=models.delta(final=True)), END)
    assert worker_of(script, learner).run() == 0 and script.over and clock.slept == []
    assert learner.trained == [(0, models.hash(0)), (1, models.hash(1))]
    held = [arguments[2] for call, arguments in script.calls if call in ("upload", "bid")]
    assert held == [HeldModel(version, models.hash(version)) for version in range(2)]


def test_a_model_with_an_outcome_that_is_not_the_masters_is_asked_for_anew(clock):
    """Its outcome is heard once more with the registration: nothing is settled by half."""
    models, learner = Models(), Learner()
    script = Script(registered(), outcome(0, "accepted", frames=models.delta(hash_=b"\1" * 8)),
                    registered(1, -1, "bid", "accepted"), ("fetch_model", models.keyframe(1)),
                    outcome(1, "accepted"), END)
    assert worker_of(script, learner).run() == 0 and script.over
    assert learner.trained == [(0, models.hash(0)), (1, models.hash(1))]
    first, second = script.uploads()
    assert second.header.reference_hash == uplink.next_reference_hash(CHAIN, first.payload)[:8]


@pytest.mark.parametrize("cohorts", [1, 2])
def test_the_next_turn_is_prepared_before_the_answer_to_this_one_is_sent(clock, cohorts):
    learner, script = Learner(), Script(registered())
    with pytest.raises(AssertionError, match="upload is called when the script is over"):
        worker_of(script, learner, overrides=[f"cohorts={cohorts}", "total_workers=4"]).run()
    assert learner.prepared == [(WORKER, cohorts, 1)]


def test_what_was_committed_is_not_sent_again(clock):
    """Two equal updates: the second innovation is what the first quantiser left out."""
    class Same(Learner):
        def local_update(self, params, non_trainable, worker, round_):
            return super(Same, self).local_update(params, non_trainable, worker, 0)

    models = Models()
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.delta()),
                    outcome(1, "refused"), ("fetch_model", models.delta()), outcome(2, "accepted"),
                    END)
    assert worker_of(script, Same()).run() == 0
    update = Learner().local_update(models.params[0], models.non_trainable[0], WORKER, 0).update
    first, second, third = [decoded(frame) for frame in script.uploads()]
    assert np.abs(second).max() <= np.abs(update - first).max() * 1.0001
    assert third.tolist() == second.tolist(), "what was refused is offered again"
    chain = uplink.next_reference_hash(CHAIN, script.uploads()[0].payload)
    assert [frame.header.reference_hash
            for frame in script.uploads()] == [CHAIN[:8], chain[:8], chain[:8]]


def test_two_phases_bid_first_and_upload_when_granted(clock):
    two = TERMS._replace(two_phase=1)
    models = Models()
    script = Script(registered(terms=two), outcome(0, "open", "bid"),
                    outcome(0, "granted", "outcome", 4), outcome(0, "accepted"),
                    ("fetch_model", models.delta(terms=two)), outcome(1, "refused", "bid"), END)
    assert worker_of(script).run() == 0 and script.over
    (first, *_), (second, *_) = script.told("bid")
    (frame,) = script.uploads()
    assert first["options"] == [{"b": 4, "bits": frame.body_bits, "gain": frame.terms.gain}
                                ] and not first["skip"] and first["round"] == 0
    assert second["round"] == 1


def test_the_phases_of_a_round_are_what_its_broadcast_says(clock):
    models = Models()
    script = Script(registered(), outcome(0, "accepted"),
                    ("fetch_model", models.delta(terms=TERMS._replace(two_phase=1))),
                    outcome(1, "refused", "bid"), END)
    assert worker_of(script).run() == 0 and script.over


def test_a_lazy_worker_bids_its_silence(clock):
    models, terms = Models(), TERMS._replace(thr_scale=1.0, history_sum=1e9)
    script = Script(registered(), outcome(0,
                                          "accepted"), ("fetch_model", models.delta(terms=terms)),
                    outcome(1, "skipped", "bid"), ("fetch_model", models.delta(terms=terms)),
                    outcome(2, "skipped", "bid"), ("fetch_model", models.delta()),
                    outcome(3, "accepted"), END)
    assert worker_of(script).run() == 0 and script.over
    first, second = [document for document, *_ in script.told("bid")]
    assert (first["skip"], first["reason"]) == (second["skip"], second["reason"]) == (True, "lazy")
    assert "options" not in first
    assert script.uploads()[1].terms.clock == 2, "two rounds without a commit"


@pytest.mark.parametrize("deadline_s, warned", [(30.0, True), (31.0, False), (0.0, False)])
def test_training_that_takes_longer_than_the_round_is_named_with_both_times(
        clock, caplog, deadline_s, warned):
    class Slow(Learner):
        def local_update(self, params, non_trainable, worker, round_):
            clock.now += 31.0
            return super(Slow, self).local_update(params, non_trainable, worker, round_)

    script = Script(registered(terms=TERMS._replace(deadline_s=deadline_s)), outcome(0, "accepted"),
                    END)
    assert worker_of(script, Slow()).run() == 0 and script.over
    assert [message for message in caplog.messages if "training took" in message] == [
        "round 0: training took 31.0 s and the master waits 30.0 s: this update may come too late; "
        "raise its system.round_deadline_s, "
        "or lower local_steps or local_epochs"
    ] * warned


def test_an_update_that_is_not_finite_is_a_silence_that_keeps_the_state(clock):
    models, learner = Models(), Learner()
    learner.broken = {1}
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.delta()),
                    outcome(1, "skipped", "bid"), ("fetch_model", models.delta()),
                    outcome(2, "accepted"), END)
    assert worker_of(script, learner).run() == 0 and script.over
    assert script.told("bid")[0][0]["reason"] == "nonfinite"
    first, last = script.uploads()
    assert last.header.reference_hash == uplink.next_reference_hash(CHAIN, first.payload)[:8]


def test_several_missed_versions_come_in_one_answer(clock):
    models, learner = Models(), Learner()
    both = models.delta() + models.delta()
    script = Script(registered(2, 0), ("fetch_model", both), outcome(2, "accepted"), END)
    assert worker_of(script, learner).run() == 0 and learner.trained == [(2, models.hash(2))]


def test_a_users_model_comes_from_the_master(clock):
    class Own(Learner):
        builtin_model = False

    models = Models()
    script = Script(registered(0, -1), ("fetch_model", models.keyframe(0)), outcome(0, "accepted"),
                    END)
    assert worker_of(script, Own()).run() == 0
    (document,), = script.told("register")
    assert document["params_hash"] == "" and document["states"][0]["params_hash"] == ""
    assert script.told("fetch_model")[0][0] == HeldModel(-1, b"")


def test_a_registration_says_what_the_worker_has(clock):
    script = Script(registered(), outcome(0, "accepted"), END)
    assert worker_of(script, take_over=True).run() == 0
    (document,), = script.told("register")
    initial = params_hash(*Learner().initial()).hex()
    assert document["protocol"] == 1 and document["worker_id"] == WORKER and document[
        "num_samples"] == 50 and document["take_over"] is True
    assert document["partition_hash"] == "partition"
    assert document["shapes_hash"] == LAYOUT.hash() and document["params_hash"] == initial and len(
        document["instance"]) == 32
    assert document["states"] == [{
        "run_id": RUN_ID, "round": 0, "params_hash": initial, "reference_hash": CHAIN.hex(),
        "pending": -1, "pending_hash": ""
    }]
    assert script.credentials == ["token", "session"]


# --- trouble


def test_a_master_that_is_away_is_asked_again_with_growing_pauses(clock, caplog):
    away = UnreachableError("no answer")
    script = Script(
        *[("register", away)] * 9 +
        [registered(), ("upload",
                        away), outcome(0, "accepted"), END])
    with caplog.at_level(logging.WARNING):
        assert worker_of(script).run() == 0 and script.over
    assert clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0,
                                         0.2]), "after an answer the pauses start anew"
    assert sum("no answer; trying again" in message
               for message in caplog.messages) == 1, "each cause once a minute"


def test_pauses_are_drawn_so_that_workers_do_not_return_all_at_once(monkeypatch):
    clock, drawn = Clock(), []
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop.random, "uniform", lambda low, high: drawn.append((low, high)) or low)
    away = UnreachableError("away")
    script = Script(("register", away), ("register", away), registered(), outcome(0, "accepted"),
                    END)
    assert worker_of(script).run() == 0
    assert drawn == [(0, 0.2), (0, 0.4)] and clock.slept == [0, 0]


def test_the_master_may_say_how_long_to_wait(clock):
    script = Script(registered(), refusal("blocked", "upload", retry_after_s=7.0),
                    refusal("too_many_requests", "upload"), ("upload", UnreachableError("away")),
                    outcome(0, "accepted"), END)
    assert worker_of(script).run() == 0
    assert clock.slept == pytest.approx([7.0, 0.4,
                                         0.8]), "what one answer asked for does not bind the next"


def test_a_cause_is_logged_again_after_a_minute(clock, caplog):
    script = Script(*[("register", UnreachableError("away"))] * 14 +
                    [registered(), outcome(0, "accepted"), END])
    with caplog.at_level(logging.WARNING):
        assert worker_of(script).run() == 0
    assert sum("trying again" in message for message in caplog.messages) == 2


class FullDisk(InMemory):
    """No room for the first `failures` of its writes."""

    def __init__(self, failures):
        super(FullDisk, self).__init__()
        self.failures = failures

    def save(self, record, broadcasts=None):
        if self.failures:
            self.failures -= 1
            raise DataError("cannot write the worker's state", got="No space left on device")
        super(FullDisk, self).save(record)


def test_without_room_for_its_state_a_worker_waits_before_it_sends_anything(clock, caplog):
    script, file, learner = Script(registered(), outcome(0, "accepted"),
                                   END), FullDisk(3), Learner()
    worker = worker_of(script, learner, file)
    assert script.calls == []
    with caplog.at_level(logging.WARNING):
        assert worker.run() == 0 and script.over
    assert clock.slept == [loop.DISK_PAUSE_S] * 3 and len(learner.trained) == 1
    assert sum("No space left on device; trying again" in message
               for message in caplog.messages) == 1
    assert file.load().proposal is not None


def test_a_worker_without_room_can_be_stopped(clock):
    script = Script(("leave", None))
    worker = worker_of(script, file=FullDisk(-1))
    clock.sleep = lambda seconds: worker.stop()
    assert worker.run() == 0 and script.over


def test_a_worker_gives_up_when_the_master_is_away_for_too_long(clock):
    script = Script(*[("register", UnreachableError("away"))] * 12)
    with pytest.raises(UnreachableError):
        worker_of(script, retry_for_s=20.0).run()
    assert 20.0 <= sum(clock.slept) < 31.0


def test_who_holds_the_last_model_and_finds_no_master_any_more_has_ended(clock, caplog):
    models = Models()
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.delta(final=True)),
                    *[("fetch_model", UnreachableError("away"))] * 30)
    with caplog.at_level(logging.WARNING):
        assert worker_of(script).run() == 0
    assert patience.AFTER_THE_END_S <= sum(
        clock.slept) < patience.AFTER_THE_END_S + 11.0, "the master may only be starting again"
    assert "away; trying again for 120 s" in caplog.messages and not any(
        "without end" in message for message in caplog.messages)


def test_who_lacks_the_last_model_looks_for_its_master_without_end(clock, caplog):
    models = Models()
    script = Script(
        registered(), outcome(0, "accepted"), ("fetch_model", models.delta()),
        *[("upload", UnreachableError("away"))] * 30 +
        [outcome(1, "accepted"), ("fetch_model", models.delta(final=True)), END])
    assert worker_of(script).run() == 0 and script.over and sum(
        clock.slept) > 2 * patience.AFTER_THE_END_S
    assert any("away; trying again without end (if the run is over, stop this worker" in message
               for message in caplog.messages)


def test_any_answer_shows_that_the_master_is_there(clock):
    steps = []
    for _ in range(5):
        steps += [("upload", UnreachableError("away")),
                  refusal("blocked", "upload", retry_after_s=10.0)]
    script = Script(registered(), *steps + [outcome(0, "accepted"), END])
    assert worker_of(script, retry_for_s=15.0).run() == 0 and sum(clock.slept) > 50


def test_a_token_is_read_again_once_when_it_is_refused(clock, caplog):
    tokens = iter(["old", "new"])
    script = Script(refusal("unauthorized", "register"), registered(), outcome(0, "accepted"), END)
    assert worker_of(script, token=lambda: next(tokens)).run() == 0
    assert script.credentials == ["old", "new", "session"] and clock.slept == []
    assert any(message.endswith("; reading the token once more") for message in caplog.messages)


def test_a_token_that_is_refused_twice_is_a_matter_for_a_person(clock, caplog):
    script = Script(refusal("unauthorized", "register"), refusal("unauthorized", "register"))
    assert worker_of(script).run() == 3 and script.over
    assert any("unauthorized" in message for message in caplog.messages)


def test_an_unknown_session_registers_again_and_sends_the_same_bytes(clock):
    script = Script(registered(), refusal("unknown_session", "upload"),
                    registered(outcome="open", session="second"), outcome(0, "accepted"), END)
    learner = Learner()
    assert worker_of(script, learner).run() == 0 and len(learner.trained) == 1 and clock.slept == []
    (first, *_), (second, *_) = script.told("upload")
    assert first == second
    again = script.told("register")[1][0]["states"][0]
    (frame, _) = script.uploads()
    assert (again["pending"],
            again["pending_hash"]) == (0, uplink.next_reference_hash(CHAIN, frame.payload).hex())
    assert script.credentials == ["token", "session", "token", "second"]


def test_a_verdict_that_was_missed_is_asked_for(clock):
    script = Script(registered(), refusal("wrong_round", "upload"), outcome(0, "open", "outcome"),
                    outcome(0, "accepted", "outcome"), END)
    assert worker_of(script).run() == 0
    assert [asked[:2] for asked in script.told("outcome")] == [(0, 20.0), (0, 20.0)]


@pytest.mark.parametrize("accepted", [True, False])
def test_a_proposal_of_a_closed_round_is_settled_at_registration(clock, accepted):
    models = Models()
    script = Script(registered(), refusal("unknown_session", "upload"),
                    registered(1, 0, "bid", "accepted" if accepted else "late"),
                    ("fetch_model", models.delta()), outcome(1, "accepted"), END)
    assert worker_of(script).run() == 0
    first, second = script.uploads()
    chain = uplink.next_reference_hash(CHAIN, first.payload) if accepted else CHAIN
    assert second.header.reference_hash == chain[:8] and second.terms.clock == (0 if accepted else
                                                                                first.terms.clock)


def test_another_hash_of_the_broadcast_is_mended_by_a_keyframe(clock):
    models, learner = Models(), Learner()
    script = Script(registered(), outcome(0, "accepted"),
                    ("fetch_model", models.delta(hash_=b"\1" * 8)),
                    registered(1, -1, "bid", "accepted"), ("fetch_model", models.keyframe(1)),
                    outcome(1, "accepted"), END)
    assert worker_of(script, learner).run() == 0
    assert script.told(
        "register")[1][0]["states"][0]["params_hash"] == "", "it does not claim to hold that model"
    assert script.told("fetch_model")[1][0] == HeldModel(-1, b"")
    assert learner.trained == [(0, models.hash(0)), (1, models.hash(1))]


class Histories(Models):
    """Versions whose differences are coded beside their history. activity: by version."""

    KEYS = ("downlink=rd", "b_down=16", "entropy_coding_down=context")

    def __init__(self):
        super().__init__()
        self.settings = downlink.settings_from(config.load(None, self.KEYS).config, LAYOUT)
        self.activity = [downlink.initial_activity(self.settings)]

    def beside(self, final=False, activity=None):
        """The next difference. activity: another than the master has."""
        version = len(self.params)
        target = self.params[-1] + np.float32(0.01) * rng.Stream(6, rng.INIT, 0, version).uniform(
            17).astype(np.float32)
        target[version] += np.float32(1)
        encoded, params = downlink.encode(target, self.params[-1], version, self.settings)
        body = codec.to_body(encoded, False, self.activity[-1] if activity is None else activity)
        assert body.beside_history
        self.params.append(params)
        self.non_trainable.append(self.non_trainable[-1])
        self.activity.append(codec.next_activity(self.activity[-1], encoded))
        return self._pack(self.settings.quantizer, 16, body, version, version - 1, TERMS, final,
                          None, False)


def test_differences_beside_a_history_are_read_as_it_grows(clock):
    models, learner, file = Histories(), Learner(), InMemory()
    script = Script(registered(), outcome(0, "accepted"),
                    ("fetch_model", models.beside() + models.beside()), outcome(2, "accepted"),
                    ("fetch_model", models.beside(final=True)), END)
    worker = worker_of(script, learner, file, overrides=models.KEYS)
    assert worker.run() == 0 and script.over
    assert learner.trained == [(0, models.hash(0)), (2, models.hash(2))]
    assert worker._activity.tolist() == models.activity[3].tolist()
    assert file.load().activity.tolist() == models.activity[2].tolist(), "saved with its model"


@pytest.mark.parametrize("lost", [False, True], ids=["another", "no"])
def test_who_has_another_history_or_none_asks_for_a_keyframe_that_brings_it(clock, lost):
    models, learner, file = Histories(), Learner(), InMemory()
    first = Script(registered(), refusal("stopped", "upload"))
    assert worker_of(first, learner, file, overrides=models.KEYS).run() == 0
    if lost:
        file.save(file.load()._replace(activity=None))
        steps = [registered(1, -1, "bid", "late")]
        models.beside()
    else:
        steps = [registered(1, 0, "bid", "late"),
                 ("fetch_model", models.beside(activity=models.activity[0] + np.uint8(7))),
                 registered(1, -1, "bid")]
    script = Script(*steps, ("fetch_model", models.keyframe(1, activity=models.activity[1])),
                    outcome(1, "accepted"), ("fetch_model", models.beside(final=True)), END)
    worker = worker_of(script, learner, file, overrides=models.KEYS)
    assert worker.run() == 0 and script.over
    told = script.told("register")[-1][0]["states"][0]
    assert told["params_hash"] == "", "it does not claim to hold what it cannot go on from"
    assert learner.trained[-1] == (1, models.hash(1))
    assert worker._activity.tolist() == models.activity[2].tolist()


@pytest.mark.parametrize("keeps", [False, True])
def test_a_history_that_the_run_says_nothing_of_ends_the_worker(clock, caplog, keeps):
    """It has another configuration than it handed out: asking again would not help."""
    models = Histories()
    activity = None if keeps else models.activity[0]
    script = Script(registered(0, -1), ("fetch_model", models.keyframe(0, activity=activity)))
    assert worker_of(script, overrides=models.KEYS if keeps else ()).run() == 3 and script.over
    assert "bad_flags" in caplog.text
    if not keeps:
        script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.beside()))
        assert worker_of(script).run() == 3 and script.over


def test_a_difference_from_another_version_is_not_applied(clock):
    models, learner = Models(), Learner()
    models.extend()
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.delta()),
                    registered(2, -1, "bid", "accepted"), ("fetch_model", models.keyframe(2)),
                    outcome(2, "accepted"), END)
    assert worker_of(script, learner).run() == 0 and learner.trained[1] == (2, models.hash(2))


def test_a_damaged_broadcast_ends_the_worker_with_its_reason(clock, caplog):
    models = Models()
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.delta()[:-1]))
    assert worker_of(script).run() == 3
    assert any("frame_short" in message for message in caplog.messages)


def test_a_reference_that_the_master_does_not_share_starts_again_from_0(clock, caplog):
    models = Models()
    fresh = uplink.first_reference_hash(RUN_ID, WORKER, 1)
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", models.delta()),
                    refusal("other_base", "upload"), registered(1, 1, "bid", "open", "reset",
                                                                fresh), outcome(1, "accepted"), END)
    learner = Learner()
    assert worker_of(script, learner).run() == 0 and [round_ for round_, _ in learner.trained
                                                      ] == [0, 1, 1]
    _, refused, anew = script.uploads()
    assert anew.header.reference_hash == fresh[:8]
    update = Learner().local_update(models.params[1], models.non_trainable[1], WORKER, 1).update
    assert np.abs(update -
                  decoded(anew)).max() <= np.abs(update).max() / 15, "the whole update is offered"
    assert np.abs(decoded(refused) - decoded(anew)).max() > 0.1
    assert any("start again from 0" in message for message in caplog.messages)


@pytest.mark.parametrize("error, code", [("finished", 0), ("stopped", 0), ("removed", 3),
                                         ("session_superseded", 3), ("worker_id_in_use", 3),
                                         ("data_mismatch", 3), ("not_found", 3)])
@pytest.mark.parametrize("where", ["register", "upload", "fetch_model"])
def test_an_end_is_an_exit_code(clock, error, code, where):
    path = {
        "register": [], "upload": [registered()],
        "fetch_model": [registered(), outcome(0, "accepted")]
    }[where]
    script = Script(*path + [refusal(error, where)])
    assert worker_of(script).run() == code and script.over


def test_a_master_of_another_run_is_not_joined(clock, caplog):
    script = Script(registered(), refusal("unknown_session", "upload"), registered(run_id="run-2"))
    assert worker_of(script).run() == 3 and script.over
    assert any("run-2" in message and "start the worker again" in message
               for message in caplog.messages)


def test_training_that_fails_ends_the_worker(clock):
    class Broken(Learner):
        def local_update(self, params, non_trainable, worker, round_):
            raise MemoryError("no room on the GPU")

    worker = worker_of(Script(registered()), Broken())
    with pytest.raises(MemoryError):
        worker.run()
    assert not worker.training, "no sign of life is sent for it"


def test_a_worker_that_is_asked_to_stop_says_goodbye(clock):
    class Asked(Learner):
        def local_update(self, params, non_trainable, worker, round_):
            running.stop()
            return super(Asked, self).local_update(params, non_trainable, worker, round_)

    script = Script(registered(), ("leave", None))
    running = worker_of(script, Asked())
    assert running.run() == 0 and script.over
    script = Script(("leave", UnreachableError("away")))
    running = worker_of(script)
    running.stop()
    assert running.run() == 0, "a master that is gone does not keep it"


# --- what survives


class Recorder(InMemory):
    """Notes how many requests had been sent when each record was saved."""

    def __init__(self):
        super(Recorder, self).__init__()
        self.script, self.saved = None, []

    def save(self, record, broadcasts=None):
        calls = 0 if self.script is None else len(self.script.calls)
        self.saved.append((calls, None if record.proposal is None else record.proposal.round))
        super(Recorder, self).save(record, broadcasts)


def test_a_proposal_is_saved_before_it_is_sent(clock):
    models, file = Models(), Recorder()
    file.script = script = Script(registered(), outcome(0, "accepted"),
                                  ("fetch_model", models.delta()), outcome(1, "accepted"), END)
    assert worker_of(script, file=file).run() == 0
    names = [name for name, _ in script.calls]
    assert file.saved[0][1] is None, "its instance is saved first"
    assert file.saved[1:] == [(1, 0), (3, 1)] and names[1] == names[3] == "upload"


def test_a_new_process_with_the_old_state_goes_on(clock):
    models, file, learner = Models(), InMemory(), Learner()
    script = Script(registered(), ("upload", MemoryError("killed here")))
    with pytest.raises(MemoryError):
        worker_of(script, learner, file).run()
    again = Script(registered(outcome="open"), outcome(0, "accepted"),
                   ("fetch_model", models.delta()), outcome(1, "accepted"), END)
    assert worker_of(again, learner, file).run() == 0
    assert [round_ for round_, _ in learner.trained] == [0, 1], "it does not train again"
    assert again.told("upload")[0] == script.told("upload")[0]
    assert again.told("register")[0][0]["instance"] == script.told("register")[0][0]["instance"]


def test_a_state_of_another_run_is_not_used_but_for_its_instance(clock):
    file = InMemory()
    assert worker_of(Script(registered(), outcome(0, "accepted"), END), file=file).run() == 0
    instance = file.load().instance
    file.save(file.load()._replace(run_id="run-0", version=9))
    script = Script(registered(), outcome(0, "accepted"), END)
    assert worker_of(script, file=file).run() == 0
    (document,), = script.told("register")
    (known,) = document["states"]
    assert document["instance"] == instance and known["round"] == 0 and known[
        "reference_hash"] == CHAIN.hex()


def test_a_large_error_asks_for_one_more_bit_and_says_so(clock, caplog):
    class Coarse(Learner):
        def local_update(self, params, non_trainable, worker, round_):
            update = np.zeros(17, np.float32)
            # 2 bits have the levels -4, -4/3, 4/3 and 4: every 0 becomes 4/3
            update[0] = update[12] = 4.0
            return LocalResult(update, non_trainable, 1.0, 1)

    script = Script(registered(), outcome(0, "refused"), ("fetch_model", Models().delta()),
                    outcome(1, "refused"), END)
    with caplog.at_level(logging.INFO, "flq.worker"):
        assert worker_of(script, Coarse(), overrides=["b_up=2"]).run() == 0
    assert [frame.header.bits for frame in script.uploads()] == [2, 3]
    assert any("3 bits from now on" in message for message in caplog.messages)


# --- frozen layers


class Frozen(Learner):
    """Has frozen layers, with other values than the master's at first."""

    layout = LAYOUT._replace(constant_shapes=((3,),))

    def __init__(self):
        super(Frozen, self).__init__()
        self.constants = b"own"

    def hold_constants(self, digest, fetch):
        assert digest == "abcd" * 4
        self.constants = fetch()
        return True


def test_frozen_layers_get_the_masters_values_before_anything_is_trained(clock, caplog):
    caplog.set_level(logging.INFO)
    learner = Frozen()
    name, answer = registered(owes="nothing")
    answer["constants_hash"] = "abcd" * 4
    script = Script((name, answer), ("fetch_constants", UnreachableError("no answer")),
                    (name, answer), ("fetch_constants", b"master's"), END)
    assert worker_of(script, learner).run() == 0 and script.over
    assert learner.constants == b"master's" and learner.trained == [] and len(clock.slept) == 1
    assert "the frozen layers have the master's values" in caplog.text
    assert script.credentials == ["token", "session", "token",
                                  "session"], "the session of the registration that it came with"


def test_a_master_that_says_nothing_of_frozen_layers_is_left(clock, caplog):
    learner, script = Frozen(), Script(registered())
    assert worker_of(script, learner).run() == 3 and script.over
    assert learner.constants == b"own" and any("expected constants_hash" in message
                                               for message in caplog.messages)


def test_a_state_is_saved_with_the_broadcasts_that_led_to_its_model(clock):
    class Noted(InMemory):
        broadcasts = []

        def save(self, record, broadcasts=None):
            self.broadcasts = self.broadcasts + [broadcasts]
            super(Noted, self).save(record, broadcasts)

    models, file = Models(), Noted()
    first, second, third = models.delta(), models.delta(), models.delta()
    models.extend()
    key, last = models.keyframe(4), models.delta()
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", first),
                    outcome(1, "accepted"), ("fetch_model", second + third),
                    outcome(3, "accepted"), ("fetch_model", key), outcome(4, "accepted"),
                    ("fetch_model", last), outcome(5, "accepted"), END)
    assert worker_of(script, file=file).run() == 0 and script.over
    assert file.broadcasts == [[], [], [first], [second, third], None, [last]]


def test_broadcasts_are_not_forgotten_when_a_state_could_not_be_written(clock):
    class Full(InMemory):
        saved = 0

        def save(self, record, broadcasts=None):
            self.saved += 1
            if self.saved == 3:
                raise DataError("cannot write the worker's state")
            self.broadcasts = broadcasts
            super(Full, self).save(record, broadcasts)

    models, file = Models(), Full()
    delta = models.delta()
    script = Script(registered(), outcome(0, "accepted"), ("fetch_model", delta),
                    outcome(1, "accepted"), END)
    assert worker_of(script, file=file).run() == 0 and script.over
    assert file.saved == 4 and file.broadcasts == [delta]
