"""Long polls of people: when they are answered, and what they cost the others."""

import json
import threading
import time

import pytest

from flq.master.http import viewers
from flq.master.http.viewers import Viewers

PATIENCE_S = 30.0


class Asking(threading.Thread):
    """A request that waits; `answer` is there once it has ended."""

    def __init__(self, watched, seen, wait_s=PATIENCE_S):
        super().__init__(daemon=True)
        self.answer = None
        self._ask = lambda: json.loads(watched.status(seen, wait_s))
        self.start()

    def run(self):
        self.answer = self._ask()

    def end(self):
        self.join(PATIENCE_S)
        assert self.answer is not None
        return self.answer


@pytest.fixture
def run(start):
    return start("total_workers=2", "quorum=all", "max_rounds=9")


@pytest.fixture
def watched(run):
    return Viewers(run.service)


def news(watched):
    return json.loads(watched.status("", 0.0))["news"]


@pytest.mark.parametrize("happen", [
    lambda run, hands: run.play(*hands), lambda run, hands: run.service.pause(),
    lambda run, hands: run.service.remove(1), lambda run, hands: hands[0].leave(),
    lambda run, hands: run.service.stop(), lambda run, hands: run.service.halt(),
    lambda run, hands: run.service.change({"max_rounds": 12}, by="test"),
], ids=["round", "pause", "removal", "leave", "stop", "end", "change"])
def test_whoever_waits_hears_of_it_at_once(run, watched, happen):
    hands = run.hands(0, 1)
    asking = Asking(watched, news(watched))
    happen(run, hands)
    asking.end()


def test_an_overdue_worker_is_news(run, watched):
    run.hands(0)
    asking = Asking(watched, news(watched))
    run.advance(100.0)
    assert asking.end()["stall"]["workers"] == [1]


def test_an_answer_to_the_open_round_is_none_until_the_time_is_over(run, watched):
    first, _ = run.hands(0, 1)
    before = news(watched)
    first.train()
    first.upload()
    run.clock.now += 1.0  # a viewer's answer is old by then
    answer = json.loads(watched.status(before, 0.0))
    assert answer["news"] == before and answer["pending_updates"] == 1


def test_an_answer_is_made_once_for_all_and_again_when_there_is_news(run, watched):
    hands = run.hands(0, 1)
    answer = watched.status("", 0.0)
    assert watched.status("", 0.0) is answer
    run.clock.now += 1.0
    assert watched.status("", 0.0) is not answer
    answer = watched.status("", 0.0)
    run.play(*hands)
    assert watched.status("", 0.0) is not answer


def test_another_process_of_the_master_has_news(run, watched):
    assert news(watched) != news(Viewers(run.service))


def test_only_some_wait_and_the_next_is_answered_at_once(run, watched, monkeypatch):
    run.hands(0, 1)
    before = news(watched)
    waiting = [Asking(watched, before) for _ in range(viewers.MOST_WAITING)]
    deadline = time.monotonic() + PATIENCE_S
    while watched._waiting._value and time.monotonic() < deadline:
        time.sleep(0.01)
    assert json.loads(watched.status(before, PATIENCE_S * 10))["news"] == before
    run.service.pause()
    assert all(asking.end()["paused"] for asking in waiting)
    Asking(watched, news(watched), 0.01).end()  # there is room again
