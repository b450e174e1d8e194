"""The master's machine: its table, every arrow by example, and storms of events over a simulated
clock.
"""

import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from flq.protocol import round_machine as machine
from flq.protocol import waits
from flq.protocol.round_events import (
    Aggregate,
    BidCame,
    Ended,
    Joined,
    LateAnswer,
    Left,
    LeftOut,
    Opened,
    Paused,
    Reconfigured,
    Removed,
    Resumed,
    RoundClosed,
    RoundFailed,
    RoundSettings,
    Seen,
    Select,
    Selected,
    StopAsked,
    StoreFull,
    Tick,
    UploadCame,
)
from flq.protocol.round_machine import (
    AGGREGATING,
    BIDDING,
    BLOCKED,
    FINISHED,
    PHASES,
    UPLOADING,
    WAITING,
)
from flq.records import Bid, Option
from tests.protocol.storms import number_of

OPTION = Option(4, 100, 1.0)
DEADLINE = RoundSettings(max_rounds=3, min_workers=1, total_workers=3, wait_for_all=False,
                         two_phase=False, deadline_s=30.0, worker_timeout_s=60.0,
                         longest_deadline_s=3600.0)
TWO_PHASE = DEADLINE._replace(two_phase=True)
ALL = DEADLINE._replace(min_workers=3, wait_for_all=True)


def bid(worker, round_=0, skip=False, reason=""):
    return Bid(worker, round_, skip, reason, () if skip else (OPTION,), 1.0, 0.0)


def silence(worker, round_=0):
    return BidCame(bid(worker, round_, True, "lazy"))


def nonfinite(worker, round_=0):
    return BidCame(bid(worker, round_, True, "nonfinite"))


def offer(worker, round_=0):
    return BidCame(bid(worker, round_))


def upload(worker, round_=0):
    return UploadCame(bid(worker, round_))


def closed(two_phase=False):
    return RoundClosed(two_phase)


class Run(object):
    """A machine, its clock, and what it asked for last. grants: whom a Select is answered with."""

    def __init__(self, settings, grants=None, round_=0):
        self.now, self.grants = 1000.0, grants
        self.state = machine.initial_state(settings, self.now, round_)
        self.effects = ()

    def __call__(self, *events, **after):
        self.now += after.get("after", 1.0)
        for event in events:
            self.state, self.effects = machine.step(self.state, event, self.now)
            if self.effects and isinstance(self.effects[-1], Select):
                chosen = {
                    b.worker: b.options[0] for b in self.effects[-1].bids
                    if self.grants is None or b.worker in self.grants
                }
                self.state, more = machine.step(self.state, Selected(chosen), self.now)
                self.effects += more
        return self

    @property
    def phase(self):
        return self.state.phase

    def owes(self):
        return {
            worker: machine.owes(self.state, worker)
            for worker in range(self.state.settings.total_workers)
        }


def opened(settings, workers, grants=None):
    """A run whose first round is open for that many workers."""
    return Run(settings._replace(min_workers=workers),
               grants)(*[Joined(worker, True) for worker in range(workers)])(Reconfigured(settings))


EVENTS = (Joined(0, False), Joined(0, True), Left(0), Removed(0), Seen(0), LateAnswer(0, 0),
          offer(0), silence(0), upload(0), Selected({0: OPTION}), closed(), RoundFailed("why"),
          StoreFull("where"), Reconfigured(DEADLINE), Paused(), Resumed(), StopAsked(), Tick())


def in_phase(phase, settings=TWO_PHASE):
    """A run in that phase, with workers 0 and 1 in it."""
    run = Run(settings, grants={0, 1})
    if phase == WAITING:
        return run
    run(Joined(0, True), Joined(1, True))
    if phase in (UPLOADING, AGGREGATING, BLOCKED):
        run(offer(0), offer(1))
    if phase in (AGGREGATING, BLOCKED):
        run(upload(0), upload(1))
    if phase == BLOCKED:
        run(StoreFull("/run.db: 1 MB more"))
    if phase == FINISHED:
        run(StopAsked())
    return run


def test_the_table_has_no_blank_cell():
    assert {type(event) for event in EVENTS} == set(machine.TABLE)
    assert all(
        set(row) == set(PHASES) and all(callable(handler) for handler in row.values())
        for row in machine.TABLE.values())


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_taken_in_every_phase_and_changes_no_record(phase, event):
    run = in_phase(phase)
    assert run.phase == phase
    before, copies = run.state, [
        dict(part) if isinstance(part, dict) else part for part in run.state
    ]
    run(event)
    assert list(before) == copies


def test_a_round_of_one_phase():
    run = Run(DEADLINE)(Joined(0, True))
    assert run.phase == BIDDING and run.effects == (Opened(0),) and run.owes()[0] == "bid"
    run(Joined(1, True))
    assert run.state.participants == {0}, "who comes later takes part from the next round on"
    run(upload(0))
    assert run.phase == AGGREGATING and run.effects == (Aggregate(0, (0,), (), (), ()),)
    assert machine.verdict_so_far(run.state, 0) == "open", "nothing is accepted before it is stored"
    run(closed())
    assert run.phase == BIDDING and run.effects == (
        Opened(1),) and run.state.round == 1 and run.state.participants == {0, 1}


def test_a_round_of_two_phases():
    run = Run(TWO_PHASE._replace(min_workers=3),
              grants={1})(*[Joined(worker, True) for worker in range(3)])
    run(offer(0), silence(2))
    assert run.phase == BIDDING and [
        machine.verdict_so_far(run.state, worker) for worker in range(3)
    ] == ["open", "none", "skipped"]
    run(offer(1))
    assert run.phase == UPLOADING and isinstance(
        run.effects[0], Select) and [b.worker for b in run.effects[0].bids] == [0, 1]
    assert [machine.verdict_so_far(run.state, worker)
            for worker in range(3)] == ["refused", "granted", "skipped"]
    assert run.owes() == {0: "nothing", 1: "upload", 2: "nothing"}
    run(upload(0), offer(0), silence(1), upload(2))
    assert run.phase == UPLOADING and not run.state.uploaded, "a verdict stands"
    run(upload(1))
    assert run.effects == (Aggregate(0, (1,), (2,), (0,), ()),)


def test_a_round_of_silent_workers_needs_no_verdict():
    run = Run(TWO_PHASE._replace(min_workers=2))(Joined(0, True), Joined(1, True), silence(0),
                                                 silence(1))
    assert run.effects == (Aggregate(0, (), (0, 1), (), ()),)


def test_the_last_bid_before_the_verdict_counts():
    run = Run(TWO_PHASE._replace(min_workers=2))(Joined(0, True), Joined(1, True), offer(0),
                                                 silence(0), silence(1))
    assert run.effects == (Aggregate(0, (), (0, 1), (), ()),)


def test_the_last_round_ends_the_run():
    run = Run(DEADLINE._replace(max_rounds=1))(Joined(0, True), upload(0), closed())
    assert run.phase == FINISHED and run.effects == (
        Ended(False),) and not run.state.stopped and run.state.round == 1


def test_a_finished_run_is_resumed_as_finished():
    assert Run(DEADLINE, round_=3).phase == FINISHED


def test_a_resumed_run_starts_at_its_open_round():
    run = Run(DEADLINE, round_=2)(Joined(0, True))
    assert run.effects == (Opened(2),)
    assert run(upload(0, 1), upload(0, 3)).phase == BIDDING and run(upload(0,
                                                                           2)).phase == AGGREGATING


# --- who takes part


def test_quorum_all_waits_for_everybody_once():
    run = Run(ALL)(Joined(0, True), Joined(2, True), upload(0), upload(2), after=1e6)
    assert run.phase == WAITING and machine.next_wake(run.state) is None and machine.deadline_s(
        run.state) == 0
    run(Joined(1, True))
    assert run.phase == BIDDING and run.owes() == {0: "nothing", 1: "bid", 2: "nothing"}
    run(upload(1), closed(), Left(1), Joined(1, True))
    assert run.phase == BIDDING and run.state.round == 1
    run(upload(0, 1), upload(2, 1), Left(1), Tick(), after=1e6)
    assert run.phase == BIDDING and run.owes()[1] == "bid", "it is waited for"
    assert run(Joined(1, True), upload(1, 1)).phase == AGGREGATING


def test_quorum_all_keeps_the_answer_of_who_left():
    run = Run(ALL)(*[Joined(worker, True) for worker in range(3)])(upload(0), Left(0), upload(1),
                                                                   upload(2))
    assert run.effects == (Aggregate(0, (0, 1, 2), (), (), ()),)


def test_a_new_process_answers_anew_and_an_old_one_goes_on():
    run = Run(ALL)(*[Joined(worker, True) for worker in range(3)])(upload(0), Joined(0, False))
    assert run.owes()[0] == "nothing"
    run(Joined(0, True))
    assert run.owes()[0] == "bid"


def test_a_new_process_loses_the_grant_of_the_old_one():
    run = Run(TWO_PHASE._replace(min_workers=2))(Joined(0, True), Joined(1, True), offer(0),
                                                 offer(1), Joined(0, True))
    assert run.phase == UPLOADING and run.owes()[0] == "nothing"
    assert run(upload(0), upload(1)).effects == (Aggregate(0, (1,), (), (), (0,)),)


@pytest.mark.parametrize("gone", [Left(1), Removed(1)])
def test_nothing_is_owed_by_who_is_gone(gone):
    run = Run(DEADLINE._replace(min_workers=2))(Joined(0, True), Joined(1, True), Joined(2, True))
    assert run.state.participants == {0, 1}
    run(upload(0), gone)
    assert run.phase == BIDDING and run.state.participants == {
        0, 2
    }, "too few: opened anew with who is there, what came stands"
    assert run(upload(2)).effects == (Aggregate(0, (0, 2), (), (), ()),)


def test_who_was_removed_never_comes_back():
    run = Run(ALL)(*[Joined(worker, True) for worker in range(3)])(Removed(1), upload(0), upload(1),
                                                                   upload(2))
    assert run.effects == (Aggregate(0, (0, 2), (), (), ()),)
    run(closed())
    assert run.state.participants == {
        0, 2
    } and run.owes()[1] == "nothing" and not machine.may_answer(run.state, 1)


def test_a_round_is_never_closed_without_min_workers():
    run = Run(DEADLINE._replace(min_workers=2))(Joined(0, True), Joined(1, True), upload(0), Tick(),
                                                after=31)
    assert run.phase == BIDDING
    run(Left(1))
    assert run.phase == WAITING
    assert run(Joined(2, True), upload(2)).effects == (Aggregate(0, (0, 2), (), (), ()),)


def test_the_deadline_closes_a_round_without_stragglers():
    run = opened(DEADLINE._replace(min_workers=2), 3)(upload(0), upload(1))
    assert run.phase == BIDDING and machine.next_wake(run.state) == run.state.phase_at + 30.0
    run(Tick(), after=machine.next_wake(run.state) - run.now - 0.25)
    assert run.phase == BIDDING
    assert run(Tick(), after=0.25).effects == (Aggregate(0, (0, 1), (), (), (2,)),)


def test_the_deadline_waits_for_min_workers_and_wakes_nobody_meanwhile():
    run = Run(DEADLINE._replace(min_workers=2))(Joined(0, True), Joined(1, True), upload(0))
    for _ in range(4):
        run(Seen(0), Seen(1), Tick(), after=20.0)
        assert run.phase == BIDDING and machine.next_wake(run.state) > run.now
    assert run(upload(1)).effects == (Aggregate(0, (0, 1), (), (), ()),)


def test_a_grant_that_was_not_used_is_a_miss():
    run = Run(TWO_PHASE._replace(min_workers=2), grants={0})(Joined(0, True), Joined(1, True),
                                                             offer(0), offer(1))
    run(Tick(), after=30.0)
    assert run.effects == (Aggregate(0, (), (), (1,), (0,)),), "no second selection"


def test_a_worker_that_was_not_seen_leaves_and_is_back_with_its_next_sign_of_life():
    run = opened(DEADLINE._replace(min_workers=2, deadline_s=1e6), 2)(upload(0))
    run(Seen(0), Tick(), after=30.0)
    assert run.phase == BIDDING and machine.next_wake(run.state) > run.now
    run(Seen(0), Tick(), after=30.0)
    assert run.phase == WAITING and set(run.state.present) == {0}
    run(Seen(1))
    assert run.phase == BIDDING and run.owes() == {0: "nothing", 1: "bid", 2: "nothing"}


def test_the_answer_of_who_is_not_seen_any_more_stands():
    run = Run(DEADLINE._replace(min_workers=2, deadline_s=1e6))(Joined(0, True), Joined(1, True),
                                                                upload(0))
    run(Seen(1), Tick(), after=60.0)
    assert set(run.state.present) == {1} and run.phase == BIDDING
    assert run(upload(1)).effects == (Aggregate(0, (0, 1), (), (), ()),)


@pytest.mark.parametrize("lost", [Joined(0, True), Left(0), Removed(0), Tick()])
def test_when_every_bidder_is_gone_before_it_uploads_the_round_opens_anew(lost):
    run = Run(TWO_PHASE._replace(deadline_s=1e6))(Joined(0, True), offer(0))
    assert run.phase == UPLOADING
    run(lost, after=60.0)
    assert run.phase == (BIDDING if isinstance(lost, Joined) else WAITING)
    assert run.state.granted is None and not run.state.paused and run.state.error is None
    if not isinstance(lost, Removed):
        assert run(Joined(0, True), offer(0),
                   upload(0)).effects == (Aggregate(0, (0,), (), (), ()),)


def test_the_adaptive_deadline_follows_the_slowest_of_the_last_rounds():
    run = Run(DEADLINE._replace(deadline_s=None, max_rounds=100))(Joined(0, True))
    assert machine.deadline_s(run.state) == machine.FIRST_DEADLINE_S
    seconds_and_deadlines = [(50.0, 200.0)] + [(1.0, 200.0)] * 4 + [(1.0, 10.0), (4.0, 16.0)]
    for round_, (seconds, deadline) in enumerate(seconds_and_deadlines):
        run(upload(0, round_), after=seconds)
        run(closed(), after=0.0)
        assert machine.deadline_s(run.state) == deadline


ADAPTIVE = DEADLINE._replace(deadline_s=None, max_rounds=100)


def play(run, *workers, seconds=1.0):
    """One round to its end: these upload, and the others of three send heartbeats until the
    deadline ends it. Returns what it took.
    """
    started, round_ = run.now, run.state.round
    run(*[upload(worker, round_) for worker in workers], after=seconds)
    while run.phase == BIDDING:
        run(*[Seen(worker) for worker in range(3)])
        run(Tick(),
            after=min(10.0, max(0.0, run.state.phase_at + machine.deadline_s(run.state) - run.now)))
    assert run.phase == AGGREGATING
    run(closed(), after=0.0)
    return run.now - started


def test_a_worker_whose_training_hangs_costs_two_deadlines_and_makes_none_longer():
    run = opened(ADAPTIVE, 3)
    assert [play(run, 0, 1, 2, seconds=5.0) for _ in range(2)] == [5.0, 5.0]
    times = [play(run, 0, 1, seconds=5.0)]
    assert run.effects == (Opened(3),)
    times.append(play(run, 0, 1, seconds=5.0))
    assert run.effects == (LeftOut(2), Opened(4)) and run.state.participants == {
        0, 1
    } and machine.is_left_out(run.state, 2)
    times += [play(run, 0, 1, seconds=5.0) for _ in range(3)]
    assert [round(seconds)
            for seconds in times] == [24, 24, 5, 5, 5] and machine.deadline_s(run.state) == 20.0


@pytest.mark.parametrize("answer", [LateAnswer(2, 0), upload(2, 3), silence(2, 3)])
def test_who_was_left_out_takes_part_again_when_it_answers(answer):
    run = opened(ADAPTIVE, 3)
    for _ in range(3):
        play(run, 0, 1)
    assert run.state.participants == {0, 1}
    run(Seen(2))
    assert machine.is_left_out(run.state, 2), "a sign of life comes from a worker that hangs, too"
    assert run.owes()[2] == "bid", "the round takes its answer, but waits for it no longer"
    run(answer)
    assert not machine.is_left_out(run.state, 2) and run.state.silent == {}
    assert run.state.participants == {0, 1, 2}
    run(upload(0, 3), upload(1, 3), upload(2, 3), closed())
    assert run.state.participants == {0, 1, 2}


def test_who_fetches_every_model_and_answers_none_is_left_out_and_makes_no_deadline_longer():
    """A page that looks on with a worker's token, or a worker whose updates never arrive."""
    run = opened(ADAPTIVE, 3)
    play(run, 0, 1, 2)
    times = []
    for _ in range(8):
        run(Seen(2), after=0.0)
        times.append(play(run, 0, 1))
    assert [round(seconds) for seconds in times] == [10, 10, 1, 1, 1, 1, 1, 1]
    assert machine.deadline_s(run.state) == machine.SHORTEST_DEADLINE_S


def test_who_bids_and_never_uploads_makes_no_deadline_longer_and_is_left_out():
    """Bids are short; a proxy that takes no long body lets them through and no upload."""
    run = opened(ADAPTIVE._replace(two_phase=True), 2)
    run(offer(0), offer(1))
    run(upload(0), upload(1), closed(two_phase=True))
    waited = []
    for round_ in range(1, 7):
        run(offer(1, round_), offer(0, round_))
        granted, started = 1 in run.state.granted, run.now
        run(upload(0, round_))
        while run.phase == UPLOADING:
            run(Seen(0), Seen(1), Tick())
        run(closed(two_phase=True), after=0.0)
        waited.append(run.now - started)
        assert granted and machine.deadline_s(run.state) <= 12.0, "four times the first round"
        assert machine.is_left_out(run.state, 1) == (round_ > 1)
    assert max(waited) <= 13.0
    run(offer(0, 7))
    assert run.phase == UPLOADING, "its bid is not waited for"


def test_an_answer_to_a_round_before_the_first_missed_one_says_nothing():
    """A network may bring the same bytes twice."""
    run = opened(ADAPTIVE, 3)
    play(run, 0, 1, 2)
    for _ in range(2):
        play(run, 0, 1)
    run(LateAnswer(2, 0))
    assert machine.is_left_out(run.state, 2) and machine.deadline_s(run.state) == 10.0
    run(LateAnswer(2, 1))
    assert run.state.silent == {} and machine.deadline_s(run.state) > 40.0


def test_who_was_left_out_and_answers_when_the_verdict_is_there_waits_for_the_next_round():
    run = opened(ADAPTIVE._replace(two_phase=True), 3)
    for round_ in range(2):
        run(offer(0, round_), offer(1, round_))
        while run.phase == BIDDING:
            run(*[Seen(worker) for worker in range(3)])
            run(Tick(), after=10.0)
        run(upload(0, round_), upload(1, round_), closed(two_phase=True))
    run(offer(0, 2), offer(1, 2), LateAnswer(2, 0))
    assert run.phase == UPLOADING and run.state.participants == {0, 1
                                                                 } and run.owes()[2] == "nothing"
    run(upload(0, 2), upload(1, 2), closed(two_phase=True))
    assert run.state.participants == {0, 1, 2}


@pytest.mark.parametrize(
    "sign", [LateAnswer(1, 0), Joined(1, True),
             Joined(1, False),
             upload(1, 2), silence(1, 2)])
def test_when_all_are_left_out_the_run_waits_for_the_first_that_answers_and_wakes_nobody(sign):
    run = opened(ADAPTIVE._replace(min_workers=2), 3)
    for _ in range(2):
        play(run, 0, 2)
    run(Left(2), upload(0, 2))
    assert run.phase == WAITING and machine.is_left_out(run.state, 1) and set(
        run.state.present) == {0, 1}
    for _ in range(20):
        run(Seen(0), Seen(1), Tick(), after=30.0)
        assert run.phase == WAITING and machine.next_wake(run.state) > run.now
    run(sign)
    assert run.state.participants == {0, 1} and Opened(2) in run.effects


def test_what_a_late_worker_took_makes_the_deadline_fit_it():
    run = opened(ADAPTIVE, 3)
    play(run, 0, 1, 2, seconds=1.0)
    for _ in range(5):
        play(run, 0, 1, seconds=1.0)  # the first two wait 10 s for worker 2
    assert machine.deadline_s(run.state) == 10.0
    run(LateAnswer(2, 1), after=0.0)
    took = run.now - 1003.0  # when the second round opened
    assert machine.deadline_s(run.state) == 4.0 * took
    assert play(run, 0, 1, 2, seconds=took) == took


@pytest.mark.parametrize("sign", [Joined(2, True), LateAnswer(2, 1)])
def test_what_a_worker_took_that_was_gone_meanwhile_says_nothing(sign):
    run = opened(ADAPTIVE, 3)
    play(run, 0, 1, 2)
    play(run, 0, 1)
    run(Seen(0), Seen(1), Tick(), after=59.0)
    run(Seen(0), Seen(1), Tick(), after=59.0)
    assert 2 not in run.state.present
    run(sign, after=3600.0)
    assert machine.deadline_s(run.state) == 10.0 and run.state.silent == {}


def test_the_silence_of_who_goes_and_comes_with_heartbeats_only_is_not_forgotten():
    run = opened(ADAPTIVE, 3)
    for _ in range(3):
        play(run, 0, 1)
    for _ in range(2):
        run(Seen(0), Seen(1), Tick(), after=59.0)
    assert 2 not in run.state.present
    run(Seen(2))
    play(run, 0, 1)
    assert run.state.participants == {0, 1}


def test_an_update_that_is_not_finite_is_no_silence():
    run = opened(ADAPTIVE, 3)
    for round_ in range(4):
        run(upload(0, round_), upload(1, round_), nonfinite(2, round_), closed())
    assert run.state.silent == {} and run.state.participants == {0, 1, 2}


def test_a_grant_that_is_not_used_is_a_silence_and_a_refused_bid_is_none():
    run = opened(ADAPTIVE._replace(two_phase=True), 3, grants={0, 1})
    run(*[offer(worker) for worker in range(3)])
    run(upload(0))
    while run.phase == UPLOADING:
        run(*[Seen(worker) for worker in range(3)])
        run(Tick(), after=10.0)
    run(closed(two_phase=True))
    assert set(run.state.silent) == {1}
    run(LateAnswer(1, 0))
    assert run.state.silent == {} and machine.deadline_s(
        run.state) > 2400.0, "it needs longer for its upload than it was given"
    run(*[offer(worker, 1) for worker in range(3)])
    run(upload(0, 1), upload(1, 1), closed(two_phase=True))
    assert run.state.silent == {}


def test_with_quorum_all_nobody_is_left_out():
    run = opened(ALL._replace(max_rounds=100), 3)
    for round_ in range(4):
        run(upload(0, round_), upload(1, round_))
        run(Seen(2), Tick(), after=1e6)
        assert run.phase == BIDDING and run.state.participants == {0, 1, 2}
        run(upload(2, round_), closed())
    assert run.state.silent == {}


@pytest.mark.parametrize("longest, first, later", [(3600.0, 600.0, 3600.0), (300.0, 300.0, 300.0),
                                                   (5.0, 5.0, 5.0)])
def test_no_adaptive_deadline_is_longer_than_the_longest(longest, first, later):
    run = opened(ADAPTIVE._replace(longest_deadline_s=longest), 1)
    assert machine.deadline_s(run.state) == first
    run(upload(0), closed(), after=2000.0)
    assert machine.deadline_s(run.state) == later
    assert machine.deadline_s(
        run(Reconfigured(ADAPTIVE._replace(deadline_s=9e3,
                                           longest_deadline_s=longest))).state) == 9e3


@pytest.mark.parametrize("stop, go_on", [
    ([Paused()], [Resumed()]),
    ([upload(1), StoreFull("full")], [Tick()]),
    ([upload(1), RoundFailed("not finite")], [Resumed()]),
], ids=["pause", "full disk", "not finite"])
def test_what_the_run_stands_still_is_no_duration(stop, go_on):
    run = opened(ADAPTIVE, 2)(upload(0), after=2.0)  # it is open for 1 s
    run(*stop, after=2.0)
    assert machine.round_time_s(run.state, run.now + 3600.0) == 5.0
    run(*go_on, after=3600.0)
    if run.phase == BIDDING:
        run(upload(1), after=2.0)
        assert machine.round_time_s(run.state, run.now) == 7.0
    assert run.phase == AGGREGATING and machine.round_time_s(run.state, run.now + 1.0) <= 8.0
    run(closed())
    assert run.phase == BIDDING and machine.deadline_s(run.state) <= 28.0 and machine.round_time_s(
        run.state, run.now) == 0.0
    run(upload(0, 1), upload(1, 1), after=2.0)
    assert machine.round_time_s(run.state, run.now) == 2.0


# --- what goes wrong


def test_a_full_disk_blocks_and_the_same_round_is_tried_again():
    run = Run(DEADLINE._replace(min_workers=2))(Joined(0, True), Joined(1, True), upload(0),
                                                silence(1))
    asked = run.effects
    run(StoreFull("run.db: no room"))
    assert run.phase == BLOCKED and run.state.error == "run.db: no room" and run.effects == ()
    run(Left(0), Removed(1), Joined(2, True), upload(2))
    assert run.phase == BLOCKED and run.effects == (), "what was answered stands"
    wake = machine.next_wake(run.state)
    assert wake == run.state.phase_at + machine.BLOCKED_RETRY_S
    assert run(Tick(), after=wake - run.now).effects == asked and run.phase == AGGREGATING
    run(closed())
    assert run.state.round == 1 and run.state.error is None


def test_a_round_that_fails_pauses_and_is_tried_again_when_resumed():
    run = Run(DEADLINE)(Joined(0, True), upload(0), RoundFailed("the model is not finite"))
    assert run.phase == BIDDING and run.state.paused
    assert run.state.error == "the model is not finite"
    assert machine.next_wake(run(
        Tick(), after=31.0).state) > run.now, "a paused run does not wake for its deadline"
    run(Resumed())
    assert run.effects == (Aggregate(0, (0,), (), (),
                                     ()),) and not run.state.paused and run.state.error is None


def test_a_round_of_two_phases_that_fails_keeps_its_verdict():
    run = Run(TWO_PHASE, grants={0})(Joined(0, True), offer(0), upload(0), RoundFailed("why"))
    assert run.phase == UPLOADING and run.state.paused
    assert run(Resumed()).effects == (Aggregate(0, (0,), (), (), ()),)


@pytest.mark.parametrize("settings, gone", [(DEADLINE, Left(2)), (DEADLINE, Removed(2)),
                                            (ALL, Removed(2))])
def test_who_went_while_a_round_was_being_closed_is_not_waited_for_when_that_fails(settings, gone):
    run = opened(settings._replace(min_workers=2), 3)(upload(0), upload(1))
    run(StopAsked() if settings is ALL else Tick(), after=30.0)
    assert run.effects == (Aggregate(0, (0, 1), (), (), (2,)),)
    # what matters here is that the round is being closed without worker 2
    run.state = run.state._replace(stopping=False)
    run(gone, RoundFailed("not finite"))
    assert run.state.participants == {0, 1} and run.owes()[2] == "nothing"
    assert run(Resumed()).effects == (Aggregate(0, (0, 1), (), (), ()),)


def test_when_nobody_is_finite_the_run_pauses_and_resuming_asks_again():
    run = Run(DEADLINE._replace(min_workers=2))(Joined(0, True), Joined(1, True), nonfinite(0))
    assert run.phase == BIDDING and not run.state.paused
    run(nonfinite(1))
    assert run.phase == BIDDING and run.state.paused and "finite" in run.state.error
    assert run.effects == (
    )
    run(Resumed())
    assert not run.state.paused and run.state.error is None and run.owes()[0] == run.owes(
    )[1] == "bid"
    assert run(upload(0), nonfinite(1)).effects == (Aggregate(
        0, (0,), (), (), (1,)),), "one that is not finite counts as missing"


def test_resuming_asks_nobody_who_went_while_the_run_paused():
    """Found by a storm: the round waited for who was gone, and nobody else could take part in it.
    """
    run = opened(DEADLINE, 1)(nonfinite(0))
    assert run.state.paused and run(Tick(), after=DEADLINE.worker_timeout_s).state.present == {}
    run(Resumed())
    assert run.phase == WAITING
    assert run(Joined(
        1, True)).phase == BIDDING and run.owes() == {0: "nothing", 1: "bid", 2: "nothing"}


def test_of_two_uploads_the_last_one_counts_even_if_it_is_void():
    run = opened(DEADLINE, 2)(upload(0), nonfinite(0), upload(1))
    assert run.effects == (Aggregate(0, (1,), (), (), (0,)),)


def test_a_granted_upload_that_is_void_is_a_miss():
    run = Run(TWO_PHASE._replace(min_workers=2))(Joined(0, True), Joined(1, True), offer(0),
                                                 offer(1), nonfinite(0))
    assert run.phase == UPLOADING and run.owes()[0] == "nothing" and machine.verdict_so_far(
        run.state, 0) == "skipped"
    assert run(upload(1)).effects == (Aggregate(0, (1,), (), (), (0,)),)


# --- the operator


def test_a_paused_run_takes_answers_and_closes_nothing():
    run = Run(DEADLINE)(Joined(0, True), Paused(), upload(0), Tick(), after=1e3)
    assert run.phase == BIDDING and run.state.paused and 0 in run.state.uploaded
    assert run(Resumed()).effects == (Aggregate(0, (0,), (), (), ()),)


def test_a_run_that_was_paused_between_rounds_goes_on_with_what_came_meanwhile():
    run = Run(DEADLINE)(Joined(0, True), upload(0), Paused(), closed())
    assert run.phase == WAITING and run.effects == () and run.owes()[0] == "bid"
    run(upload(0, 1))
    assert run.phase == WAITING
    assert run(Resumed()).effects == (Opened(1), Aggregate(1, (0,), (), (), ()))


def test_resuming_gives_the_phase_its_time_back():
    run = opened(DEADLINE, 2)(upload(0), Paused())
    run(Seen(0), Seen(1), Resumed(), after=29.0)
    assert run.phase == BIDDING and machine.next_wake(run.state) == run.now + 30.0


@pytest.mark.parametrize("settings, answers, effects", [
    (DEADLINE, [], (Ended(True),)),
    (DEADLINE, [upload(0)], (Aggregate(0, (0,), (), (), (1,)),)),
    (DEADLINE, [silence(0)], (Aggregate(0, (), (0,), (), (1,)),)),
    (DEADLINE, [nonfinite(0)], (Ended(True),)),
    (TWO_PHASE, [offer(0)], (Aggregate(0, (), (), (0,), (1,)),)),
    (ALL, [upload(0), upload(1)], (Aggregate(0, (0, 1), (), (), (2,)),)),
], ids=["nobody", "upload", "silence", "nonfinite", "bid", "all"])
def test_a_stop_closes_the_round_with_what_it_has(settings, answers, effects):
    run = Run(settings._replace(min_workers=2))(
        *[Joined(worker, True) for worker in range(3 if settings is ALL else 2)])
    run(*answers)
    assert run(StopAsked()).effects == effects
    if effects != (Ended(True),):
        assert run(closed()).effects == (Ended(True),)
    assert run.phase == FINISHED and run.state.stopped


def test_a_stop_after_the_verdict_does_not_wait_for_the_rest():
    run = Run(TWO_PHASE._replace(min_workers=2))(Joined(0, True), Joined(1, True), offer(0),
                                                 offer(1), upload(1), StopAsked())
    assert run.effects == (Aggregate(0, (1,), (), (), (0,)),)


@pytest.mark.parametrize(
    "before", [[], [Joined(0, True)], [Joined(0, True), Paused()],
               [Joined(0, True), Joined(1, True),
                upload(0), Paused(), Left(1)]])
def test_a_stop_ends_a_run_that_waits_or_pauses(before):
    run = Run(DEADLINE._replace(min_workers=2))(*before)(StopAsked())
    if run.phase == AGGREGATING:
        run(closed())
    assert run.phase == FINISHED and run.effects == (Ended(True),)


def test_a_stop_ends_a_run_whose_round_cannot_be_computed():
    run = Run(DEADLINE)(Joined(0, True), upload(0), RoundFailed("not finite"), StopAsked())
    assert run.phase == AGGREGATING
    assert run(RoundFailed("not finite")).effects == (
        Ended(True),) and run.phase == FINISHED and run.state.round == 0


def test_the_last_round_of_a_run_that_was_stopped_in_it_was_not_cut_short():
    run = Run(DEADLINE._replace(max_rounds=1))(Joined(0, True), upload(0), StopAsked(), closed())
    assert run.effects == (Ended(False),)


def test_new_settings_count_from_the_next_message_and_two_phases_from_the_next_broadcast():
    run = Run(DEADLINE)(Joined(0, True), Reconfigured(TWO_PHASE._replace(max_rounds=2)))
    assert not run.state.two_phase, "the open round's broadcast said one phase"
    run(upload(0), closed(two_phase=True))
    assert run.state.two_phase and run.phase == BIDDING
    run(offer(0, 1))
    assert run.phase == UPLOADING
    assert run(upload(0, 1), closed(True)).effects == (Ended(False),)


def test_settings_changed_before_the_first_round_opens_do_not_change_what_was_told():
    run = Run(DEADLINE)(Reconfigured(TWO_PHASE), Joined(0, True))
    assert run.phase == BIDDING and not run.state.two_phase
    assert run(upload(0)).phase == AGGREGATING


# --- cohorts

HALVES = ALL._replace(total_workers=4, min_workers=4, cohorts=2, max_rounds=9)
TURNS = DEADLINE._replace(total_workers=4, cohorts=2, max_rounds=9, worker_timeout_s=1e4)


def everybody_joins(settings):
    return Run(settings)(*[Joined(worker, True) for worker in range(4)])


def test_a_round_is_played_by_its_cohort_and_the_others_owe_nothing():
    run = everybody_joins(HALVES)
    assert run.owes() == {0: "bid", 1: "nothing", 2: "bid", 3: "nothing"}
    assert run(upload(1), upload(3)).phase == BIDDING, "nobody asked them"
    assert run(upload(0), upload(2)).effects == (Aggregate(0, (0, 2), (), (), ()),)
    assert run(closed()).owes() == {0: "nothing", 1: "bid", 2: "nothing", 3: "bid"}
    assert run(upload(1, 1), silence(3, 1)).effects == (Aggregate(1, (1,), (3,), (), ()),)


def test_quorum_all_waits_for_all_cohorts_before_the_first_round():
    run = Run(HALVES)(Joined(0, True), Joined(2, True), Joined(1, True))
    assert run.phase == WAITING
    assert run(Joined(3, True)).phase == BIDDING


def test_min_workers_counts_the_cohort():
    run = Run(TURNS._replace(min_workers=2))(Joined(0, True), Joined(1, True))
    assert run.phase == WAITING
    assert run(Joined(2, True)).phase == BIDDING and run.state.participants == {0, 2}


def test_a_cohort_of_which_nobody_is_there_holds_up_the_others_for_one_deadline():
    run = Run(TURNS)(Joined(1, True), Joined(3, True))
    assert run.phase == WAITING and machine.next_wake(run.state) == run.now + 29.0
    assert run(Tick(), after=28.9).phase == WAITING
    assert run(Tick()).effects == (Opened(0), Aggregate(0, (), (), (), ()))
    assert run(closed()).state.participants == {1, 3}
    run(upload(1, 1), upload(3, 1))(closed())
    assert run.phase == WAITING and run(Joined(2, True)).phase == BIDDING
    assert run(upload(2, 2)).effects == (Aggregate(2, (2,), (), (), ()),)


def test_when_no_cohort_is_there_nothing_is_played_and_nobody_is_woken():
    run = everybody_joins(TURNS)(*[Left(worker) for worker in range(4)])
    assert run.phase == WAITING and machine.next_wake(run.state) is None
    assert run(Tick(), after=1e6).phase == WAITING


def test_a_cohort_that_hangs_closes_its_round_with_what_it_has_after_a_deadline():
    run = everybody_joins(TURNS._replace(min_workers=2))(upload(0))
    assert machine.next_wake(run.state) == run.now + 29.0
    assert run(Tick(), after=31.0).effects == (Aggregate(0, (0,), (), (), (2,)),)
    run(closed())(upload(1, 1), upload(3, 1))(closed())
    assert run(Tick(), after=31.0).effects == (Aggregate(2, (), (), (), (0, 2)),)
    run(closed())(upload(1, 3), upload(3, 3))(closed())
    # 2 let two of its turns pass: the next one does not count on it, and 0 alone is too few.
    assert run.phase == WAITING and machine.is_left_out(run.state, 2)
    assert run(Tick(), after=31.0).state.participants == {0} and run.state.short
    assert run(upload(0, 4)).effects == (Aggregate(4, (0,), (), (), ()),)


def test_a_short_round_without_an_answer_survives_a_full_disk_and_a_failure():
    run = Run(TURNS)(Joined(1, True))(Tick(), after=31.0)
    empty = Aggregate(0, (), (), (), ())
    assert run.effects[-1] == empty
    assert run(StoreFull("no room")).phase == BLOCKED
    assert run(Tick(), after=3.0).effects == (empty,)
    assert run(RoundFailed("why")).state.paused and run.phase == BIDDING
    assert run(Resumed()).effects == (empty,)


@pytest.mark.parametrize("last", [0, 2])
def test_with_quorum_all_the_turn_of_a_cohort_that_was_removed_passes_at_once(last):
    run = everybody_joins(HALVES)(Removed(2 - last), upload(last))(closed())
    run(upload(1, 1), upload(3, 1))(closed())
    assert run(Removed(last)).effects == (Opened(2), Aggregate(2, (), (), (), ()))
    assert run(closed()).owes() == {0: "nothing", 1: "bid", 2: "nothing", 3: "bid"}
    run(Removed(1), Removed(3))
    assert run.phase == WAITING and machine.next_wake(run.state) is None


def test_who_was_left_out_and_answers_late_out_of_turn_waits_for_its_turn():
    run = everybody_joins(TURNS._replace(min_workers=2))(Reconfigured(TURNS))
    for round_ in (0, 2):
        run(upload(0, round_))(Tick(), after=31.0)(closed())
        run(upload(1, round_ + 1), upload(3, round_ + 1))(closed())
    assert machine.is_left_out(run.state, 2) and run.state.participants == {0}
    run(upload(0, 4))(closed())(LateAnswer(2, 2))
    assert not machine.is_left_out(run.state, 2) and run.state.participants == {1, 3}
    assert run(upload(1, 5), upload(3, 5))(closed()).state.participants == {0, 2}


# --- many workers


@pytest.mark.parametrize("settings", [DEADLINE, ALL])
def test_an_event_copies_no_entry_for_each_of_many_workers(settings):
    many = 2048
    run = opened(settings._replace(total_workers=many), many)

    def shared(before, after):
        blocks, others = before._blocks, after._blocks
        return sum(others.get(name) is block for name, block in blocks.items())

    for worker in range(64):
        before = run.state
        run(Seen(worker + 64), upload(worker), after=0.0)
        assert shared(before.present, run.state.present) >= many // 64 - 1
        assert shared(before.bids, run.state.bids) >= len(before.bids._blocks) - 1
        assert shared(before.uploaded._map, run.state.uploaded._map) >= len(before.bids._blocks) - 1
        assert run.state.participants is before.participants


def test_a_sign_of_life_of_who_is_there_changes_nothing_else():
    run = Run(DEADLINE._replace(min_workers=3))(Joined(0, True), Joined(1, True))
    before = run.state
    assert run(Seen(1)).state == before._replace(present={0: run.now - 1, 1: run.now})
    run = opened(DEADLINE, 2)(upload(0))
    run(Seen(1), after=100.0)
    assert run.phase == BIDDING, "its deadline is a Tick's"
    assert run(Tick(), after=0.0).phase == AGGREGATING


def test_a_late_answer_can_shorten_the_deadline_and_wakes_who_waits_for_it():
    run = opened(DEADLINE._replace(deadline_s=None), 2)
    run.state = run.state._replace(round=1, durations=(1.0, 1.0, 1.0, 1.0, 100.0),
                                   silent={1: machine.Silence(1, 0, run.now)})
    before = run(upload(0, 1)).state
    run(Seen(0), Seen(1), LateAnswer(1, 0))
    assert machine.deadline_s(before) == 400.0 and machine.deadline_s(run.state) == 10.0
    assert machine.may_wake_earlier(before, LateAnswer(1, 0), run.state)
    assert machine.next_wake(run.state) == run.state.phase_at + 10.0


def test_who_starts_again_is_waited_for_again_and_wakes_who_watches_for_that():
    run = opened(ALL, 3)(upload(0))
    before, told = run.state, frozenset({1, 2})
    run(Joined(0, True))
    assert waits.next_overdue(before, told) is None and waits.next_overdue(run.state, told)
    assert machine.may_wake_earlier(before, Joined(0, True), run.state)


def test_who_was_left_out_and_starts_again_can_bring_the_deadline_of_another_cohort():
    run = opened(DEADLINE._replace(cohorts=2), 1)(Joined(1, True))
    run.state = run.state._replace(silent={1: machine.Silence(machine.LONGEST_SILENCE, 0, None)})
    before = run.state
    run(Joined(1, False))
    assert machine.next_wake(run.state) == before.phase_at + 30.0 < machine.next_wake(before)
    assert machine.may_wake_earlier(before, Joined(1, False), run.state)


# --- storms

WORKERS = st.integers(0, 4)
ARROWS = {
    WAITING: {BIDDING, FINISHED},
    BIDDING: {WAITING, UPLOADING, AGGREGATING, FINISHED},
    UPLOADING: {WAITING, AGGREGATING, FINISHED},
    AGGREGATING: {WAITING, BIDDING, UPLOADING, BLOCKED, FINISHED},
    BLOCKED: {AGGREGATING},
    FINISHED: set(),
}


def settings_of(draw_quorum):
    return st.builds(
        lambda most, least, phases, deadline, cohorts: RoundSettings(
            most, min(least, 4 // cohorts), 4, draw_quorum, phases, deadline, 20.0, 50.0, cohorts),
        st.integers(1, 6), st.integers(1, 4), st.booleans(),
        st.sampled_from([None, 7.0, 15.0, 45.0]), st.integers(1, 4))


class Storm(stateful.RuleBasedStateMachine):
    """Anything in any order. What is checked after every event holds of every state that can be
    reached.

    The shadow is what a master remembers of an open round by itself: who has a session, who
    uploaded, whose bid was nonfinite.
    """

    wait_for_all = False

    @stateful.initialize(data=st.data(), round_=st.integers(0, 2))
    def start(self, data, round_):
        self.draw = data.draw
        self.now = 0.0
        self.state = machine.initial_state(self.draw(settings_of(self.wait_for_all)), self.now,
                                           round_)
        self.sessions, self.closing, self.ended, self.uploads = set(
        ), None, self.state.phase == FINISHED, set()
        self.silences, self.active = dict.fromkeys(range(5), 0), 0.0

    def do(self, event):
        before = self.state
        self.state, effects = machine.step(before, event, self.now)
        self._check(before, event, effects)
        if not machine.may_wake_earlier(before, event, self.state):
            self._check_later(before)
        if not any(isinstance(effect, Select) for effect in effects):
            self._check_waiting(event)
        for effect in effects:
            if isinstance(effect, Select):
                grants = self.draw(
                    st.sets(st.sampled_from([b.worker for b in effect.bids]), min_size=1))
                self.do(Selected({b.worker: b.options[0] for b in effect.bids
                                  if b.worker in grants}))

    def _check(self, before, event, effects):
        state = self.state
        was_closed = isinstance(event, RoundClosed) and before.phase == AGGREGATING
        assert state.round == before.round + was_closed, "rounds only grow, by being closed"
        path = [before.phase
                ] + [WAITING, BIDDING] * any(isinstance(effect, Opened)
                                             for effect in effects) + [state.phase]
        assert all(after == phase or after in ARROWS[phase]
                   for phase, after in zip(path, path[1:])), path
        for effect in effects:
            self._check_effect(before, event, effect)
        self._check_answers(before)
        assert not any(machine.is_left_out(state, worker) for worker in state.participants)
        active = machine.active_s(state, self.now)
        assert (self.active - 1e-6 <= active <=
                self.now + 1e-6), "the run's clock runs on, and no faster than any other"
        assert machine.active_s(
            state, self.now + 9.0) == pytest.approx(active + 9.0 *
                                                    (not state.paused and state.phase != BLOCKED))
        assert machine.deadline_s(state) <= max(50.0, state.settings.deadline_s or 0.0)
        self.active = active
        assert (state.phase == AGGREGATING) == (self.closing is not None and state.phase != BLOCKED)
        assert (state.phase == FINISHED) == self.ended
        assert not state.error or state.paused or state.phase in (BLOCKED, AGGREGATING, FINISHED)

    def _check_later(self, before):
        """Who sleeps until the time that was known before misses nothing."""
        for wake in (machine.next_wake, lambda state: waits.next_overdue(state, frozenset())):
            known, found = wake(before), wake(self.state)
            assert found is None or (known is not None and found >= known)
        assert waits.awaited(self.state) <= waits.awaited(before), "nobody new to be told of"

    def _check_effect(self, before, event, effect):
        state = self.state
        assert not self.ended, "nothing happens after the end"
        if isinstance(effect, Aggregate):
            assert effect.round == state.round
            hung = [
                worker for worker in effect.missing
                if self.silences[worker] >= machine.LONGEST_SILENCE
            ]
            assert self.wait_for_all or not hung, "nobody is waited for a third time"
            groups = (effect.selected, effect.skipped, effect.refused, effect.missing)
            everybody = [worker for group in groups for worker in group]
            assert len(everybody) == len(set(everybody)), "one fate for each"
            assert set(effect.selected) <= self.uploads
            assert not set(effect.refused) & set(state.granted or ())
            assert state.granted is None or set(effect.selected) <= set(state.granted)
            assert before.phase == BLOCKED or not state.paused, "a paused run closes nothing"
            if before.phase == BLOCKED:
                assert set(
                    everybody
                ) >= state.participants and effect == self.closing, "the same round, tried again"
            else:
                assert set(everybody) == state.participants
            self.closing = effect
        elif isinstance(effect, Ended):
            self.ended, self.closing = True, None
            assert state.phase == FINISHED and effect.stopped == (state.round
                                                                  < state.settings.max_rounds)
        elif isinstance(effect, Opened):
            assert not state.participants & state.removed
            assert not state.stopping
            if self.wait_for_all:
                assert state.participants == self.turn() - state.removed - {4}
                assert state.short == (not state.participants)
            else:
                assert state.participants <= self.turn()
                assert state.short == (len(state.participants) < state.settings.min_workers)
            assert not state.short or state.settings.cohorts > 1
        elif isinstance(effect, LeftOut):
            assert not self.wait_for_all and effect.worker in before.participants & set(
                before.present)

    def cohorts(self):
        number = self.state.settings.cohorts
        return [set(range(cohort, 5, number)) for cohort in range(number)]

    def turn(self):
        return self.cohorts()[self.state.round % self.state.settings.cohorts]

    def _check_answers(self, before):
        state = self.state
        assert state.uploaded <= set(state.bids)
        if state.phase in (BIDDING, UPLOADING):
            assert set(state.bids) <= state.participants, "the machine counts them"
        if state.granted is not None:
            assert state.two_phase and state.uploaded <= set(state.granted) <= set(state.bids)
            if before.granted is not None and before.round == state.round:
                assert all(before.granted[worker] == option
                           for worker, option in state.granted.items()), "a grant stands"
        assert set(state.bids) | state.participants <= self.turn()
        for worker in range(5):
            owed, answer = machine.owes(state, worker), machine.verdict_so_far(state, worker)
            assert owed == "nothing" or worker in self.turn()
            assert owed == "nothing" or machine.may_answer(state, worker)
            assert (owed == "bid") <= (answer == "none") and (owed == "upload") <= (answer
                                                                                    == "granted")

    def _check_waiting(self, event):
        """No deadlock, no busy loop."""
        state, wake = self.state, machine.next_wake(self.state)
        answering = state.phase in (WAITING, BIDDING, UPLOADING)
        assert not (state.stopping and answering), "a stop is never forgotten"
        if answering and not state.paused and state.phase != WAITING:
            debtors = {
                worker for worker in state.participants if machine.owes(state, worker) != "nothing"
            }
            assert debtors, "nobody owes anything and nothing happens"
            assert self.wait_for_all or debtors <= set(
                state.present), "nothing is owed by who is gone"
        if state.phase == WAITING and not state.paused:
            present = set(state.present) - state.removed
            if self.wait_for_all:
                everybody = set(range(4)) - state.removed
                assert not everybody or not everybody <= present and state.round == 0
            else:
                least = state.settings.min_workers
                there = {worker for worker in present if not machine.is_left_out(state, worker)}
                assert len(there & self.turn()) < least
                assert max(len(there & cohort) for cohort in self.cohorts()) < least or (
                    self.now < state.phase_at + machine.deadline_s(state))
        assert state.phase != BLOCKED or wake is not None
        if isinstance(event, Tick):
            assert wake is None or wake > self.now

    # workers

    @stateful.rule(worker=st.integers(0, 3), fresh=st.booleans())
    def join(self, worker, fresh):
        if worker in self.state.removed or self.state.phase == FINISHED:
            return
        fresh = fresh or worker not in self.sessions
        self.sessions.add(worker)
        self.silences[worker] = 0
        self._forget(worker, fresh)
        self.do(Joined(worker, fresh))
        assert worker in self.state.present

    @stateful.rule(worker=WORKERS)
    def leave(self, worker):
        if worker in self.sessions:
            self.sessions.discard(worker)
            self._forget(worker, not self.wait_for_all)
            self.do(Left(worker))
            assert worker not in self.state.present

    @stateful.precondition(lambda self: len(self.state.removed) < 2)
    @stateful.rule(worker=WORKERS, luck=st.integers(0, 5))
    def remove(self, worker, luck):
        if luck == 0:
            self.sessions.discard(worker)
            self._forget(worker, True)
            self.do(Removed(worker))

    @stateful.rule(worker=WORKERS)
    def seen(self, worker):
        if worker in self.sessions:
            self.do(Seen(worker))
            assert worker in self.state.present, "whoever shows a sign of life is here"

    @stateful.rule(worker=WORKERS)
    def answers_late(self, worker):
        if worker in self.sessions:
            self.silences[worker] = 0
            self.do(LateAnswer(worker, self.state.round - 1))
            assert worker in self.state.present and not machine.is_left_out(self.state, worker)

    @stateful.rule(worker=WORKERS, shift=st.sampled_from([0, 0, 0, 0, -1, 1]),
                   reason=st.sampled_from(["", "", "lazy", "nonfinite"]))
    def bids(self, worker, shift, reason):
        round_ = self.state.round + shift
        if worker in self.sessions and round_ >= 0:
            self.silences[worker] = 0
            if shift == 0 and self.state.granted is None:
                self._forget(worker, True)
            self.do(BidCame(bid(worker, round_, bool(reason), reason)))

    @stateful.rule(worker=WORKERS, shift=st.sampled_from([0, 0, 0, 0, -1, 1]))
    def uploads_it(self, worker, shift):
        round_ = self.state.round + shift
        if worker in self.sessions and round_ >= 0:
            self.silences[worker] = 0
            if shift == 0:
                self.uploads.add(worker)
            self.do(upload(worker, round_))

    @stateful.rule(data=st.data())
    def answers_what_it_owes(self, data):
        debtors = sorted(worker for worker in self.sessions
                         if machine.owes(self.state, worker) != "nothing")
        if debtors:
            worker = data.draw(st.sampled_from(debtors))
            if machine.owes(self.state, worker) == "upload" or not self.state.two_phase:
                self.uploads_it(worker, 0)
            else:
                self.bids(worker, 0, "")

    def _forget(self, worker, forget):
        """Of what the shadow remembers; once a round is being closed it stands."""
        if forget and self.state.phase in (WAITING, BIDDING, UPLOADING):
            self.uploads.discard(worker)

    # the clock and the driver

    @stateful.rule(seconds=st.floats(0.0, 12.0))
    def time_passes(self, seconds):
        self.now += seconds
        self.do(Tick())

    @stateful.rule()
    def the_driver_wakes(self):
        wake = machine.next_wake(self.state)
        if wake is not None:
            self.now = max(self.now, wake)
            self.do(Tick())

    @stateful.precondition(lambda self: self.state.phase == AGGREGATING)
    @stateful.rule(luck=st.integers(0, 9), two_phase=st.booleans())
    def the_round_is_closed(self, luck, two_phase):
        closing, self.closing = self.closing, None
        if luck == 0:
            self.do(RoundFailed("v is not finite"))
        elif luck <= 2:
            self.closing = closing  # it will be asked for again
            self.do(StoreFull("no room"))
        else:
            self.uploads.clear()
            for missed in closing.missing:
                self.silences[missed] += missed not in self.state.bids or missed in (
                    self.state.granted or ())
            self.do(RoundClosed(two_phase))

    @stateful.precondition(lambda self: self.state.phase not in (BIDDING, AGGREGATING))
    @stateful.rule(event=st.sampled_from(
        [RoundClosed(False),
         RoundFailed("late"),
         StoreFull("late"),
         Selected({0: OPTION})]))
    def a_stray_answer_of_the_driver(self, event):
        answers = self.state.bids, self.state.granted, self.state.uploaded
        self.do(event)
        assert answers == (self.state.bids, self.state.granted, self.state.uploaded)

    # the operator

    @stateful.rule(event=st.sampled_from([Paused(), Resumed(), Resumed(), Resumed()]))
    def pause_or_resume(self, event):
        self.do(event)

    @stateful.rule(luck=st.integers(0, 19))
    def stop(self, luck):
        if luck == 0:
            self.do(StopAsked())
            assert self.state.phase in (AGGREGATING, BLOCKED, FINISHED)

    @stateful.rule(data=st.data())
    def reconfigure(self, data):
        settings, cohorts = data.draw(settings_of(self.wait_for_all)), self.state.settings.cohorts
        self.do(
            Reconfigured(
                settings._replace(max_rounds=max(settings.max_rounds, self.state.round + 1),
                                  cohorts=cohorts,
                                  min_workers=min(settings.min_workers, 4 // cohorts))))

    def teardown(self):
        """After the storm every run ends: workers do what they owe, the driver what it is asked
        for, the operator resumes once.
        """
        if not hasattr(self, "state"):
            return
        for _ in range(12 * (self.state.settings.max_rounds + 4)):
            if self.state.phase == FINISHED:
                return
            if self.state.phase == AGGREGATING:
                self.closing = None
                self.uploads.clear()
                self.do(RoundClosed(self.state.settings.two_phase))
            if self.state.paused and self.state.phase != FINISHED:
                self.pause_or_resume(Resumed())
            for worker in range(4):
                if worker not in self.state.present:
                    self.join(worker, True)
                self.answers_late(worker)
                if worker in self.sessions and machine.owes(self.state, worker) == "bid":
                    self.uploads_it(worker, 0) if not self.state.two_phase else self.bids(
                        worker, 0, "")
                if worker in self.sessions and machine.owes(self.state, worker) == "upload":
                    self.uploads_it(worker, 0)
            self.the_driver_wakes()
            least = 1 if self.wait_for_all else self.state.settings.min_workers
            left = max(len(cohort - self.state.removed - {4}) for cohort in self.cohorts())
            if left < least and not self.state.stopping:
                self.do(StopAsked())
        raise AssertionError(f"the run does not end: {self.state}")


class StormOfAll(Storm):
    wait_for_all = True


for _storm in (Storm, StormOfAll):
    _storm.TestCase.settings = hypothesis.settings(max_examples=number_of(300) // 2,
                                                   stateful_step_count=60)

TestStorm = Storm.TestCase
TestStormOfAll = StormOfAll.TestCase
