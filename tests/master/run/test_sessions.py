"""Sessions: one live process for each worker id, who takes its place, and what an old session is
told.
"""

import pytest

from flq.errors import ProtocolError
from flq.master.run.sessions import LongPolls, Sessions

TIMEOUT_S = 60.0


def refused(name, call, *arguments):
    with pytest.raises(ProtocolError) as refusal:
        call(*arguments)
    assert refusal.value.name == name
    return refusal.value


@pytest.fixture
def sessions():
    return Sessions()


def test_a_session_is_known_by_its_token_alone(sessions):
    first, second = sessions.open(0, "a", False, 0.0,
                                  TIMEOUT_S), sessions.open(1, "b", False, 0.0, TIMEOUT_S)
    assert first.token != second.token and len(first.token) >= 20
    assert sessions.get(first.token, 1.0) == first and sessions.get(second.token, 1.0) == second
    for token in ("", "a", first.token + "x", first.token[:-1]):
        refused("unknown_session", sessions.get, token, 1.0)


def test_another_process_is_refused_while_the_first_shows_signs_of_life(sessions):
    first = sessions.open(0, "a", False, 0.0, TIMEOUT_S)
    sessions.get(first.token, 30.0)
    refusal = refused("worker_id_in_use", sessions.open, 0, "b", False, 89.0, TIMEOUT_S)
    assert "59.0 s ago" in refusal.got and "--take_over" in refusal.hint
    sessions.check(first)
    second = sessions.open(0, "b", False, 90.0, TIMEOUT_S)
    sessions.check(second)
    refused("session_superseded", sessions.check, first)
    refused("session_superseded", sessions.get, first.token, 91.0)


def test_take_over_asks_nobody(sessions):
    first = sessions.open(0, "a", False, 0.0, TIMEOUT_S)
    second = sessions.open(0, "b", True, 0.0, TIMEOUT_S)
    refused("session_superseded", sessions.get, first.token, 1.0)
    assert sessions.get(second.token, 1.0) == second


def test_the_same_process_takes_its_own_place_at_once(sessions):
    first = sessions.open(0, "a", False, 0.0, TIMEOUT_S)
    second = sessions.open(0, "a", False, 0.0, TIMEOUT_S)
    assert sessions.get(second.token, 1.0) == second
    refused("unknown_session", sessions.get, first.token, 1.0)


def test_who_left_is_unknown_and_its_place_is_free(sessions):
    first = sessions.open(0, "a", False, 0.0, TIMEOUT_S)
    sessions.end(0)
    sessions.end(0)
    sessions.end(7)
    refused("unknown_session", sessions.get, first.token, 1.0)
    assert sessions.get(sessions.open(0, "b", False, 1.0, TIMEOUT_S).token, 1.0).instance == "b"


def test_signs_of_life_are_remembered(sessions):
    sessions.open(2, "a", False, 5.0, TIMEOUT_S)
    first = sessions.open(1, "b", False, 5.0, TIMEOUT_S)
    sessions.get(first.token, 9.0)
    assert (sessions.last_seen(1), sessions.last_seen(2), sessions.last_seen(3)) == (9.0, 5.0, None)
    assert [sorted(sessions.seen_since(moment)) for moment in (4.0, 5.0, 9.0)] == [[1, 2], [1], []]
    sessions.end(1)
    assert list(sessions.seen_since(0.0)) == [2] and sessions.last_seen(1) == 9.0


def test_a_worker_that_does_nothing_but_register_is_told_to_wait(sessions):
    for number in range(60):
        sessions.open(0, "a", False, 0.1 * number, TIMEOUT_S)
    error = refused("too_many_requests", sessions.open, 0, "a", False, 7.0, TIMEOUT_S)
    assert error.retry_after_s
    sessions.open(1, "b", False, 7.0, TIMEOUT_S)
    sessions.open(0, "a", False, 60.0, TIMEOUT_S)


def test_the_newest_long_poll_of_a_kind_counts():
    polls, woken = LongPolls(), []
    with polls.newest(("s", True), lambda: woken.append(1)) as first:
        assert first() and not woken
        with polls.newest(("s", False), lambda: woken.append(1)) as other:
            with polls.newest(("s", True), lambda: woken.append(1)) as second:
                assert woken == [1] and second() and other() and not first()
            assert not first(), "it is over all the same"
    assert polls._newest == {}
