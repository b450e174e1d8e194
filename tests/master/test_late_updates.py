"""late_updates apply, moved by hand: an upload that missed its round is committed once, by the next
round that can (decision 14).
"""

import pytest

from flq.protocol.messages import BID
from flq.records import Bid
from tests.master.hands import PATIENCE_S, Hand, play_without
from tests.master.test_service import DEADLINE, Gate, check_sums, refused

APPLY = (*DEADLINE, "late_updates=apply")


def miss_a_round(run, slow, *others):
    """Round 0 opened before the slow one came, round 1 has them all; the slow one trains for round
    2 and misses it.
    """
    run.play(*others)
    run.play(slow, *others)
    slow.train()
    play_without(run, *others)


def test_a_late_update_is_committed_by_the_round_that_is_open_when_it_comes(start):
    run = start(*APPLY)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    play_without(run, fast)
    assert run.service.run.history.rows()[2].missing == run.service.run.history.rows(
    )[3].missing == (1,)
    assert slow.ask().verdict == "granted" and slow.upload().verdict == "open" and slow.ask(
    ).verdict == "open"
    fast.train()
    fast.upload()
    run.wait_for_round(5)
    assert slow.upload(PATIENCE_S).verdict == "accepted", "sent again it is told what became of it"
    outcome = slow.settle()
    assert (outcome.round, outcome.verdict,
            outcome.reference_hash) == (2, "accepted", run.accounts[1].reference_hash.hex())
    fast.settle()
    check_sums(run, [fast, slow])

    records = run.service.run.history.rows()
    assert [record.selected for record in records] == [(0,), (0, 1), (0,), (0,), (0, 1)]
    assert records[2].late == (1,) and records[3].late == ()
    rows = [row for row in run.store.worker_rounds() if row["worker"] == 1]
    assert [(row["state"], row["staleness"]) for row in rows] == [("accepted", 0), ("missing", 0),
                                                                  ("missing", 0), ("accepted", 2)]
    assert [row["payload_bits"] > 0 for row in rows] == [True, False, False, True]
    assert run.service.run.history.accounting.up.payload == sum(
        row["payload_bits"] for row in run.store.worker_rounds()), "counted once"
    assert [slow.ask(round_=round_).verdict for round_ in (1, 2, 3, 4)] == [
        "accepted", "accepted", "late", "late"
    ], ("what round 4 committed was computed in round 2")

    hash_, counts = run.service.run.model.params_hash, run.service.run.history.counts
    run.play(fast, slow)
    run.close()
    again = start(*APPLY)
    assert again.service.run.history.rows()[4].params_hash == hash_.hex(
    ) and again.service.run.history.rows()[2].late == (1,)
    assert again.service.run.history.counts[1]["missing"] == counts[1]["missing"] == 2


def test_refused_as_before_when_it_is_not_to_be_applied(start):
    run = start(*DEADLINE)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    assert slow.upload().verdict == "late" and slow.settle().verdict == "late"
    run.play(fast, slow)
    check_sums(run, [fast, slow])
    assert run.service.run.history.rows()[2].late == (
        1,) and run.service.run.history.rows()[3].selected == (0, 1)


def test_what_comes_while_a_round_is_being_stored_waits_for_the_next(start):
    run = start(*APPLY, store=Gate)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    run.store.held = True
    fast.train()
    fast.upload()
    run.advance(30.0)
    assert run.store.reached.wait(PATIENCE_S)
    assert slow.upload(
    ).verdict == "open", "nobody knows yet whether its reference will still be the committed one"
    run.store.held = False
    run.store.go.set()
    assert slow.ask(PATIENCE_S).verdict == "granted"
    fast.settle()
    slow.upload()
    fast.train()
    fast.upload()
    run.wait_for_round(5)
    assert [hand.settle().verdict for hand in (fast, slow)] == ["accepted", "accepted"]
    check_sums(run, [fast, slow])


@pytest.mark.parametrize("stored", [False, True], ids=["before the commit", "after the commit"])
def test_a_master_that_starts_again_knows_or_asks_again(start, stored):
    run = start(*APPLY)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    slow.upload()
    if stored:
        fast.train()
        fast.upload()
        run.wait_for_round(4)
        fast.settle()
    proposal, committed = slow.proposal, run.committed
    run.close()

    run = start(*APPLY, "min_workers=2")  # so that the round waits for both
    run.committed = committed
    fast = run.hand(0, like=fast)
    again = Hand(run, 1, like=slow)
    again.proposal = proposal
    answer = again.register()
    assert answer["reference"] == "keep" and answer["outcome"] == ("accepted"
                                                                   if stored else "granted")
    if not stored:
        again.upload()
        fast.train()
        fast.upload()
        run.wait_for_round(4)
        fast.settle()
    assert again.settle().verdict == "accepted"
    check_sums(run, [fast, again])
    run.play(fast, again)
    check_sums(run, [fast, again])


def test_a_worker_that_starts_again_while_its_late_update_waits_finds_it_there(start):
    run = start(*APPLY)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    slow.upload()
    assert slow.register()["outcome"] == "open"
    fast.train()
    fast.upload()
    run.wait_for_round(4)
    assert run.service.run.history.rows()[3].selected == (0,
                                                          1) and slow.settle().verdict == "accepted"


def test_an_update_of_another_reference_or_model_is_not_applied(start):
    run = start(*APPLY)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    refused("other_base", slow.upload, reference_hash=bytes(32))
    refused("bad_frame", slow.upload, worker=0)
    assert slow.upload(params_hash=bytes(8)).verdict == "late"
    assert run.state.uploaded == frozenset() and run.service.run.history.rows()[2].late == ()


def test_an_update_that_is_too_long_stays_late(start, caplog):
    run = start(*APPLY, "max_update_norm=100")
    fast, slow = run.hands(0, 1)
    run.play(fast)
    run.play(fast, slow)
    slow.train(update=1e3)
    play_without(run, fast)
    assert slow.upload().verdict == "late" and run.state.uploaded == frozenset()
    assert any("longer than security.max_update_norm" in message for message in caplog.messages)


def test_a_silence_that_came_late_is_no_upload(start):
    run = start(*APPLY)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    bid = Bid(1, 2, True, "lazy", (), 1.0, 0.0)
    assert run.service.bid(slow.session, BID.to_json(bid), 0.0).verdict == "granted", \
        "the master does not know it from one whose upload is to come"
    assert 1 not in run.state.bids


def test_who_was_absent_for_too_long_has_another_reference(start):
    run = start(*APPLY, "absent_rounds=2")
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    play_without(run, fast)
    refused("other_base", slow.upload)
    assert slow.register()["reference"] == "reset" and slow.proposal is None
    fast.train()
    fast.upload()
    slow.train()
    slow.upload()
    run.wait_for_round(5)
    assert run.service.run.history.rows()[4].selected == (0, 1) and run.accounts[1].epoch == 1


def test_after_the_end_an_update_is_lost(start):
    run = start(*APPLY, "max_rounds=3")
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    assert slow.upload().verdict == "late"


def test_a_newer_answer_of_the_worker_is_not_replaced_by_an_older_one(start):
    run = start(*APPLY)
    fast, slow = run.hands(0, 1)
    miss_a_round(run, slow, fast)
    old = slow.frame()
    # as if the verdict had been heard: a worker that lost an answer and was told `late`
    slow.train()
    assert slow.upload().verdict == "open"
    assert run.service.upload(slow.session, old, 0.0).verdict == "late"
    fast.train()
    fast.upload()
    run.wait_for_round(4)
    assert slow.ask(round_=3).verdict == "accepted" and slow.ask(round_=2).verdict == "late"
    slow.settle()
    fast.settle()
    check_sums(run, [fast, slow])
