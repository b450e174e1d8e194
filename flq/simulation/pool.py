"""Workers that take turns on a few threads, in the place of a thread for each of them."""

from __future__ import annotations

import collections
import functools
import heapq
import itertools
import threading
import time
from typing import Callable, Sequence

from flq.master.service import Service
from flq.simulation.local_client import LONGEST_WAIT_S
from flq.worker.loop import Worker
from flq.worker.process import Running, Wait


def run_pool(workers: Sequence[Worker], service: Service, num_threads: int,
             interrupted: Callable[[], None], take_signals: bool,
             wait: Wait | None = None) -> tuple[int, bool]:
    """What run_threads does, with so many threads. The workers' clients must not wait themselves.
    """
    pool = Pool(workers, service)

    def end_all() -> None:
        interrupted()
        pool.hurry()

    running = Running(workers, end_all)
    threads = [
        threading.Thread(target=pool.work, args=(running,), name=f"workers-{number}", daemon=True)
        for number in range(num_threads)
    ]
    return running.until_they_end(threads, pool.living, take_signals, wait)


class Pool:
    """Whose turn it is. A worker that comes to the front goes on until the run has nothing new for
    it: a model comes, it trains, its upload is sent. It then waits for news of the run.

    Who waits is asked again only when nobody is ready: all have had their turn then, however often
    there was news. Guarded by the service's lock, on whose condition threads without work wait.
    """

    def __init__(self, workers: Sequence[Worker], service: Service) -> None:
        self._service = service
        self._living = {worker.worker: worker for worker in workers}
        self._ready = collections.deque(workers)
        self._waiting: list[Worker] = []  # for news beyond those that `_heard` counts
        self._heard = service.news
        self._paused: list[tuple[float, int, Worker]] = []  # a heap by when the pause ends
        self._ticket = itertools.count()
        self._hurried = False

    def living(self) -> list[int]:
        """Whose run is not over."""
        with self._service.changed:
            return list(self._living)

    def hurry(self) -> None:
        """Nobody waits or pauses any more. Returns at once, also in a signal's handler."""
        with self._service.changed:
            self._hurried = True
            self._service.changed.notify_all()

    def work(self, running: Running) -> None:
        """What each thread does: turn after turn, until every worker's run is over."""
        while True:
            worker = self._next()
            if worker is None:
                return
            if running.attempt(worker, functools.partial(self._turn, worker, running)) is None:
                # it failed
                self._over(worker)

    def _turn(self, worker: Worker, running: Running) -> bool:
        while True:
            heard = self._service.news
            done = worker.advance()
            if done.code is not None:
                running.ended(done.code)
                self._over(worker)
                return True
            if done.waits or done.pause_s is not None:
                self._leave(worker, heard, done.pause_s)
                return True

    def _next(self) -> Worker | None:
        changed = self._service.changed
        with changed:
            while self._living:
                now = time.monotonic()
                while self._paused and (self._hurried or self._paused[0][0] <= now):
                    self._ready.append(heapq.heappop(self._paused)[2])
                if not self._ready and (self._hurried or self._heard != self._service.news):
                    self._ask_again()
                if self._ready:
                    return self._ready.popleft()
                until = self._paused[0][0] - now if self._paused else LONGEST_WAIT_S
                if not changed.wait(min(until, LONGEST_WAIT_S)):
                    self._ask_again()  # an error of the run wakes nobody
            return None

    def _ask_again(self) -> None:
        self._heard = self._service.news
        self._ready.extend(self._waiting)
        self._waiting.clear()

    def _leave(self, worker: Worker, heard: int, pause_s: float | None) -> None:
        """The turn of a worker ends. heard: the news that there were when it asked."""
        with self._service.changed:
            if pause_s is not None:
                heapq.heappush(self._paused,
                               (time.monotonic() + pause_s, next(self._ticket), worker))
            elif heard == self._service.news:
                self._waiting.append(worker)
            else:
                self._ready.append(worker)

    def _over(self, worker: Worker) -> None:
        with self._service.changed:
            self._living.pop(worker.worker, None)
            if not self._living:
                self._service.changed.notify_all()
