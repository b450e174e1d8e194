"""The service with workers moved by hand: membership, departures, verdicts, what the operator does
and what goes wrong.
"""

import math
import threading

import numpy as np
import pytest

from flq.algorithm.uplink import first_reference_hash
from flq.errors import ProtocolError
from flq.master import service
from flq.master.run.recovery import pack_checkpoint
from flq.master.status import events, status
from flq.master.store import run_store
from flq.master.store.events import Absent, DeviceNote, Join, KeyChange, Reset
from flq.master.store.results import run_of
from flq.master.store.run_store import RunStore, StoreError
from flq.protocol import round_machine as machine
from flq.protocol.frames import BROADCAST_KIND, Expected, unpack_first
from flq.records import Evaluation, HeldModel, LocalResult
from tests.master.hands import PATIENCE_S, RUN_ID, Hand
from tests.system.quadratic import Quadratic

ALL = ("total_workers=3", "quorum=all", "max_rounds=20")
DEADLINE = ("total_workers=4", "quorum=deadline", "max_rounds=50", "round_deadline_s=30",
            "worker_timeout_s=600")
TWO_PHASE = (*ALL, "sel_clients=2")


def refused(name, call, *arguments, **keywords):
    with pytest.raises(ProtocolError) as refusal:
        call(*arguments, **keywords)
    assert refusal.value.name == name
    return refusal.value


def check_sums(run, hands):
    """A = sum n_m h_m and N = sum n_m over members (algorithm.md 3): up to the rounding of float64
    what was committed less what departed, and what the workers hold."""
    model = run.service.run.model
    assert set(model.members) == {hand.worker for hand in hands}
    held = sum(hand.weight * hand.uplink.memory for hand in hands)
    size = np.abs(model.reference_sum).max()
    np.testing.assert_allclose(model.reference_sum, run.committed, rtol=0, atol=1e-13 * size)
    np.testing.assert_allclose(model.reference_sum, held, rtol=0, atol=1e-13 * size)
    assert model.total_weight == sum(hand.weight for hand in hands)
    for hand in hands:
        assert run.accounts[
            hand.worker].reference_hash == hand.uplink.reference_hash, "both chains agree"


def block(run, hands):
    """All answers are there, and the disk of its Gate has no room for the round."""
    run.store.full = True
    for hand in hands:
        hand.train()
        hand.upload()
    run.wait(lambda state: state.phase == machine.BLOCKED, "it is blocked")


class Gate(RunStore):
    """A store whose next commit waits for the test while `held`, and fails as a full disk does
    while `full`.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.held, self.reached, self.go, self.full = False, threading.Event(), threading.Event(
        ), False

    def commit_round(self, commit):
        if self.held:
            self.reached.set()
            assert self.go.wait(PATIENCE_S)
        if self.full:
            raise StoreError("no room")
        super().commit_round(commit)


# --- the average


def test_the_sum_of_references_is_what_the_workers_hold(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    for _ in range(8):
        record = run.play(*hands)
        assert record.selected == (0, 1, 2)
        check_sums(run, hands)
    assert record.members == 3 and record.train_loss < run.service.run.history.rows()[0].train_loss


def test_who_leaves_takes_its_reference_along_and_comes_back_with_a_new_one(start):
    run = start(*DEADLINE)
    hands = run.hands(0, 1, 2)
    run.play(hands[0])
    run.play(*hands)
    run.play(*hands)
    check_sums(run, hands)
    hands[1].leave()
    run.play(hands[0], hands[2])
    check_sums(run, [hands[0], hands[2]])
    refused("unknown_session", hands[1].ask, round_=0)

    hands[1].register()
    assert hands[1].uplink.reference_hash == first_reference_hash(RUN_ID, 1, 1)
    run.play(hands[0], hands[2])
    record = run.play(*hands)
    assert record.selected == (0, 1, 2)
    check_sums(run, hands)
    assert run.accounts[1].epoch == 1


def test_a_lost_reference_is_reset_on_both_sides(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    for _ in range(3):
        run.play(*hands)
    hands[2].departs()
    hands[2] = run.hand(2, take_over=True, instance="another process")  # whose state file is lost
    assert isinstance(run.service.store.events()[-1], Join), (
        "a departure is recorded with the round in which it takes effect")
    record = run.play(*hands)
    assert record.selected == (0, 1, 2)
    assert [event for event in run.store.events() if isinstance(event, Reset)] == [Reset(2)]
    check_sums(run, hands)


def test_a_reference_that_the_master_does_not_share_is_reset_too(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    stale = hands[0].uplink
    run.play(*hands)
    answer = Hand(run, 0, kept=stale).register()
    assert answer["reference"] == "reset" and bytes.fromhex(
        answer["reference_hash"]) == first_reference_hash(RUN_ID, 0, 1)


def test_a_worker_that_comes_back_with_its_state_goes_on(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    hands[0].train()
    answer = hands[0].register()
    assert (answer["reference"], answer["owes"], answer["have"],
            answer["outcome"]) == ("keep", "bid", 1, "open")
    for hand in hands[1:]:
        hand.train()
        hand.upload()
    hands[0].upload()
    run.wait_for_round(2)
    assert hands[0].register(
    )["outcome"] == "accepted", "the chain after its commit is as good as the one before"
    for hand in hands:
        hand.settle()
    check_sums(run, hands)


def test_who_is_absent_for_too_long_leaves_the_average(start):
    run = start(*DEADLINE, "absent_rounds=3")
    hands = run.hands(0, 1)
    run.play(hands[0])
    run.play(*hands)
    for waits in (True, True, False):  # two deadlines in vain are enough
        round_ = run.state.round
        hands[0].train()
        hands[0].upload()
        if waits:
            assert run.state.phase == machine.BIDDING
            run.advance(30.0)
        run.wait_for_round(round_ + 1)
        hands[0].settle()
        assert run.service.run.history.rows()[round_].missing == (1,)
        assert run.service.run.model.members == (0, 1)
    run.play(hands[0])
    hands[1].departs()
    check_sums(run, [hands[0]])
    assert [event for event in run.store.events() if isinstance(event, Absent)] == [Absent(1)]


def test_a_worker_whose_training_hangs_is_waited_for_twice_and_again_when_it_answers(start):
    run = start(*DEADLINE)
    hands = run.hands(0, 1)
    run.play(hands[0])
    run.play(*hands)
    for _ in range(2):
        round_ = run.state.round
        hands[0].train()
        hands[0].upload()
        assert run.service.heartbeat(hands[1].session) == "run"
        run.advance(30.0)
        run.wait_for_round(round_ + 1)
        hands[0].settle()
    assert status(run.service)["worker_status"]["1"]["state"] == "left_out"
    run.service.heartbeat(hands[1].session)
    run.play(hands[0])
    assert [record.missing
            for record in run.service.run.history.rows()] == [(), (), (1,), (1,),
                                                              (1,)], "left out is missing too"
    assert hands[1].fetch(), "it is offered the model, and not waited for"
    assert status(run.service)["worker_status"]["1"]["state"] == "left_out"
    hands[1].train()
    hands[1].upload()
    assert status(run.service)["worker_status"]["1"]["state"] == "waiting"
    hands[0].train()
    hands[0].upload()
    run.wait_for_round(6)
    for hand in hands:
        hand.settle()
    assert run.play(*hands).selected == (0, 1)
    check_sums(run, hands)


def test_a_late_upload_ends_the_silence_of_who_was_left_out(start):
    run = start(*DEADLINE)
    hands = run.hands(0, 1)
    run.play(hands[0])
    run.play(*hands)
    hands[1].train()
    for _ in range(2):
        round_ = run.state.round
        hands[0].train()
        hands[0].upload()
        run.advance(30.0)
        run.wait_for_round(round_ + 1)
        hands[0].settle()
    assert machine.is_left_out(run.state, 1)
    assert hands[1].upload().verdict == "late"
    assert not machine.is_left_out(run.state, 1) and 1 in run.state.participants


def test_the_time_of_a_pause_is_none_of_the_round(start):
    run = start("total_workers=2", "quorum=deadline", "min_workers=2", "max_rounds=10",
                "worker_timeout_s=100000")
    hands = run.hands(0, 1)
    run.play(*hands)
    hands[0].train()
    hands[0].upload()
    run.advance(5.0)
    run.service.pause()
    run.advance(3600.0)
    run.service.resume()
    run.advance(2.0)
    hands[1].train()
    hands[1].upload()
    run.wait_for_round(2)
    assert run.service.run.history.rows()[1].round_time_s == 7.0
    assert machine.deadline_s(run.state) == 28.0 and status(run.service)["eta_s"] <= 8 * 7.0


def test_who_is_silent_is_not_absent(start):
    run = start(*ALL, "thr_scale=1e12", "C=100")
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    record = run.play(*hands)
    assert record.skipped == (0, 1, 2) and record.selected == ()
    assert all(run.accounts[worker].absent == 0 and run.accounts[worker].clock == 1
               for worker in range(3))


def test_a_removed_worker_is_out_for_good_even_if_it_never_was_there(start):
    run = start(*ALL)
    hands = run.hands(0, 1)
    run.service.remove(2)
    run.play(*hands)
    run.service.remove(1)
    refused("unknown_session", hands[1].ask, round_=0)
    refused("removed", hands[1].register)
    hands[1].departs()
    run.play(hands[0])
    check_sums(run, [hands[0]])
    run.close()
    again = start(*ALL)
    refused("removed", again.hand, 1)
    refused("removed", again.hand, 2)
    assert again.play(again.hand(0, kept=hands[0].uplink)).selected == (0,)


def test_a_worker_may_leave_and_be_removed_in_one_round(start):
    run = start(*DEADLINE)
    hands = run.hands(0, 1)
    run.play(hands[0])
    run.play(*hands)
    hands[1].leave()
    run.service.remove(1)
    run.play(hands[0])
    check_sums(run, [hands[0]])
    hash_ = run.service.run.model.params_hash
    run.close()
    assert start(*DEADLINE).service.run.model.params_hash == hash_


@pytest.mark.parametrize(
    "settings",
    [ALL, TWO_PHASE, (*ALL, "mode=bbit"), (*ALL, "server_optimizer=adam", "entropy_coding=true")])
def test_a_run_that_starts_again_after_every_round_is_the_run_that_never_did(start, settings):
    whole = start(*settings, name="whole")
    hands = whole.hands(0, 1, 2)
    for _ in range(4):
        whole.play(*hands)
    run, hands = start(*settings, name="cut"), None
    for _ in range(4):
        hands = [
            run.hand(worker, like=None if hands is None else hands[worker]) for worker in range(3)
        ]
        run.play(*hands)
        run.close()
        run = start(*settings, name="cut")
    assert run.service.run.model.params_hash == whole.service.run.model.params_hash
    assert run.store.events(
    ) == whole.store.events()
    for name in ("reference_sum", "params", "broadcast", "non_trainable"):
        np.testing.assert_array_equal(getattr(run.service.run.model, name),
                                      getattr(whole.service.run.model, name))
    assert run.accounts == whole.accounts
    unmeasured = {"round_time_s": 0.0, "closed_at": 0.0, "accuracy": None, "loss": None}
    for left, right in zip(run.service.run.history.rows(), whole.service.run.history.rows()):
        assert left._replace(**unmeasured) == right._replace(**unmeasured)
    assert run.service.run.history.accounting.to_json(
        None) == whole.service.run.history.accounting.to_json(None)


# --- while a round is being closed


@pytest.mark.parametrize("what", ["leave", "remove", "register", "new process"])
def test_a_worker_that_goes_while_its_round_is_being_stored_is_in_it(start, what):
    run = start(*DEADLINE, store=Gate)
    hands = run.hands(0, 1)
    run.play(hands[0])
    run.play(*hands)
    run.store.held = True
    for hand in hands:
        hand.train()
        hand.upload()
    assert run.store.reached.wait(PATIENCE_S) and run.state.phase == machine.AGGREGATING
    if what == "leave":
        hands[1].leave()
    elif what == "remove":
        run.service.remove(1)
    elif what == "register":
        hands[1].register()
    else:
        new = run.hand(1, take_over=True, instance="another process")
    run.store.held = False
    run.store.go.set()
    run.wait_for_round(3)
    assert run.service.run.history.rows()[2].selected == (0, 1) and not run.state.paused
    hands[0].settle()
    here = hands[:1]
    if what == "register":
        hands[1].settle()
        here = hands
    elif what == "new process":
        here = [hands[0], new]
    assert run.play(*here).selected == tuple(hand.worker for hand in here)
    assert run.accounts[1].member == (len(here) == 2) and run.accounts[1].epoch == (what
                                                                                    != "register")


def test_an_upload_that_comes_while_its_round_is_being_stored_is_late(start):
    run = start(*DEADLINE, store=Gate)
    hands = run.hands(0, 1)
    run.play(hands[0])
    for hand in hands:
        hand.train()
    hands[0].upload()
    run.store.held = True
    run.advance(30.0)
    assert run.store.reached.wait(PATIENCE_S)
    assert hands[1].upload().verdict == "open"
    run.store.held = False
    run.store.go.set()
    run.wait_for_round(2)
    assert hands[1].settle().verdict == "late"
    assert run.service.run.history.rows()[1].missing == (1,)


def test_nobody_hears_accepted_before_it_is_stored(start):
    run = start(*ALL, store=Gate)
    hands = run.hands(0, 1, 2)
    run.store.held = True
    for hand in hands:
        hand.train()
        assert hand.upload().verdict == "open"
    assert run.store.reached.wait(PATIENCE_S)
    assert hands[0].ask().verdict == "open" and hands[0].fetch(
    ) is None and run.service.run.history.rows() == []
    run.store.held = False
    run.store.go.set()
    assert hands[0].ask(PATIENCE_S).verdict == "accepted"
    assert len(run.store.records()) == 1


def test_a_full_disk_blocks_and_the_round_is_tried_again(start):
    run = start(*ALL, store=Gate)
    hands = run.hands(0, 1, 2)
    block(run, hands)
    assert run.state.error == "no room" and run.service.run.history.rows() == []
    assert "no room" in refused("blocked", hands[0].ask).message
    refused("blocked", run.service.heartbeat, hands[0].session)
    refused("blocked", hands[1].register)
    run.advance(machine.BLOCKED_RETRY_S)
    run.wait(lambda state: state.phase == machine.BLOCKED and state.phase_at == run.clock.now,
             "it was tried again")
    run.store.full = False
    run.advance(machine.BLOCKED_RETRY_S)
    run.wait_for_round(1)
    assert [hand.settle().verdict for hand in hands] == ["accepted"] * 3
    check_sums(run, hands)


# --- verdicts


def test_a_state_that_is_too_long_for_a_checkpoint_is_packed_once(start, monkeypatch, caplog):
    packed = []

    def pack(model):
        packed.append(model.version)
        return pack_checkpoint(model)

    monkeypatch.setattr(service, "LONGEST_REPLAY_S", 0.0)
    monkeypatch.setattr(service, "pack_checkpoint", pack)
    monkeypatch.setattr(run_store, "_LONGEST_VALUE", 100)
    run = start("total_workers=2", "quorum=all", "max_rounds=9")
    hands = run.hands(0, 1)
    for _ in range(4):
        run.play(*hands)
    assert packed == [1] and caplog.text.count("too long for a checkpoint") == 1
    assert not run.state.paused and run.store.checkpoints() == []


def test_only_what_was_granted_is_uploaded(start):
    run = start(*TWO_PHASE)
    hands = run.hands(0, 1, 2)
    for hand in hands:
        hand.train()
        refused("not_granted", hand.upload)
        assert hand.bid().verdict in ("open", "granted", "refused")
    verdicts = {hand.worker: hand.ask() for hand in hands}
    granted = [hand for hand in hands if verdicts[hand.worker].verdict == "granted"]
    assert len(granted) == 2 and all(verdicts[hand.worker].option == 4 for hand in granted)
    (other,) = [hand for hand in hands if hand not in granted]
    assert verdicts[other.worker].verdict == "refused"
    refused("not_granted", other.upload)
    other.bid()
    assert other.ask().verdict == "refused", "the first verdict stands"
    assert granted[0].upload().verdict == "open" and granted[0].ask().verdict == "open"
    granted[1].upload()
    run.wait_for_round(1)
    for hand in hands:
        hand.settle()
    check_sums(run, granted)
    history = run.service.run.history
    assert history.rows()[0].refused == (other.worker,)
    selected = run.play(*hands).selected
    assert selected[0:1] == (other.worker,) or other.worker in history.rows(
    )[1].selected, "who is no member yet comes first"
    check_sums(run, hands)


def test_an_upload_is_checked_against_its_grant(start):
    run = start(*TWO_PHASE)
    hands = run.hands(0, 1, 2)
    for hand in hands:
        hand.train()
        hand.bid()
    granted = next(hand for hand in hands if hand.ask().verdict == "granted")
    granted.uplink = granted.uplink._replace(bits=5)
    granted.train()
    refusal = refused("wrong_option", granted.upload)
    assert refusal.expected["b"] == 4 and refusal.got["b"] == 5


def test_a_budget_below_the_smallest_bid_grants_the_best_one_and_warns(start, caplog):
    # An entropy coded upload has no size that is known in advance.
    run = start(*ALL, "up_budget_bits=100", "entropy_coding=true", "rho_max=4")
    hands = run.hands(0, 1, 2)
    record = run.play(*hands)
    assert len(record.selected) == 1 and len(record.refused) == 2
    assert any("budget of 100 bits is below the smallest bid" in message
               for message in caplog.messages)


def test_a_budget_is_kept(start):
    # an upload of this model is 32 (2 + 2) + 4 * 40 = 288 bits
    run = start(*ALL, "up_budget_bits=600")
    hands = run.hands(0, 1, 2)
    for _ in range(4):
        record = run.play(*hands)
        assert len(record.selected) == 2 and record.payload_bits_up == 576 <= 600
        assert record.nominal_bits_up == 576 and record.float32_bits_up == 32 * 40 * record.members


# --- updates that cannot be used


class NotFinite(Quadratic):
    """Some updates are not finite: those of (worker, round) in `broken`."""

    def __init__(self, settings):
        super().__init__(settings)
        self.broken = set()

    def local_update(self, params, non_trainable, worker, round_):
        result = super().local_update(params, non_trainable, worker, round_)
        if (worker, round_) in self.broken:
            return LocalResult(np.full(params.size, np.nan, np.float32), *result[1:])
        return result


def test_one_update_that_is_not_finite_counts_as_missing(start):
    run = start(*ALL, learner=NotFinite)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    run.learner.broken = {(1, 1)}
    for hand in hands:
        hand.train()
        assert hand.proposal.skip == (hand.worker == 1)
    assert hands[1].bid().verdict == "skipped"
    hands[0].upload()
    hands[2].upload()
    run.wait_for_round(2)
    assert run.service.run.history.rows()[1].missing == (
        1,) and run.service.run.history.rows()[1].selected == (0, 2)
    assert [hand.settle().verdict for hand in hands] == ["accepted", "late", "accepted"]
    check_sums(run, hands)


def test_when_nobody_is_finite_the_run_pauses_and_resuming_asks_again(start):
    run = start(*ALL, learner=NotFinite)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    run.learner.broken = {(worker, 1) for worker in range(3)}
    for hand in hands:
        hand.train()
        hand.bid()
    assert run.state.paused and "finite" in run.state.error and len(
        run.service.run.history.rows()) == 1
    assert hands[0].fetch() is None
    run.service.resume()
    run.learner.broken = set()
    assert hands[0].fetch()[0].keyframe, "it is asked again, from the model that it has"
    run.play(*hands)
    check_sums(run, hands)


def test_a_model_that_is_not_finite_is_not_stored_and_the_operator_can_mend_it(start):
    run = start(*ALL, "lr=1e6", "server_optimizer=sgd")
    hands = run.hands(0, 1, 2)
    for hand in hands:
        hand.train(update=1e35)
        hand.upload()
    run.wait(lambda state: state.paused, "it pauses")
    assert "the model theta is not finite" in run.state.error and run.store.records() == []
    run.service.change({"model.lr": 1e-35}, by="test")
    run.service.resume()
    run.wait_for_round(1)
    for hand in hands:
        assert hand.settle().verdict == "accepted"
    assert run.service.run.history.rows()[0].server_lr == 1e-35 and np.isfinite(
        run.service.run.model.params).all()


@pytest.mark.parametrize("settings", [ALL, (*ALL, "sel_clients=3")],
                         ids=["one phase", "two phases"])
def test_an_update_that_is_too_long_counts_as_missing(start, caplog, settings):
    run = start(*settings, "max_update_norm=100")
    hands = run.hands(0, 1, 2)
    for hand in hands:
        hand.train(update=1e3 if hand.worker == 1 else None)
        if run.state.two_phase:
            hand.bid()
    assert [hand.upload().verdict for hand in hands][1] == "skipped"
    run.wait_for_round(1)
    assert run.service.run.history.rows()[0].missing == (
        1,) and run.service.run.history.rows()[0].selected == (0, 2)
    assert any("longer than security.max_update_norm" in message for message in caplog.messages)
    for hand in hands:
        hand.settle()
    check_sums(run, [hands[0], hands[2]])


# --- what a worker must not do


@pytest.mark.parametrize("name, changes", [("bad_frame", {"worker": 1}),
                                           ("other_base", {"params_hash": bytes(8)}),
                                           ("other_base", {"reference_hash": bytes(32)}),
                                           ("wrong_round", {"round_": 7})])
def test_an_upload_of_another_worker_model_reference_or_round_is_refused(start, name, changes):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    hands[0].train()
    refused(name, hands[0].upload, **changes)
    run.play(*hands)
    check_sums(run, hands)


def test_who_comes_too_late_for_a_round_waits_for_the_next(start):
    run = start(*DEADLINE)
    first = run.hand(0)
    first.train()
    second = run.hand(1)
    assert second.register()["owes"] == "nothing" and second.fetch() is None
    second.train()
    refused("not_participant", second.upload)
    refused("not_participant", second.bid)
    first.upload()
    run.wait_for_round(1)
    assert second.register()["owes"] == "bid"
    second.fetch(PATIENCE_S)


def test_a_worker_whose_answer_was_forgotten_is_told_to_send_it_again(start):
    run = start(*DEADLINE, "sel_clients=4", "min_workers=2", "round_deadline_s=100000")
    hands = run.hands(0, 1)
    for hand in hands[:1]:
        hand.train()
        hand.bid()
    run.advance(600.0)
    run.wait(lambda state: not state.present, "both are gone")
    refused("not_participant", hands[0].ask)
    assert run.state.phase == machine.WAITING, "one sign of life is not enough"
    refused("not_participant", hands[1].ask, round_=0)
    assert run.state.phase == machine.BIDDING
    assert hands[0].register()["owes"] == "bid"
    run.play(*hands)
    check_sums(run, hands)


def test_a_second_process_is_refused_until_the_first_is_gone(start):
    run = start(*DEADLINE)
    first = run.hand(0)
    refused("worker_id_in_use", run.hand, 0, instance="another process")
    run.hand(0, instance=first.instance)
    refused("unknown_session", first.ask, round_=0)
    first.register()
    run.advance(600.0)
    second = run.hand(0, instance="another process")
    refused("session_superseded", first.ask, round_=0)
    assert second.register(instance="a third one", take_over=True)


def test_a_worker_id_beyond_the_run_is_refused(start):
    run = start(*ALL)
    assert refused("not_found", run.service.hello, 3).expected == "0 to 2"
    assert run.service.hello(2).run_id == RUN_ID
    refused("not_found", run.service.remove, 3)


@pytest.mark.parametrize("name, changes", [("bad_request", {"protocol": 2}),
                                           ("shapes_mismatch", {"shapes_hash": "00"}),
                                           ("data_mismatch", {"partition_hash": "00"}),
                                           ("data_mismatch", {"num_samples": 1}),
                                           ("model_mismatch", {"params_hash": "00"})])
def test_a_worker_of_another_kind_is_refused(start, name, changes):
    run = start(*ALL)
    hand = run.hand(0)
    refused(name, hand.register, **changes)


# --- the downlink


def test_each_version_counts_once_for_each_receiver(start):
    run = start(*ALL, "b_down=4", "entropy_coding_down=false", "downlink=laq")
    hands = run.hands(0, 1, 2)
    for _ in range(3):
        run.play(*hands)
    # two radii, 35 + 5 levels in one stream, two values
    down, frame_bits = run.service.run.history.accounting.down, 8 * (8 + 18 + 8)
    assert down.payload == 2 * 3 * 8 * (8 + 20 +
                                        8), "version 0 is free, version 3 is not fetched yet"
    assert frame_bits < down.payload and down.float32 == 2 * 3 * 32 * 40
    assert [record.payload_bits_down for record in run.service.run.history.rows()] == [864, 864, 0]
    hands[0].fetch()
    hands[0].version = -1
    hands[0].fetch()
    assert run.service.run.history.rows(
    )[2].payload_bits_down == 288, "what is sent again does not count"


def test_a_request_that_comes_again_later_counts_no_version_twice(start):
    """A network that repeats requests: an old one is answered with the differences since then, most
    of which counted already.
    """
    run = start(*ALL, "b_down=4", "entropy_coding_down=false", "downlink=laq")
    hands = run.hands(0, 1, 2)
    for _ in range(3):
        run.play(*hands)
    first = HeldModel(1, bytes.fromhex(run.service.run.history.rows()[0].params_hash))
    old = run.service.broadcast(hands[0].session, first, 0.0)
    assert len(frames_in(run, old)) == 2, "versions 2 and 3"
    hands[0].fetch()
    assert [record.payload_bits_down
            for record in run.service.run.history.rows()] == [864, 864,
                                                              288], "version 2 had counted"


def frames_in(run, data):
    found = []
    layout = run.learner.layout
    while data:
        frame, data = unpack_first(data, BROADCAST_KIND, Expected(RUN_ID, layout, layout.sizes))
        found.append(frame)
    return found


def test_who_owes_nothing_is_sent_nothing(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    hands[0].train()
    assert hands[0].version == 1
    hands[0].upload()
    assert hands[0].fetch() is None
    hands[1].version = -1
    (frame,) = hands[1].fetch()
    assert frame.keyframe and not frame.final


# --- the operator


def test_a_change_counts_from_the_open_round_and_is_recorded(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    answer = run.service.change({"model.lr": 0.125, "lazy_selection.C": 7}, by="10.0.0.9")
    assert answer == (1, {
        "model.lr": {"old": run.config.model.lr, "new": 0.125},
        "lazy_selection.C": {"old": 100, "new": 7}
    })
    assert run.play(*hands).server_lr == 0.125
    changes = [event for event in run.store.events() if isinstance(event, KeyChange)]
    assert changes == [KeyChange("model.lr", "10.0.0.9", run.config.model.lr, 0.125),
                       KeyChange("lazy_selection.C", "10.0.0.9", 100, 7)]
    assert hands[0].fetch()[0].terms.max_skips == 7


def test_a_change_without_an_effect_is_named(start, caplog):
    run = start(*ALL)
    run.service.change({"system.min_workers": 2, "model.lr": 0.125}, by="test")
    assert caplog.messages == ["system.min_workers 2 has no effect: system.quorum is all"]


@pytest.mark.parametrize("name, changes",
                         [("cannot_change", {"model.name": "mlp"}),
                          ("cannot_change", {"model.lrr": 1}), ("bad_value", {"model.lr": "fast"}),
                          ("bad_value", {"lr": -1}), ("bad_value", {"system.max_rounds": 1}),
                          ("bad_value", {"model.lr": 0.5, "system.min_workers": 9}),
                          ("cannot_change", {"model.lr": 0.5, "dataset.seed": 1})])
def test_a_change_that_cannot_be_changes_nothing(start, name, changes):
    run = start(*ALL)
    run.play(*run.hands(0, 1, 2))
    refused(name, run.service.change, changes, by="test")
    assert run.service.run.config == run.config


def test_a_budget_set_at_run_time_counts_from_the_next_broadcast(start):
    run = start(*ALL)
    run.service.change({"sel_clients": 1}, by="test")
    hands = run.hands(0, 1, 2)
    assert run.play(*hands).selected == (0, 1, 2), "the first round was announced without it"
    record = run.play(*hands)
    assert len(record.selected) == 1 and len(record.refused) == 2
    run.service.change({"sel_clients": 0}, by="test")
    assert len(run.play(*hands).selected) == 3, "what is open keeps its two phases"
    assert not run.state.two_phase and run.play(*hands).selected == (0, 1, 2)
    check_sums(run, hands)


def test_a_paused_run_closes_no_round(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.service.pause()
    for hand in hands:
        assert run.service.heartbeat(hand.session) == "paused"
        hand.train()
        assert hand.upload().verdict == "open"
    assert run.state.paused and run.service.run.history.rows() == []
    run.service.resume()
    run.wait_for_round(1)
    assert run.service.heartbeat(hands[0].session) == "run"


def test_a_stop_closes_the_round_with_what_it_has_and_ends_the_run(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    hands[0].train()
    hands[0].upload()
    run.service.stop()
    run.wait(lambda state: state.phase == machine.FINISHED, "it ended")
    assert run.service.run.history.rows()[0].selected == (
        0,) and run.service.run.history.rows()[0].missing == (1, 2)
    assert hands[0].settle().verdict == "accepted"
    assert hands[0].fetch()[0].final
    refused("stopped", hands[0].fetch)
    refused("stopped", hands[1].register)
    assert run.service.wait_for_end(PATIENCE_S)
    assert run.service.heartbeat(hands[2].session) == "stop"
    assert not run.service.wait_until_heard(0.0)
    refused("stopped", run.hand, 2, instance=hands[2].instance)
    assert run.service.wait_until_heard(PATIENCE_S)


def test_a_master_that_came_back_waits_for_workers_that_have_not_yet(start):
    """A worker pauses up to 10 s between two tries: the run may be over before it tries again."""
    settings = (*DEADLINE, "worker_timeout_s=2")
    first = start(*settings)
    hands = first.hands(0, 1)
    first.play(hands[0])
    first.play(*hands)
    first.close()
    run = start(*settings)
    run.service.stop()
    run.wait(lambda state: state.phase == machine.FINISHED, "it ended")
    refused("stopped", run.hand, 0, instance=hands[0].instance)
    assert not run.service.wait_until_heard(0.0)
    run.advance(14.0)
    assert not run.service.wait_until_heard(0.0)
    refused("stopped", run.hand, 1, instance=hands[1].instance)
    assert run.service.wait_until_heard(PATIENCE_S)


def test_a_master_that_came_back_does_not_wait_for_ever(start):
    first = start(*DEADLINE)
    first.play(first.hand(0))
    first.close()
    run = start(*DEADLINE, "worker_timeout_s=2")
    run.service.stop()
    assert not run.service.wait_until_heard(0.0)
    run.advance(15.0)
    assert run.service.wait_until_heard(PATIENCE_S)


def test_a_run_that_is_stopped_in_a_round_that_cannot_be_closed_asks_for_no_upload(start,
                                                                                   monkeypatch):
    """An upload would be answered with the same grant, and be sent again, without an end."""
    run = start(*TWO_PHASE)
    hands = run.hands(0, 1, 2)
    for hand in hands:
        hand.train()
        hand.bid()
    granted = [hand for hand in hands if hand.ask().verdict == "granted"]
    granted[0].upload()

    def fails(opened, measured):
        raise ValueError("no such round")
    monkeypatch.setattr(run.service._closer, "close", fails)
    run.service.stop()
    run.wait(lambda state: state.phase == machine.FINISHED, "it ended")
    for hand in granted:
        refused("stopped", hand.ask)
        refused("stopped", hand.upload)


def test_a_run_that_stops_before_a_round_closed_tells_its_workers(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    hands[0].train()
    run.service.stop()
    assert run.state.phase == machine.FINISHED
    refused("stopped", hands[0].upload)
    refused("stopped", hands[0].ask)


def test_the_last_model_is_final_and_tested(start):
    run = start("total_workers=1", "quorum=all", "max_rounds=2")
    hand = run.hand(0)
    run.play(hand)
    run.play(hand)
    assert run.state.phase == machine.FINISHED and run.service.wait_for_end(PATIENCE_S)
    last = run.service.run.history.rows()[1]
    assert last.accuracy == run.learner.evaluate(*run.service.run.model.result).accuracy
    assert run.service.run.history.rows(
    )[0].accuracy is not None, "round 0 is a multiple of eval_every"
    assert hand.fetch()[0].final
    refused("finished", hand.fetch)


def test_the_status_says_that_the_last_model_is_still_tested(start):
    go = threading.Event()

    class Slow(Quadratic):
        def evaluate(self, params, non_trainable):
            assert go.wait(PATIENCE_S)
            return super().evaluate(params, non_trainable)

    run = start("total_workers=1", "quorum=all", "max_rounds=2", "eval_every=100", learner=Slow)
    hand = run.hand(0)
    assert status(run.service)["pending_tests"] == 0
    run.play(hand)
    run.play(hand)
    shown = status(run.service)
    assert (shown["phase"], shown["pending_tests"], shown["accuracy"]) == (machine.FINISHED, 2,
                                                                           None)
    go.set()
    assert run.service.wait_for_end(PATIENCE_S)
    shown = status(run.service)
    assert shown["pending_tests"] == 0 and shown["accuracy"] == run.service.run.history.rows(
    )[1].accuracy is not None


def test_a_test_that_fails_does_not_stop_the_run(start):
    class Untestable(Quadratic):
        def evaluate(self, params, non_trainable):
            raise ValueError("no test set")

    run = start("total_workers=1", "quorum=all", "max_rounds=2", "eval_every=1", learner=Untestable)
    hand = run.hand(0)
    run.play(hand)
    run.play(hand)
    assert run.service.wait_for_end(
        PATIENCE_S) and run.service.run.history.rows()[1].accuracy is None
    assert status(run.service)["pending_tests"] == 0


def test_who_leaves_while_the_disk_is_full_has_left(start):
    run = start(*DEADLINE, "min_workers=2", store=Gate)
    hands = run.hands(0, 1)
    block(run, hands)
    run.service.leave(hands[1].session)
    run.store.full = False
    run.advance(machine.BLOCKED_RETRY_S)
    run.wait_for_round(1)
    assert run.service.run.history.rows()[0].selected == (0, 1) and set(run.state.present) == {0}


def test_while_the_disk_is_full_a_registration_is_checked_during_a_try_only(start):
    """A try is a round being closed like any other: what is wrong with a registration is said then,
    and `blocked` between the tries.
    """
    run = start(*ALL, store=Gate)
    hands = run.hands(0, 1, 2)
    block(run, hands)
    refused("blocked", hands[0].register, shapes_hash="another")
    run.store.held = True
    run.advance(machine.BLOCKED_RETRY_S)
    assert run.store.reached.wait(PATIENCE_S) and run.state.phase == machine.AGGREGATING
    refused("shapes_mismatch", hands[0].register, shapes_hash="another")
    run.store.full = False
    run.store.go.set()
    run.wait_for_round(1)


def test_what_travelled_while_there_was_no_room_belongs_to_the_round(start):
    counted = [1000, 400]
    run = start("total_workers=1", "quorum=all", "max_rounds=2", store=Gate,
                wire=lambda: tuple(counted))
    hand = run.hand(0)
    run.store.full = True
    hand.train()
    hand.upload()
    run.wait(lambda state: state.phase == machine.BLOCKED, "it is blocked")
    counted[:] = 1500, 450
    run.store.full = False
    run.advance(machine.BLOCKED_RETRY_S)
    run.wait_for_round(1)
    assert (run.service.run.history.rows()[0].wire_bits_up,
            run.service.run.history.rows()[0].wire_bits_down) == (1500, 450)


def test_a_test_that_finds_no_room_is_written_when_there_is_some(start, monkeypatch):
    class Full(RunStore):
        tries = 0

        def add_evaluation(self, round_, result):
            self.tries += 1
            if self.tries < 3:
                raise StoreError("no room")
            super().add_evaluation(round_, result)

    monkeypatch.setattr(machine, "BLOCKED_RETRY_S", 0.01)
    run = start("total_workers=1", "quorum=all", "max_rounds=1", store=Full)
    run.play(run.hand(0))
    assert run.service.wait_for_end(PATIENCE_S) and run.store.tries == 3
    assert run.store.records()[0].accuracy == run.service.run.history.rows()[0].accuracy is not None


def test_a_loss_that_is_not_a_number_ends_no_run(start):
    class Diverged(Quadratic):
        def evaluate(self, params, non_trainable):
            return Evaluation(0.1, float("nan"), 1)

    run = start("total_workers=1", "quorum=all", "max_rounds=2", "eval_every=1", learner=Diverged)
    hand = run.hand(0)
    run.play(hand)
    run.play(hand)
    assert run.service.wait_for_end(
        PATIENCE_S) and run.service.run.history.rows()[1].accuracy == 0.1
    assert [math.isnan(record.loss) for record in run.store.records()] == [True, True]


def test_tests_that_the_last_master_did_not_come_to_are_made_up_for(start):
    class Untestable(Quadratic):
        def evaluate(self, params, non_trainable):
            raise ValueError("not now")

    settings = ("total_workers=1", "quorum=all", "max_rounds=6", "eval_every=2")
    run = start(*settings, learner=Untestable)
    hand = run.hand(0)
    models = []
    for _ in range(4):
        run.play(hand)
        models.append(run.service.run.model)
    run.close()
    again = start(*settings)
    again.wait(lambda _: again.service.run.history.rows()[2].accuracy is not None,
               "both are made up for")
    tests = [
        again.learner.evaluate(*model.result).accuracy for model in models
    ]
    assert [record.accuracy
            for record in again.service.run.history.rows()] == [tests[0], None, tests[2], None]


def test_the_last_model_of_a_run_that_was_made_shorter_is_made_up_for_too(start):
    class Untestable(Quadratic):
        def evaluate(self, params, non_trainable):
            raise ValueError("not now")

    settings = ("total_workers=1", "quorum=all", "max_rounds=6")
    run = start(*settings, learner=Untestable)
    hand = run.hand(0)
    run.play(hand)
    run.service.change({"max_rounds": 3}, "test")
    run.play(hand)
    run.play(hand)
    assert run.state.phase == machine.FINISHED
    run.close()
    again = start(*settings)
    assert again.service.wait_for_end(PATIENCE_S)
    assert [record.accuracy is None
            for record in again.service.run.history.rows()] == [False, True, False]


def test_wire_bits_are_dealt_to_rounds_without_a_rest(start):
    counted = [0, 0]
    run = start("total_workers=1", "quorum=all", "max_rounds=2", wire=lambda: tuple(counted))
    hand = run.hand(0)
    counted[:] = 1000, 400
    run.play(hand)
    counted[:] = 3000, 500
    run.play(hand)
    counted[:] = 3100, 560
    run.service.settle()
    assert [(record.wire_bits_up, record.wire_bits_down)
            for record in run.service.run.history.rows()] == [(1000, 400), (2100, 160)]
    assert run.service.run.history.wire_bits() == (3100, 560)


def test_without_a_wire_none_is_counted(start):
    run = start("total_workers=1", "quorum=all", "max_rounds=1")
    record = run.play(run.hand(0))
    assert (record.wire_bits_up,
            record.wire_bits_down) == (None, None) and run.service.run.history.wire_bits() is None


NANO = {
    "model": "NVIDIA Jetson Nano Developer Kit", "gpus": ["NVIDIA Tegra X1"], "temperature_c": 41.0
}


def test_what_workers_say_of_their_machines_is_shown_and_survives_the_master(start, tmp_path):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    hands[1].register(device=NANO)
    assert status(run.service)["worker_status"]["1"]["device"] == NANO
    run.play(*hands)
    run.service.heartbeat(hands[1].session, 48.5)
    hot = dict(NANO, temperature_c=48.5)
    assert status(run.service)["worker_status"]["1"]["device"] == hot
    hands[1].register(device=hot)
    run.play(*hands)
    told = [event for event in run.store.events() if isinstance(event, DeviceNote)]
    assert told == [DeviceNote(1, NANO)], "a temperature is no news"
    assert run_of(run.store).summary["devices"] == {"1": NANO}, "as the events say"
    run.store.add_ending(*run.service.run.so_far())
    assert run_of(run.store).summary["devices"] == {"1": NANO}, "what was counted says nothing else"
    run.service.settle()
    assert run_of(run.store).summary["devices"] == {"0": {}, "1": hot, "2": {}}
    run.close()
    again = start(*ALL)
    assert status(again.service)["worker_status"]["1"]["device"] == hot


def test_a_worker_that_has_another_machine_each_time_fills_no_disk(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    for number in range(20):
        run.clock.now += 0.1
        hands[1].register(device=dict(NANO, model=f"machine {number}"))
    run.play(*hands)

    def told():
        return [event.device["model"] for event in run.store.events()
                if isinstance(event, DeviceNote)]

    assert told() == [f"machine {number}" for number in range(5)]
    assert status(run.service)["worker_status"]["1"]["device"]["model"] == "machine 19"
    run.clock.now += 60.0
    hands[1].register(device=dict(NANO, model="machine 19"))
    run.play(*hands)
    assert told()[5:] == ["machine 19"], "what was left out is told by a later registration"


def test_nobody_waits_while_the_events_of_closed_rounds_are_read(start, monkeypatch):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    run.service.pause()
    read, reads = run.store.events_by_round, []

    def spy(*arguments):
        found = read(*arguments)
        reads.append((arguments, run.service.changed._is_owned(), len(found)))
        return found
    monkeypatch.setattr(run.store, "events_by_round", spy)
    expected = [("join", 0, 0), ("join", 0, 1), ("join", 0, 2), ("pause", 1, None)]
    told = [(event["event"], event["round"], event["worker"]) for event in events(run.service)]
    assert told == expected
    assert [event["round"] for event in events(run.service, 1)] == [1]
    assert reads[:2] == [((1,), True, 1), ((0, 1), False, 3)]
