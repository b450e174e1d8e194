"""A worker that is missing: what the log and /status say of it, and that what they advise works."""

import json
import logging

import pytest

from flq.master.run import stall as stalls
from flq.master.status import metrics, status
from flq.protocol import round_machine as machine

ALL = ("total_workers=3", "quorum=all", "max_rounds=9")
THREE = ("total_workers=3", "quorum=deadline", "min_workers=3", "max_rounds=9")


def silent(run, hands, dead, seconds=50.0):
    """All but one answer, and show a sign of life after that time."""
    for hand in hands:
        if hand.worker != dead:
            hand.train()
            hand.upload()
    run.advance(seconds)
    for hand in hands:
        if hand.worker != dead:
            run.service.heartbeat(hand.session)
    return status(run.service)


def states(shown):
    return [shown["worker_status"][str(worker)]["state"] for worker in range(3)]


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "flq.master")
    return caplog


def test_a_killed_worker_is_named_once_and_removing_it_lets_the_run_go_on(start, warnings):
    run = start(*ALL, wire=lambda: (0, 0))
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    with run.service.locked() as inner:
        inner.members.devices[2] = {"host": "nano-b"}
    before = status(run.service)
    assert before["stall"] is None and before["eta_s"] is not None
    shown = silent(run, hands, dead=2)
    assert shown["stall"] == {
        "workers": (2,), "text": "waiting for worker 2 (nano-b), last heard 50.0 s ago",
        "waited_s": 50.0, "goes_on_in_s": None, "remove": (2,), "change": {}
    }
    assert shown["eta_s"] is None and states(shown) == ["waiting", "waiting", "lost"]
    assert "flq_overdue_workers 1\n" in metrics(run.service)
    run.advance(50.0)
    run.wait(lambda state: warnings.messages, "the log says so")
    for hand in hands[:2]:
        run.service.heartbeat(hand.session)
    run.advance(30.0)
    assert [message.partition(", last")[0] for message in warnings.messages
            ] == ["round 1: waiting for worker 2 (nano-b)"]
    assert warnings.messages[0].endswith("ago; continue without it: POST /workers/2/remove")
    run.service.remove(2)
    run.wait_for_round(2)
    shown = status(run.service)
    assert shown["stall"] is None and shown["eta_s"] is not None
    assert states(shown)[2] == "removed" and "flq_overdue_workers 0\n" in metrics(run.service)


def test_a_simulation_is_not_told_to_send_requests(start, warnings):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    silent(run, hands, dead=2)
    run.wait(lambda state: warnings.messages, "the log says so")
    assert warnings.messages == ["round 1: waiting for worker 2, last heard 50.0 s ago"]


def test_a_change_of_min_workers_lets_a_run_go_on_that_has_too_few(start, warnings):
    run = start(*THREE, wire=lambda: (0, 0))
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    shown = silent(run, hands, dead=1)
    assert shown["stall"]["change"] == {"system.min_workers": 2}
    run.wait(lambda state: warnings.messages, "the log says so")
    assert warnings.messages[0].endswith(
        'continue without it: PATCH /config {"system.min_workers": 2}')
    assert not shown["stall"]["remove"] and shown["stall"]["goes_on_in_s"] is None
    run.service.change(shown["stall"]["change"], by="test")
    run.advance(30.0)  # its time is over
    run.wait_for_round(2)
    assert status(run.service)["worker_status"]["1"]["state"] == "away"


def test_start_workers_are_waited_for_once(start, warnings):
    run = start("total_workers=3", "start_workers=3", "round_deadline_s=5", "max_rounds=9")
    first, second = run.hands(0, 1)
    shown = status(run.service)
    assert shown["phase"] == "WAITING" and shown["stall"] is None and shown["eta_s"] is None
    run.advance(45.0)
    shown = status(run.service)
    assert shown["stall"]["text"] == "waiting for worker 2, not connected"
    assert shown["stall"]["change"] == {"system.start_workers": 2}
    third = run.hand(2)
    run.play(first, second, third)
    for round_ in (1, 2):
        for hand in (first, second):
            hand.train()
            hand.upload()
        run.advance(6.0)  # the deadline
        run.wait_for_round(round_ + 1)
        first.settle()
        second.settle()
    assert run.service.run.history.rows()[2].missing == (2,)


def test_a_round_with_a_deadline_says_when_it_goes_on(start, warnings):
    run = start("total_workers=2", "round_deadline_s=55", "max_rounds=9")
    hands = run.hands(0, 1)
    run.play(*hands)
    hands[0].train()
    hands[0].upload()
    run.advance(45.0)
    run.service.heartbeat(hands[0].session)
    found = status(run.service)["stall"]
    assert (found["workers"], found["goes_on_in_s"]) == ((1,), 10.0)
    run.wait(lambda state: warnings.messages, "the log says so")
    assert warnings.messages[0].endswith("the round goes on without it after 10.0 s")


def test_a_slow_worker_is_no_lost_one(start):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.advance(5.0)
    run.play(*hands)
    for hand in hands[:2]:
        hand.train()
        hand.upload()
    for _ in range(3):
        run.advance(20.0)
        for hand in hands:
            run.service.heartbeat(hand.session)
    shown = status(run.service)
    assert states(shown) == ["waiting", "waiting", "slow"]
    assert shown["stall"]["text"] == "waiting for worker 2, slower than usual"


@pytest.mark.parametrize("pause", ["operator", "error"])
def test_a_paused_run_has_no_time_left_and_waits_for_nobody(start, pause):
    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    run.play(*hands)
    if pause == "operator":
        run.service.pause()
    else:
        with run.service.locked() as inner:
            inner._step(machine.Paused(), run.clock.now)
    run.advance(1000.0)
    shown = status(run.service)
    assert shown["paused"] and shown["eta_s"] is None and shown["stall"] is None


def test_a_restarted_master_tells_who_has_not_come_back(start, warnings):
    run = start(*ALL)
    run.play(*run.hands(0, 1, 2))
    run.close()
    again = start(*ALL)
    for worker in (0, 1):
        again.hand(worker)
    again.advance(45.0)
    for worker in (0, 1):
        again.hand(worker)
    found = status(again.service)["stall"]
    assert found["text"] == "waiting for worker 2, not connected" and found["remove"] == (2,)


def test_many_workers_are_a_short_line_and_a_name_is_only_text(start):
    run = start("total_workers=40", "quorum=all", "max_rounds=9")
    run.hands(0, 1)
    with run.service.locked() as inner:
        run.clock.now += 45.0
        found = stalls.stall(inner.state, {2: {"host": "a" * 200}, 3: {"host": ["x"]}},
                             run.clock.now)
    assert len(found.workers) == 38 and found.text.startswith("waiting for workers 2 (aaa")
    assert found.text.endswith("and 34 more, not connected") and len(found.text) < 500
    assert json.dumps(found.to_json())
