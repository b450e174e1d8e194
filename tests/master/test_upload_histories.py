"""entropy_coding context, moved by hand: what a worker sends again, loses or comes late with is
read beside the history that both sides hold, or refused.
"""

import logging

import numpy as np
import pytest

from flq.errors import FrameError, ProtocolError
from flq.master.status import status
from flq.master.store.results import run_of
from flq.master.stored.audit import replay
from flq.protocol import frames
from tests.master.hands import PATIENCE_S, play_without
from tests.master.test_service import ALL, DEADLINE
from tests.system.quadratic import Quadratic

CONTEXT = ("mode=rd", "b_up=16", "entropy_coding=context")


def is_beside_history(frame):
    return bool(frames.Header(*frames._COMMON.unpack_from(frame)).flags & frames.HISTORY)


def check_histories(run, hands):
    for hand in hands:
        assert hand.uplink.activity.tolist() == run.accounts[hand.worker].activity.tolist()


def test_what_is_sent_again_when_the_history_has_moved_is_told_its_outcome(start):
    run = start(*ALL, *CONTEXT)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    for hand in hands:
        hand.train()
    sent = hands[0].frame()
    assert is_beside_history(sent)
    for hand in hands:
        assert hand.upload().verdict in ("open", "accepted")
    run.wait_for_round(2)
    for _ in range(2):
        again = run.service.upload(hands[0].session, sent, PATIENCE_S)
        assert (again.round, again.verdict) == (1, "accepted")
    for hand in hands:
        hand.settle()
    run.play(*hands)
    check_histories(run, hands)


@pytest.mark.parametrize("memory", ["reference", "residual", "none"])
def test_a_lost_state_begins_without_a_history_on_both_sides_and_the_record_says_so(
        start, tmp_path, memory):
    run = start(*DEADLINE, *CONTEXT, "memory=" + memory)
    kept, lost = run.hands(0, 1)
    run.play(kept)  # who was there when round 0 opened
    for _ in range(3):
        run.play(kept, lost)
    before = run.accounts[1].activity
    assert before.max() > 0
    lost = run.hand(1, instance=lost.instance)
    assert lost.uplink.activity.max() == 0
    for _ in range(2):
        run.play(kept, lost)
    check_histories(run, [kept, lost])
    assert status(run.service)["worker_status"]["1"]["resets"] == 1
    assert [event.worker for event in run.store.events() if type(event).__name__ == "Reset"] == [1]
    run.close()
    assert replay(tmp_path / "run", Quadratic, False, [].append, lambda *row: None)


def test_an_upload_from_before_a_reset_is_refused_by_its_chain(start):
    run = start(*DEADLINE, *CONTEXT)
    kept, lost = run.hands(0, 1)
    run.play(kept)
    for _ in range(2):
        run.play(kept, lost)
    lost.train()
    old = lost.frame()
    again = run.hand(1, instance=lost.instance)
    with pytest.raises(ProtocolError) as refusal:
        run.service.upload(again.session, old, 0.0)
    assert refusal.value.name == "other_base"
    # Were the chain forged, the history would not be.
    forged = lost.frame(reference_hash=again.uplink.reference_hash)
    with pytest.raises(FrameError) as refusal:
        run.service.upload(again.session, forged, 0.0)
    assert refusal.value.reason == "other_history"


def test_a_late_update_continues_the_history(start):
    run = start(*DEADLINE, *CONTEXT, "late_updates=apply")
    fast, slow = run.hands(0, 1)
    run.play(fast)
    run.play(slow, fast)
    slow.train()
    play_without(run, fast)
    play_without(run, fast)
    assert slow.upload().verdict == "open"
    fast.train()
    fast.upload()
    run.wait_for_round(5)
    assert slow.settle().verdict == "accepted"
    fast.settle()
    check_histories(run, [fast, slow])


@pytest.mark.parametrize("room, kept", [(1, 5 * 40), (0, 0)])
def test_without_room_the_levels_are_coded_as_with_true_and_all_say_so(start, caplog, room, kept):
    caplog.set_level(logging.WARNING)
    run = start(*ALL, *CONTEXT, "total_workers=5", f"master_side_information_mb={room}")
    hands = run.hands(0, 1, 2, 3, 4)
    for _ in range(2):
        run.play(*hands)
    assert status(run.service)["side_information_bytes"] == kept
    assert run_of(run.store).summary["side_information_bytes"] == kept
    sent = [answer.frame for stored in run.store.rounds() for answer in stored.answers]
    assert [is_beside_history(frame) for frame in sent] == [bool(kept)] * 10
    lines = [line for line in caplog.messages if "master_side_information_mb" in line]
    assert len(lines) == (0 if kept else 1)
    assert all((account.activity is not None) == bool(kept) for account in run.accounts.values())
    assert np.all([account.member for account in run.accounts.values()])
