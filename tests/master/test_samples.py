"""Partition local: a worker that comes back with another number of samples, moved by hand (decision
8).
"""

import numpy as np
import pytest

from flq.algorithm import round as rounds
from flq.errors import FlqError, ProtocolError
from flq.master.status import status
from flq.master.store.events import Samples
from flq.master.store.run_store import backup
from tests.master.hands import PATIENCE_S, Hand
from tests.master.run.test_recovery import add_checkpoints, recover, same
from tests.master.test_service import ALL, DEADLINE, Gate, check_sums
from tests.system.quadratic import Quadratic


class Growing(Quadratic):
    """counts: workers whose file is another one now."""

    def __init__(self, settings):
        super().__init__(settings)
        self.counts = {}

    def num_samples(self, worker):
        return self.counts.get(worker, super().num_samples(worker))


LOCAL = (*ALL, "partition=local", "local_epochs=1")


def grow(run, hand, num_samples):
    """The worker is started again, with its state, on another file."""
    run.learner.counts[hand.worker] = num_samples
    answer = hand.register()
    assert answer["reference"] == "reset"
    return answer


def samples_events(run):
    return [event for event in run.store.events() if isinstance(event, Samples)]


@pytest.mark.parametrize("settings, weight", [((), 5000.0), (("weighting=uniform",), 1.0),
                                              (("mode=fedavg",), 5000.0)],
                         ids=["samples", "uniform", "no reference"])
def test_its_reference_leaves_with_the_old_weight_and_it_goes_on_with_the_new_one(
        start, settings, weight):
    run = start(*LOCAL, *settings, learner=Growing)
    hands, models = run.hands(0, 1, 2), {}
    run.play(*hands)
    run.play(*hands)
    slow_rate = run.service.run.history.rows()[-1].server_lr
    if not settings:
        hands[1].departs()
    grow(run, hands[1], 5000)
    assert run.accounts[1].num_samples == 110, "from the round on that closes next"
    for _ in range(2):
        run.play(*hands)
        models[run.state.round] = run.service.run.model
        if not settings:
            check_sums(run, hands)
    account = run.accounts[1]
    assert (account.num_samples, account.weight, account.epoch, account.member) == (5000, weight, 1,
                                                                                    True)
    assert run.service.run.history.rows()[-1].server_lr > 2 * slow_rate, "E_m follows"
    assert status(run.service)["worker_status"]["1"]["num_samples"] == 5000
    assert [row["num_samples"] for row in run.store.worker_rounds()
            if row["worker"] == 1] == [110, 110, 5000, 5000]
    assert samples_events(run) == [Samples(1, 5000)]

    last = run.service.run.model
    run.close()
    (run.directory / "copy").mkdir()
    backup(run.directory, run.directory / "copy" / "run.db")
    computed, rounds_ = recover(run, checkpoints=False)
    same(computed, last)
    assert rounds_ == [0, 1, 2, 3]
    add_checkpoints(run, models, 3)
    computed, rounds_ = recover(run)
    same(computed, last)
    assert rounds_ == [3]
    copy = start(*LOCAL, *settings, learner=Growing, name="run/copy")
    same(copy.service.run.model, last)


def test_the_master_that_went_before_the_round_closed_hears_of_it_again(start):
    run = start(*LOCAL, learner=Growing)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    grow(run, hands[1], 5000)
    run.close()
    again = start(*LOCAL, learner=Growing)
    again.learner.counts[1] = 5000
    assert again.accounts[1].num_samples == 110 and samples_events(again) == []
    hands = [Hand(again, hand.worker, like=hand) for hand in hands]
    assert [hand.register()["reference"] for hand in hands] == ["keep", "reset", "keep"]
    again.play(*hands)
    assert again.accounts[1].num_samples == 5000 and again.accounts[1].epoch == 1


def test_the_last_number_counts_and_the_first_one_may_come_back(start):
    run = start(*LOCAL, learner=Growing)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    hands[1].departs()
    chain = grow(run, hands[1], 5000)["reference_hash"]
    assert grow(run, hands[1], 110)["reference_hash"] == chain
    run.play(*hands)
    check_sums(run, hands)
    assert run.accounts[1].num_samples == 110 and [
        event.num_samples for event in samples_events(run)
    ] == [5000, 110]
    last = run.service.run.model
    run.close()
    same(recover(run, checkpoints=False)[0], last)


def test_who_is_no_member_yet_has_nothing_to_take_out(start):
    run = start(*LOCAL, learner=Growing)
    hands = run.hands(0, 1, 2)
    grow(run, hands[1], 5000)
    run.play(*hands)
    check_sums(run, hands)
    assert (run.accounts[1].num_samples, run.accounts[1].epoch) == (5000, 0)


def test_an_upload_that_is_being_committed_counts_as_it_was_weighed_then(start):
    """The worker becomes a member while it comes back with another file."""
    run = start(*DEADLINE, "partition=local", learner=Growing, store=Gate)
    hands = run.hands(0, 1)
    run.play(hands[0])
    run.store.held = True
    for hand in hands:
        hand.train()
        hand.upload()
    assert run.store.reached.wait(PATIENCE_S)
    run.learner.counts[1] = 5000
    hands[1].register()
    run.store.held = False
    run.store.go.set()
    run.wait_for_round(2)
    assert 1 in run.service.run.model.members and run.accounts[1].weight == 110.0
    hands[0].settle()
    hands[1].register()
    run.play(*hands)
    assert run.accounts[1].weight == 5000.0 and run.accounts[1].epoch == 1
    last = run.service.run.model
    held = sum(hand.weight * hand.uplink.memory.astype(np.float64) for hand in hands)
    np.testing.assert_allclose(last.reference_sum, held, rtol=0, atol=1e-5 * np.abs(held).max())
    run.close()
    same(recover(run, checkpoints=False)[0], last)


def test_a_member_is_not_weighed_anew(start):
    run = start(*LOCAL, learner=Growing)
    run.play(*run.hands(0, 1, 2))
    with pytest.raises(FlqError, match="worker 1 is a member"):
        rounds.resize(run.service.run.model, {1: 5000}, False)


def test_with_a_partition_that_all_know_another_number_is_refused(start):
    run = start(*ALL)
    hand = run.hand(1)
    with pytest.raises(ProtocolError) as refusal:
        hand.register(num_samples=5000)
    assert refusal.value.name == "data_mismatch"
