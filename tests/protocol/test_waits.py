"""Whom a round waits for, when that is too long, and what would let it go on."""

import pytest

from flq.protocol import round_machine as machine
from flq.protocol import waits
from flq.protocol.round_events import (
    BidCame,
    Joined,
    Left,
    Paused,
    Reconfigured,
    Removed,
    Resumed,
    RoundClosed,
    RoundSettings,
    Seen,
    Selected,
    Tick,
    UploadCame,
)
from flq.records import Bid, Option

SETTINGS = RoundSettings(max_rounds=9, min_workers=1, total_workers=3, wait_for_all=False,
                         two_phase=False, deadline_s=None, worker_timeout_s=60.0,
                         longest_deadline_s=3600.0)
ALL = SETTINGS._replace(min_workers=3, wait_for_all=True)
THREE = SETTINGS._replace(min_workers=3)
OPTION = Option(4, 100, 1.0)
NOBODY = frozenset()


class Run(object):
    """A machine and its clock; workers that are `alive` show a sign of life every 10 s."""

    def __init__(self, settings, *workers):
        self.now, self.alive = 100.0, set(workers)
        self.state = machine.initial_state(settings, self.now)
        self.hear(*[Joined(worker, True) for worker in workers])

    def hear(self, *events):
        for event in events:
            self.state, _ = machine.step(self.state, event, self.now)

    def wait(self, seconds):
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 10.0)
            self.hear(*[Seen(worker) for worker in sorted(self.alive)], Tick())

    def answer(self, *workers):
        self.hear(*[UploadCame(Bid(worker, self.state.round, False, "", (OPTION,), 1.0, 0.0))
                    for worker in workers])

    def play(self, seconds, *workers):
        """A round that takes that long."""
        self.wait(seconds)
        self.answer(*workers)
        self.hear(RoundClosed(self.state.settings.two_phase))

    @property
    def overdue(self):
        return waits.overdue(self.state, self.now)

    @property
    def lack(self):
        return waits.lack(self.state, self.now)


def test_a_round_whose_answers_come_waits_for_nobody_too_long():
    run = Run(ALL, 0, 1, 2)
    run.play(20.0, 0, 1, 2)
    run.wait(30.0)
    assert waits.awaited(run.state) == {0, 1, 2} and run.overdue == NOBODY
    run.answer(0, 1)
    assert waits.awaited(run.state) == {2} and run.overdue == NOBODY


def test_a_killed_worker_is_lost_and_can_be_removed():
    run = Run(ALL, 0, 1, 2)
    run.play(1.0, 0, 1, 2)
    run.alive.discard(2)
    run.answer(0, 1)
    moment = waits.next_overdue(run.state, NOBODY)
    run.wait(moment - run.now - 0.25)
    assert run.overdue == NOBODY
    run.wait(0.25)
    assert run.overdue == {2} and waits.next_overdue(run.state, run.overdue) is None
    assert waits.goes_on_at(run.state) is None and run.lack == waits.Lack(remove=frozenset({2}))
    run.wait(30.0)
    assert waits.is_lost(run.state, 2, run.now) and not waits.is_lost(run.state, 0, run.now)
    run.hear(Removed(2))
    assert run.state.phase == machine.AGGREGATING and run.overdue == NOBODY


def test_a_worker_that_computes_for_twice_as_long_as_the_slowest_is_slow():
    run = Run(ALL, 0, 1, 2)
    run.play(20.0, 0, 1, 2)
    run.answer(0, 1)
    run.wait(39.0)
    assert run.overdue == NOBODY
    run.wait(1.0)
    assert run.overdue == {2} and not waits.is_lost(run.state, 2, run.now)


def test_a_first_round_may_take_as_long_as_its_deadline():
    run = Run(ALL, 0, 1, 2)
    run.wait(machine.FIRST_DEADLINE_S - 1.0)
    assert run.overdue == NOBODY
    run.wait(1.0)
    assert run.overdue == {0, 1, 2} and run.lack == waits.Lack()  # nobody would be left


def test_who_left_with_quorum_all_is_waited_for_and_overdue_without_a_sign_of_life():
    run = Run(ALL, 0, 1, 2)
    run.play(1.0, 0, 1, 2)
    run.hear(Left(1))
    run.alive.discard(1)
    run.answer(0, 2)
    assert waits.awaited(run.state) == {1} and not waits.is_lost(run.state, 1, run.now)
    run.wait(10.0)
    assert run.overdue == {1}


def test_a_deadline_ends_the_wait_by_itself():
    run = Run(SETTINGS._replace(deadline_s=30.0), 0, 1)
    run.play(1.0, 0, 1)
    run.alive.discard(1)
    run.answer(0)
    run.wait(10.0)
    assert run.overdue == {1} and waits.goes_on_at(run.state) == run.state.phase_at + 30.0
    run.wait(20.0)
    assert run.state.phase == machine.AGGREGATING


def test_a_worker_that_is_given_up_before_the_deadline_ends_the_wait():
    run = Run(SETTINGS, 0, 1)
    run.play(40.0, 0, 1)
    run.alive.discard(1)
    run.answer(0)
    run.wait(50.0)
    assert run.overdue == {1} and waits.goes_on_at(run.state) == run.state.present[1] + 60.0
    run.wait(10.0)
    assert run.state.phase == machine.AGGREGATING


def test_a_round_with_too_few_answers_does_not_go_on_until_min_workers_is_lower():
    run = Run(THREE, 0, 1, 2)
    run.play(1.0, 0, 1, 2)
    run.alive.discard(2)
    run.answer(0, 1)
    run.wait(50.0)
    assert run.overdue == {2} and waits.goes_on_at(run.state) is None
    assert run.lack == waits.Lack(lower=("min_workers",), there=2)
    run.wait(20.0)  # it is given up
    assert run.state.phase == machine.WAITING and run.overdue == {2}
    assert run.lack == waits.Lack(lower=("min_workers",), there=2)
    run.hear(Reconfigured(THREE._replace(min_workers=2)))
    assert run.state.phase == machine.AGGREGATING and run.overdue == NOBODY


def test_start_workers_count_before_the_first_round_only():
    run = Run(SETTINGS._replace(start_workers=3), 0, 1)
    assert run.state.phase == machine.WAITING and waits.awaited(run.state) == {2}
    run.wait(39.0)
    assert run.overdue == NOBODY
    run.wait(1.0)
    assert run.overdue == {2} and waits.goes_on_at(run.state) is None
    assert run.lack == waits.Lack(lower=("start_workers",), there=2)
    run.hear(Joined(2, True))
    run.play(1.0, 0, 1, 2)
    run.alive.discard(2)
    for _ in range(3):
        run.wait(61.0)
        run.answer(0, 1)
        run.hear(RoundClosed(False))
    assert run.state.round == 4


def test_both_numbers_are_lowered_where_both_are_too_high():
    run = Run(THREE._replace(start_workers=3), 0, 1)
    assert run.lack == waits.Lack(lower=("start_workers", "min_workers"), there=2)
    run.hear(Reconfigured(THREE._replace(start_workers=2, min_workers=2)))
    assert run.state.phase == machine.BIDDING


def test_start_workers_count_all_cohorts_and_hold_up_no_deadline():
    settings = SETTINGS._replace(total_workers=4, cohorts=2, start_workers=4)
    run = Run(settings, 0, 2, 3)
    run.wait(machine.FIRST_DEADLINE_S + 10.0)
    assert run.state.phase == machine.WAITING and run.overdue == {1}
    wake = machine.next_wake(run.state)
    assert wake is not None and wake > run.now  # the driver does not spin
    run.hear(Joined(1, True))
    assert run.state.phase == machine.BIDDING and run.state.participants == {0, 2}


def test_nobody_there_is_nobody_to_go_on_with():
    run = Run(SETTINGS)
    run.wait(60.0)
    assert run.overdue == {0, 1, 2} and run.lack == waits.Lack()


def test_the_other_cohort_goes_on_after_a_deadline():
    run = Run(SETTINGS._replace(total_workers=4, cohorts=2, deadline_s=50.0), 1, 3)
    run.wait(45.0)
    assert run.overdue == {0, 2} and waits.goes_on_at(run.state) == 150.0
    run.wait(5.0)
    assert run.state.phase in (machine.AGGREGATING, machine.BIDDING)


def test_a_cohort_that_misses_one_counts_its_own_workers():
    settings = SETTINGS._replace(total_workers=4, cohorts=2, min_workers=2)
    run = Run(settings, 0, 1)
    run.wait(40.0)
    assert run.overdue == {2} and run.lack == waits.Lack(lower=("min_workers",), there=1)


def test_only_grants_are_awaited_in_the_second_phase():
    run = Run(ALL._replace(two_phase=True), 0, 1, 2)
    for worker in range(3):
        run.hear(BidCame(Bid(worker, 0, False, "", (OPTION,), 1.0, 0.0)))
    run.hear(Selected({0: OPTION, 1: OPTION}))
    run.answer(0)
    assert run.state.phase == machine.UPLOADING and waits.awaited(run.state) == {1}


def test_a_pause_waits_for_nobody_and_starts_the_wait_anew():
    run = Run(ALL, 0, 1, 2)
    run.play(1.0, 0, 1, 2)
    run.answer(0, 1)
    run.hear(Paused())
    run.wait(1000.0)
    assert run.overdue == NOBODY and waits.next_overdue(run.state, NOBODY) is None
    run.hear(Resumed())
    assert run.overdue == NOBODY
    run.wait(10.0)
    assert run.overdue == {2}


@pytest.mark.parametrize("settings", [ALL, THREE, SETTINGS], ids=["all", "three", "deadline"])
def test_a_run_that_is_over_waits_for_nobody(settings):
    run = Run(settings._replace(max_rounds=1), 0, 1, 2)
    run.play(1.0, 0, 1, 2)
    run.wait(1000.0)
    assert run.state.phase == machine.FINISHED and run.overdue == NOBODY
