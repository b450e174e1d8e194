"""Workers that take turns on a few threads."""

import threading

import pytest

from flq.errors import DataError, FlqError
from flq.simulation.pool import run_pool
from flq.worker.loop import Done


class Service:
    """What a pool needs of a service."""

    def __init__(self):
        self.changed, self.news = threading.Condition(threading.RLock()), 0

    def tell_news(self):
        with self.changed:
            self.news += 1
            self.changed.notify_all()


class Scripted:
    """A worker that does what its script says: each entry is what `advance` gives or raises."""

    def __init__(self, worker, script, begins=lambda: None):
        self.worker, self._script, self._begins = worker, iter(script), begins
        self._stopped, self.busy = False, 0

    def advance(self):
        self.busy += 1
        assert self.busy == 1, "one thread at a time"
        try:
            if self._stopped:
                return Done(0)
            self._begins()
            entry = next(self._script)
            if isinstance(entry, Exception):
                raise entry
            return entry() if callable(entry) else entry
        finally:
            self.busy -= 1

    def stop(self):
        self._stopped = True

    def leave(self):
        """Nobody waits for it."""


def endless(entry):
    while True:
        yield entry


def played(workers, service=None, num_threads=2, **keywords):
    return run_pool(workers, service or Service(), num_threads, lambda: None, False, **keywords)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_all_come_to_their_end_and_the_largest_code_counts(num_threads):
    scripts = [[Done(), Done(pause_s=0.001), Done(code)] for code in (0, 3, 0, 0, 0)]
    assert played([Scripted(worker, script) for worker, script in enumerate(scripts)],
                  num_threads=num_threads) == (3, True)


def test_no_more_threads_than_were_asked_for():
    names, most = set(), []

    def begins():
        names.add(threading.current_thread().name)
        most.append(1)

    workers = [Scripted(worker, [Done(), Done(waits=True), Done(0)], begins)
               for worker in range(40)]
    assert played(workers) == (0, True) and len(names) <= 2 and len(most) == 120


def test_who_waits_is_asked_again_when_there_is_news_and_after_all_others():
    service, order = Service(), []

    def noted(worker, done, tells=False):
        def entry():
            order.append(worker)
            if tells:
                service.tell_news()
            return done
        return entry

    workers = [Scripted(worker, [noted(worker, Done(waits=True), tells=True),
                                 noted(worker, Done(0))]) for worker in range(4)]
    assert played(workers, service, num_threads=1) == (0, True)
    assert order[:4] == [0, 1, 2, 3] and sorted(order[4:]) == [0, 1, 2, 3]


def test_news_that_come_while_a_worker_asks_are_not_lost():
    service = Service()

    def missed():
        service.tell_news()  # between the question and the end of the turn
        return Done(waits=True)

    assert played([Scripted(0, [missed] * 50 + [Done(0)])], service) == (0, True)


@pytest.mark.parametrize("error, code", [(DataError("damaged"), 4), (ValueError("a bug"), 1)])
def test_a_worker_that_fails_ends_the_others(error, code, caplog):
    workers = [Scripted(0, endless(Done(waits=True))), Scripted(1, [Done(), error]),
               Scripted(2, endless(Done(pause_s=3600.0)))]
    assert played(workers) == (code, True)
    assert any("worker 1" in message for message in caplog.messages) and str(error) in caplog.text


def test_the_callers_thread_sees_whose_run_is_not_over_and_can_end_it():
    seen = []

    def wait(living):
        seen.append(living)
        if len(living) == 1:
            raise FlqError("enough")

    workers = [Scripted(0, endless(Done(waits=True))), Scripted(1, [Done(0)])]
    with pytest.raises(FlqError):
        played(workers, wait=wait)
    assert seen[-1] == [0] and workers[0]._stopped
