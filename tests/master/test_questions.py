"""Questions that wait without a thread: each is answered once, when it should be."""

import queue
import threading
import time

import pytest

from flq.errors import ProtocolError
from flq.master.questions import Questions
from flq.master.run.run import PENDING, Question
from flq.master.run.sessions import Session

PATIENCE_S = 30.0


class Desk:
    """Questions of workers, and what the run would say to each now."""

    def __init__(self):
        self.changed, self.answers = threading.Condition(threading.RLock()), {}
        self.asked, self.told, self.answered = [], queue.Queue(), []
        self.questions = Questions(self.changed, self._ask, time.monotonic)
        self.questions.start()

    def _ask(self, question, last):
        self.asked.append(question)
        found = self.answers.get(question, PENDING)
        if isinstance(found, Exception):
            raise found
        return found() if callable(found) else "in vain" if found is PENDING and last else found

    def put(self, question, wait_s=PATIENCE_S):
        with self.changed:
            return self.questions.answer(
                question, wait_s, lambda *told: self._tell((question, *told)))

    def _tell(self, told):
        self.answered.append(told[0])
        self.told.put(told)

    def answer(self, question, found, worker=None):
        with self.changed:
            self.answers[question] = found
            self.questions.ask_again(worker)

    def next(self):
        return self.told.get(timeout=PATIENCE_S)

    def close(self):
        self.questions.close()
        assert len(set(self.answered)) == len(self.answered), "nobody is told twice"


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.close()


def question(worker, round_=None, token="token"):
    return Question(Session(f"{token}-{worker}", worker, ""), round_)


def test_what_can_be_said_at_once_is_and_nothing_is_told_later(desk):
    desk.answers[question(0)] = "now"
    assert desk.put(question(0)) == "now" and desk.put(question(1), 0.0) == "in vain"


def test_news_are_told_to_those_whom_they_decide(desk):
    assert [desk.put(question(worker, round_)) for worker in range(3)
            for round_ in (None, 4)] == [PENDING] * 6
    desk.answer(question(1, 4), "accepted")
    assert desk.next() == (question(1, 4), "accepted", None)
    refusal = ProtocolError("finished", "the run is finished")
    desk.answer(question(2), refusal)
    assert desk.next() == (question(2), None, refusal)


def test_no_thread_waits_and_none_is_made(desk):
    before = threading.active_count()
    for worker in range(2000):
        assert desk.put(question(worker)) is PENDING
    assert threading.active_count() == before
    with desk.changed:
        desk.answers.update((question(worker), worker) for worker in range(2000))
        desk.questions.ask_again()
    assert [desk.next()[1] for _ in range(2000)] == list(range(2000))


def test_after_its_time_a_question_is_answered_with_what_can_be_said(desk):
    assert desk.put(question(0)) is PENDING and desk.put(question(1), 0.02) is PENDING
    assert desk.next() == (question(1), "in vain", None)


def test_the_newest_of_a_kind_waits_and_the_older_one_does_not(desk):
    older, newer = question(0, 3), question(0, 4)
    for one in (older, question(0), newer):
        assert desk.put(one) is PENDING
    assert desk.next() == (older, "in vain", None)
    desk.answer(newer, "refused")
    assert desk.next() == (newer, "refused", None)


def test_what_ends_one_workers_session_asks_for_that_worker_alone(desk):
    for worker in range(3):
        assert desk.put(question(worker)) is PENDING
    del desk.asked[:]
    gone = ProtocolError("unknown_session", "this session is not known here")
    desk.answer(question(1), gone, worker=1)
    assert desk.next() == (question(1), None, gone) and desk.asked == [question(1)]


def test_an_answer_that_ends_the_workers_questions_is_told_once(desk):
    """As that of a run that is over, which is news of that worker."""
    def over():
        desk.questions.ask_again(0)
        raise ProtocolError("finished", "the run is finished")

    assert desk.put(question(0)) is PENDING
    desk.answer(question(0), over)
    told = desk.next()
    assert told[0] == question(0) and told[2].name == "finished"


def test_the_end_answers_everybody(desk):
    for worker in range(3):
        assert desk.put(question(worker)) is PENDING
    desk.questions.close()
    assert sorted(desk.next()[0].session.worker for _ in range(3)) == [0, 1, 2]
    assert desk.put(question(7)) == "in vain"


def test_the_end_answers_also_whose_session_ends_meanwhile(desk):
    for worker in range(2):
        assert desk.put(question(worker)) is PENDING

    def leaves():
        """While the last questions are answered, worker 1 says goodbye."""
        desk.questions.ask_again(1)
        return "at the end"

    desk.answers[question(0)] = leaves
    desk.questions.close()
    assert desk.told.qsize() == 2


def test_one_that_cannot_be_told_keeps_nobody_waiting(desk, caplog):
    with desk.changed:
        desk.questions.answer(question(0), PATIENCE_S, lambda found, error: 1 / 0)
    assert desk.put(question(1)) is PENDING
    with desk.changed:
        desk.answers.update({question(0): "x", question(1): "y"})
        desk.questions.ask_again()
    assert desk.next() == (question(1), "y", None) and "worker 0 was not answered" in caplog.text


def test_questions_that_came_and_went_are_forgotten(desk):
    for number in range(1000):
        for worker in range(3):
            desk.put(question(worker, token=str(number)), 1000.0)
    for _ in range(2997):
        assert desk.next()[1] == "in vain"
    with desk.changed:
        assert len(desk.questions._ends) <= 100
    for worker in range(3):
        desk.answer(question(worker, token="999"), "now")
        assert desk.next() == (question(worker, token="999"), "now", None)


def test_those_whose_time_is_over_end_in_their_order_and_the_others_wait(desk):
    desk.put(question(0), PATIENCE_S)
    for worker, wait_s in ((1, 0.3), (2, 0.1), (3, 0.2)):
        desk.put(question(worker), wait_s)
    assert [desk.next() for _ in range(3)] == [
        (question(worker), "in vain", None) for worker in (2, 3, 1)]
    desk.answer(question(0), "at last")
    assert desk.next() == (question(0), "at last", None)
