"""An outcome and the model that follows it in one answer: when both come, and what is counted."""

import queue

import pytest

from flq.master.run.run import PENDING
from flq.records import HeldModel
from tests.master.hands import PATIENCE_S

ALL = ("total_workers=3", "quorum=all", "max_rounds=3", "b_down=4", "entropy_coding_down=false",
       "downlink=laq")
VERSION_BITS = 288  # of a broadcast of that configuration


@pytest.fixture
def run(start):
    return start(*ALL)


class Later:
    """Asks as HTTP does, without a thread that waits; `told()` is the answer."""

    def __init__(self, ask, *arguments, **more):
        self._answers = queue.Queue()
        self.found = ask(*arguments, then=lambda *told: self._answers.put(told), **more)

    @property
    def waits(self):
        return self.found is PENDING and self._answers.empty()

    def told(self):
        if self.found is PENDING:
            self.found, error = self._answers.get(timeout=PATIENCE_S)
            assert error is None, error
        return self.found


def send(run, hand, with_model=True, silent=False):
    """Train, and upload or bid as the proposal is."""
    if silent:
        hand.fetch()
        hand.terms = hand.terms._replace(history_sum=1e12)
    hand.train()
    held = hand.held if with_model else None
    bids = hand.proposal.skip or run.state.two_phase
    return Later(hand.bid if bids else hand.upload, PATIENCE_S, held=held)


def test_an_upload_is_answered_with_its_outcome_and_the_next_model(run):
    hands = run.hands(0, 1, 2)
    asked = [send(run, hand) for hand in hands[:2]]
    assert all(one.waits for one in asked)
    asked.append(send(run, hands[2]))
    for hand, one in zip(hands, asked):
        outcome = one.told()
        assert (outcome.round, outcome.verdict) == (0, "accepted")
        assert outcome.reference_hash == hand.proposal.committed.reference_hash.hex()
        (frame,) = hand.take(outcome.frames)
        assert (frame.header.round, frame.final) == (1, False)
        assert hand.hash == run.service.run.model.params_hash


def test_who_asks_for_the_outcome_alone_is_sent_no_model(run):
    """A worker of an older version."""
    hands = run.hands(0, 1, 2)
    asked = [send(run, hand, with_model=False) for hand in hands]
    assert [one.told().frames for one in asked] == [b""] * 3
    assert run.service.run.history.accounting.down.payload == 0


def test_a_version_that_came_with_an_outcome_counts_once(run):
    """Its answer was lost: the upload comes again, and then the model is fetched."""
    hands = run.hands(0, 1, 2)
    asked = [send(run, hand) for hand in hands]
    first = asked[0].told()
    again = hands[0].upload(held=hands[0].held)
    assert again == first and hands[0].ask(held=hands[0].held) == first
    assert hands[0].fetch()[0].header.round == 1
    asked[1].told(), asked[2].told()
    (record,) = run.service.run.history.rows()
    assert record.payload_bits_down == 3 * VERSION_BITS


def test_a_silence_waits_for_the_model_that_makes_it_final(start):
    run = start(*ALL, "thr_scale=1", "C=100")
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    asked = [send(run, hand, silent=True) for hand in hands[:2]]
    assert all(hand.proposal.skip for hand in hands[:2]) and all(one.waits for one in asked)
    assert hands[0].ask().verdict == "skipped", "alone it is there at once"
    at_once = hands[0].ask(held=hands[0].held)
    assert (at_once.verdict, at_once.frames) == ("skipped", b""), "without a wait too"
    send(run, hands[2])
    for hand, one in zip(hands, asked):
        outcome = one.told()
        assert outcome.verdict == "skipped"
        assert hand.take(outcome.frames)[0].header.round == 2


def test_a_grant_comes_at_once_and_a_refusal_with_the_model(start):
    run = start(*ALL, "sel_clients=2")
    hands = run.hands(0, 1, 2)
    bids = [send(run, hand) for hand in hands]
    granted = run.state.granted
    uploads = []
    for hand, bid in zip(hands, bids):
        if hand.worker in granted:
            outcome = bid.told()
            assert (outcome.verdict, outcome.frames) == ("granted", b"")
            uploads.append((hand, hand.held))
        else:
            refused = hand, bid
    assert len(uploads) == 2 and refused[1].waits
    asked = [(hand, Later(hand.upload, PATIENCE_S, held=held), "accepted")
             for hand, held in uploads]
    for hand, one, verdict in (*asked, (*refused, "refused")):
        outcome = one.told()
        assert outcome.verdict == verdict
        assert hand.take(outcome.frames)[0].header.round == 1


def test_the_last_model_comes_with_the_last_outcome_and_is_stored_as_sent(start):
    run = start(*ALL, "max_rounds=1")
    hands = run.hands(0, 1, 2)
    asked = [send(run, hand) for hand in hands]
    for hand, one in zip(hands, asked):
        (frame,) = hand.take(one.told().frames)
        assert frame.final
    delivered = run.store.ending().accounting["delivered"]
    assert sorted(delivered) == ["0", "1", "2"], "a master that is killed now has them"


def test_who_holds_the_newest_model_is_told_the_outcome_alone(run):
    hands = run.hands(0, 1, 2)
    [one.told() for one in [send(run, hand) for hand in hands]]
    model = run.service.run.model
    outcome = hands[0].ask(held=HeldModel(1, model.params_hash))
    assert (outcome.verdict, outcome.frames) == ("accepted", b"")


def test_who_holds_nothing_is_sent_a_keyframe(run):
    hands = run.hands(0, 1, 2)
    [one.told() for one in [send(run, hand) for hand in hands]]
    (frame,) = hands[0].take(hands[0].ask(held=HeldModel(-1, b"")).frames)
    assert frame.keyframe and frame.header.round == 1


def test_a_worker_whose_turn_is_not_next_is_told_the_outcome_alone(start):
    run = start("total_workers=4", "quorum=all", "max_rounds=4", "cohorts=2")
    hands = run.hands(0, 1, 2, 3)
    asked = [send(run, hand) for hand in hands[::2]]
    assert [(one.told().verdict, one.told().frames) for one in asked] == [("accepted", b"")] * 2
    assert hands[0].fetch() is None and hands[1].fetch() is not None


def test_a_run_that_is_stopped_sends_who_was_silent_its_last_model(run):
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    asked = send(run, hands[0])
    assert asked.waits
    run.service.stop()
    outcome = asked.told()
    assert outcome.verdict == "accepted" and hands[0].take(outcome.frames)[0].final
