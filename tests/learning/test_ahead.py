"""Ahead: a value of the round that was prepared, and of no other."""

import threading

import pytest

from flq.learning.ahead import Ahead


class Made(object):
    """make(worker, round), which tells what it made and can be held up."""

    def __init__(self):
        self.calls, self.go_on = [], threading.Event()
        self.go_on.set()
        self.begun = threading.Event()

    def __call__(self, worker, round_):
        self.begun.set()
        assert self.go_on.wait(60)
        self.calls.append((worker, round_))
        return worker, round_


@pytest.fixture
def make():
    return Made()


@pytest.fixture
def ahead(make):
    return Ahead(make)


def test_what_was_prepared_is_given_once(ahead, make):
    ahead.prepare(0, 5)
    assert make.begun.wait(60)
    assert ahead.take(0, 5) == (0, 5)
    assert ahead.take(0, 5) is None
    assert make.calls == [(0, 5)]


def test_prepare_returns_before_the_value_is_there(ahead, make):
    make.go_on.clear()
    ahead.prepare(0, 5)
    assert make.begun.wait(60) and make.calls == []
    make.go_on.set()
    assert ahead.take(0, 5) == (0, 5)


@pytest.mark.parametrize("asked", [(0, 4), (0, 6), (1, 5)])
def test_another_round_or_worker_gets_nothing(ahead, make, asked):
    ahead.prepare(0, 5)
    assert make.begun.wait(60)
    assert ahead.take(*asked) is None


def test_a_round_that_is_not_played_is_dropped(ahead, make):
    """A worker that was away for a while: its next round is another one than was expected."""
    ahead.prepare(0, 5)
    assert make.begun.wait(60)
    assert ahead.take(0, 9) is None
    assert ahead.take(0, 5) is None


def test_of_a_worker_one_value_is_kept(ahead, make):
    make.go_on.clear()
    ahead.prepare(0, 5)
    assert make.begun.wait(60)
    ahead.prepare(1, 5)
    ahead.prepare(1, 6)
    ahead.prepare(1, 7)
    ahead.prepare(1, 7)
    make.go_on.set()
    ahead.prepare(2, 8)
    while (2, 8) not in make.calls:
        make.begun.wait(0.01)
    assert make.calls == [(0, 5), (1, 7), (2, 8)]
    assert (ahead.take(1, 6), ahead.take(1, 7)) == (None, None)


def test_what_nobody_has_begun_with_is_not_waited_for(ahead, make):
    make.go_on.clear()
    ahead.prepare(0, 5)
    assert make.begun.wait(60)
    ahead.prepare(1, 5)
    assert ahead.take(1, 5) is None
    make.go_on.set()
    assert ahead.take(0, 5) == (0, 5)
    assert make.calls == [(0, 5)]


def test_what_fails_fails_where_it_is_asked_for():
    begun = threading.Event()

    def fail(worker, round_):
        begun.set()
        raise MemoryError("no room")

    ahead = Ahead(fail)
    ahead.prepare(0, 5)
    assert begun.wait(60)
    with pytest.raises(MemoryError, match="no room"):
        ahead.take(0, 5)


def test_who_ends_the_process_learns_whether_something_is_made(ahead, make):
    """Python waits for it: a process that is told to end then has to end beside it."""
    assert not ahead.is_busy()
    make.go_on.clear()
    ahead.prepare(0, 5)
    assert make.begun.wait(60)
    ahead.prepare(1, 5)
    assert ahead.take(1, 5) is None and ahead.take(0, 9) is None  # dropped, and still made
    assert ahead.is_busy()
    make.go_on.set()
    ahead.prepare(2, 5)
    assert ahead.take(2, 5) in (None, (2, 5))
    while ahead.is_busy():
        make.begun.wait(0.01)
    assert (0, 5) in make.calls
