"""What a master refuses and flags, moved by hand; a restart, a replay and a simulation know it as
well.
"""

import numpy as np
import pytest

from flq.algorithm import sketch
from flq.errors import ProtocolError
from flq.master.status import status
from flq.master.store.events import Expelled, Flagged
from flq.master.stored.audit import replay
from flq.protocol import messages
from flq.records import Bid, Option
from flq.simulation.run import simulate
from tests.master.hands import PATIENCE_S, play_without
from tests.master.test_service import ALL, DEADLINE, check_sums
from tests.system.quadratic import Quadratic

FOUR = ("total_workers=4", "quorum=all", "max_rounds=40")
MODES = ["laq", "bin", "bbit", "qsgd", "rd", "fedavg"]


class Liar(Quadratic):
    """Worker 3 sends 1e30 in round 2 and what drifts from round 5 on."""

    def local_update(self, params, non_trainable, worker, round_):
        result = super().local_update(params, non_trainable, worker, round_)
        if worker == 3 and (round_ == 2 or round_ >= 5):
            wrong = 1e30 if round_ == 2 else 4.0 * round_
            result = result._replace(update=np.full_like(result.update, wrong))
        return result


def play(run, hands, rounds):
    """Rounds of these hands; whose reference left the average registers again."""
    for _ in range(rounds):
        for hand in hands:
            account = run.service.run.members.account(hand.worker)
            if account.reference_hash != hand.uplink.reference_hash:
                assert hand.register()["reference"] == "reset"
        run.play(*hands)


def flags(run):
    return [event for event in run.store.events() if isinstance(event, Flagged)]


@pytest.mark.parametrize("mode", MODES)
def test_one_upload_of_1e30_is_flagged_and_changes_nothing(start, mode):
    run = start(*FOUR, "mode=" + mode)
    hands = run.hands(0, 1, 2, 3)
    play(run, hands, 2)
    for hand in hands:
        hand.train(1e30 if hand.worker == 3 else None)
        hand.upload()
    run.wait_for_round(3)
    assert [hand.settle().verdict for hand in hands] == ["accepted"] * 3 + ["skipped"]
    row = run.service.run.history.rows()[2]
    assert row.selected == (0, 1, 2) and row.skipped == (3,)
    flag, = flags(run)
    assert (flag.worker, flag.round, flag.reason) == (3, 2, "norm") and flag.value > flag.limit
    shown = status(run.service)["worker_status"]["3"]
    assert shown["flagged"] == 1 and shown["flag"]["reason"] == "norm"
    if run.config.flq_algorithm.memory == "residual":
        return  # what it did not get rid of is in its next upload too
    if run.config.flq_algorithm.memory == "reference":
        check_sums(run, hands)
    play(run, hands, 1)
    assert run.service.run.history.rows()[3].selected == (0, 1, 2, 3), "it is no enemy for that"


def test_an_upload_is_compared_with_the_others_of_the_first_round(start):
    run = start(*FOUR)
    hands = run.hands(0, 1, 2, 3)
    for hand in hands:
        hand.train(1e30 if hand.worker == 0 else None)
        hand.upload()
    run.wait_for_round(1)
    assert run.service.run.history.rows()[0].selected == (1, 2, 3)


def test_a_worker_that_drifts_is_expelled_and_its_reference_leaves_the_average(start):
    run = start(*FOUR, learner=Liar)
    hands = run.hands(0, 1, 2, 3)
    play(run, hands, 12)
    expelled, = (event for event in run.store.events() if isinstance(event, Expelled))
    assert expelled.worker == 3 and not run.accounts[3].member
    assert expelled.until > 12
    reasons = [flag.reason for flag in flags(run)]
    assert reasons[:1] == ["norm"] and reasons[-1] == "expelled"
    assert run.service.run.model.members == (0, 1, 2)


@pytest.mark.parametrize("key_bytes", [8, sketch.KEY_BYTES])
def test_a_master_that_starts_again_knows_who_is_flagged_and_expelled(start, monkeypatch,
                                                                      key_bytes):
    """8: the run was begun by a version whose sketches were drawn from shorter keys."""
    def told(run):
        history = run.service.run.history
        return (history.flags, history.counts, history._strikes, history._expelled,
                run.service.run.model.params_hash)

    with monkeypatch.context() as begun:
        begun.setattr(sketch, "KEY_BYTES", key_bytes)
        whole, cut = (start(*FOUR, learner=Liar, name=name) for name in ("whole", "cut"))
    for run in (whole, cut):
        hands = run.hands(0, 1, 2, 3)
        for round_ in range(14):
            play(run, hands, 1)
            if run is cut and round_ in (2, 6, 8, 9, 11):
                run.close()
                run = cut = start(*FOUR, learner=Liar, name="cut")
                hands = [run.hand(hand.worker, like=hand) for hand in hands]
    assert told(whole) == told(cut)
    assert len(run.service.run.model.observed.key) == key_bytes
    ours, theirs = (run.service.run.model.observed for run in (whole, cut))
    for our, their in zip(ours.recent, theirs.recent):
        np.testing.assert_allclose(our, their, rtol=0.2,
                                   err_msg="only the keys of their sketches differ")


def test_a_run_with_a_liar_is_replayed_and_simulated_as_it_was(start, tmp_path):
    run = start(*FOUR, "max_rounds=12", learner=Liar)
    hands = run.hands(0, 1, 2, 3)
    play(run, hands, 12)
    model = run.service.run.model.params_hash.hex()
    run.close()
    assert replay(run.directory, Liar, False, lambda line: None,
                  lambda *_: None) == model
    _, played = simulate(run.config, str(tmp_path / "simulated"), Liar(run.config))
    assert played.rounds[-1]["params_hash"] == model


def test_with_ratio_0_nothing_is_refused(start):
    run = start(*FOUR, "max_norm_ratio=0")
    hands = run.hands(0, 1, 2, 3)
    play(run, hands, 1)
    for hand in hands:
        hand.train(1e20 if hand.worker == 3 else None)
        hand.upload()
    run.wait_for_round(2)
    assert run.service.run.history.rows()[1].selected == (0, 1, 2, 3) and not flags(run)


def test_a_late_upload_that_is_too_long_is_lost_and_flagged(start):
    run = start(*DEADLINE, "late_updates=apply", "min_workers=3")
    hands = run.hands(0, 1, 2, 3)
    play(run, hands[:3], 1)
    play(run, hands, 1)
    hands[3].train(1e30)
    play_without(run, *hands[:3])
    play_without(run, *hands[:3])
    assert hands[3].ask().verdict == "granted"
    assert hands[3].upload().verdict == "late"
    play_without(run, *hands[:3])
    assert [(flag.round, flag.reason) for flag in flags(run)] == [(2, "norm")]


class Local(Quadratic):
    """Worker 3 says that it has very many samples."""

    def num_samples(self, worker):
        return 10**6 if worker == 3 else super().num_samples(worker)


def test_a_worker_with_most_of_the_samples_is_not_taken_into_the_average(start):
    run = start(*FOUR, "partition=local", "local_epochs=1", "batch_size=0", "max_weight_share=0.5",
                learner=Local)
    hands = run.hands(0, 1, 2, 3)
    play(run, hands, 2)
    assert run.service.run.model.members == (0, 1, 2)
    assert {flag.reason for flag in flags(run)} == {"weight"}


def test_more_samples_than_the_cap_are_refused(start):
    run = start(*FOUR, "partition=local", "max_samples=1000", learner=Local)
    with pytest.raises(ProtocolError, match="too many samples") as refusal:
        run.hand(3)
    assert refusal.value.name == "data_mismatch"


@pytest.mark.parametrize("bits", [1, 7, 10**9])
def test_a_bid_of_a_size_that_no_upload_has_is_refused(start, bits):
    run = start(*ALL, "sel_clients=1")
    hand = run.hands(0, 1, 2)[0]
    hand.train()
    bid = Bid(0, 0, False, "", (Option(hand.proposal.bits, bits, 1.0),), 1.0, 0.0)
    with pytest.raises(ProtocolError, match="worker 0 bids a size"):
        run.service.bid(hand.session, messages.BID.to_json(bid), 0.0)


def test_who_promises_much_and_sends_nothing_comes_last(start):
    run = start("total_workers=3", "quorum=deadline", "min_workers=3", "max_rounds=30",
                "sel_clients=1", "round_deadline_s=5", "worker_timeout_s=600", "C=1000")
    hands, chosen = run.hands(0, 1, 2), []
    for _ in range(12):
        round_ = run.state.round
        for hand in hands:
            hand.train()
        hands[0].proposal = hands[0].proposal._replace(gain=1e30)
        for hand in hands:
            hand.bid()
        granted = next(hand for hand in hands if hand.ask(PATIENCE_S).verdict == "granted")
        chosen.append(granted.worker)
        if granted.worker:
            granted.upload()
        else:
            run.advance(5.0)
        run.wait_for_round(round_ + 1)
        for hand in hands:
            if hand.ask().verdict == "late":
                hand.proposal = None
            else:
                hand.settle()
        if granted.worker == 0:
            hands[0].fetch()
            hands[0].register()
    assert chosen.count(0) <= 3
    assert {flag.reason for flag in flags(run)} == {"not_delivered"}


def test_a_gain_that_the_upload_does_not_have_is_flagged(start):
    run = start(*ALL, "sel_clients=1", "C=1000")
    hands = run.hands(0, 1, 2)
    for hand in hands:
        hand.train()
    hands[1].proposal = hands[1].proposal._replace(gain=1e30)
    for hand in hands:
        hand.bid()
    assert hands[1].ask(PATIENCE_S).verdict == "granted"
    hands[1].upload()
    run.wait_for_round(1)
    flag, = flags(run)
    assert (flag.worker, flag.reason, flag.value) == (1, "gain", 1e30)
