"""One process with one or many workers: the master's configuration, one learner, a thread each."""

import logging
import re
import signal
import threading
import time
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

from flq import config as configuration
from flq import idle_keys, tokens
from flq.algorithm import uplink
from flq.errors import ConfigError, FlqError, ProtocolError, UnreachableError
from flq.host import arithmetic, heap, jetson, open_files, private_files, signals
from flq.learning.interface import Learner
from flq.protocol import PROTOCOL_VERSION, frames
from flq.protocol.messages import Hello, Question
from flq.settings import Config
from flq.worker import trust
from flq.worker.client import MasterClient
from flq.worker.loop import Worker
from flq.worker.master_client import LONGEST_JSON, HttpClient
from flq.worker.next_step import TOKEN_AGAIN, trying_again
from flq.worker.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S
from flq.worker.received import SharedModels
from flq.worker.state_file import StateFile, state_directory

_log = logging.getLogger("flq.worker")

BuildLearner = Callable[[Config, Sequence[int]], Learner]
Wait = Callable[[Sequence[int]], None]
Result = TypeVar("Result")


class Options(NamedTuple):
    """The command line of flq_worker.py. own: the worker's file, for its local keys; cafile: None
    for the CAs of requests; cert, key: this client's own certificate, None where it has none.
    allow: what --allow adds to security.allow.
    """

    workers: Sequence[int]
    master_url: str
    own: configuration.Loaded
    token_file: Optional[str]
    retry_for_s: Optional[float]
    take_over: bool
    state_dir: Optional[str]
    cafile: Optional[str]
    cert: Optional[str] = None
    key: Optional[str] = None
    allow: Sequence[str] = ()


def parse_workers(text: str) -> List[int]:
    """`3` or `0-15` -> worker ids. Raises ConfigError."""
    found = re.match(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z", text)
    if not found:
        raise ConfigError("--worker_id cannot take this value",
                          "a number like 3 or a range like 0-15", text[:60])
    low, high = int(found.group(1)), int(found.group(2) or found.group(1))
    if high < low or high > 65535:
        raise ConfigError("--worker_id cannot take this value",
                          "ids from 0 to 65535, smallest first", text)
    return list(range(low, high + 1))


def run(options: Options, build_learner: BuildLearner) -> int:
    """Run all workers of the process to the end of the run and return the exit code.

    build_learner(config, workers) -> a learner; it is called once, with the master's configuration.
    """
    heap.keep_freed_memory(one_arena=True)
    allow = [*options.own.config.security.allow, *options.allow]
    trust.check_entries(allow)
    path = tokens.token_path(options.token_file)
    doubt = private_files.warning(path, "this worker's token")
    if doubt:
        _log.warning("%s", doubt)
    hello = _hello(options, path)
    config = configuration.adopt(hello.config, options.own,
                                 lambda shared: trust.check(shared, options.own, allow))
    for line in idle_keys.without_effect(config, options.own.explicit):
        _log.warning("%s", line)
    _check_ids(options.workers, config.system.total_workers)
    # of each worker a state file that is locked, and a connection
    open_files.allow(2 * len(options.workers), f"{len(options.workers)} workers")
    learner = build_learner(config, options.workers)
    heap.give_back_free_memory()
    settings, directory = uplink.settings_from(config,
                                               learner.layout), state_directory(options.state_dir)
    models = SharedModels(learner, config, hello.run_id, len(options.workers))
    longest = max(frames.longest_answer(learner.layout), 4 * learner.layout.num_constants)
    workers = [
        Worker(worker, _client(options, longest), learner, config,
               hello.run_id, StateFile(directory, worker, learner.layout, settings),
               _token_reader(path, worker), options.take_over, options.retry_for_s, models)
        for worker in options.workers
    ]
    heartbeats = Heartbeats(workers, _client(options), config)
    heartbeats.start()
    try:
        code, all_ended = run_threads(workers, is_working=learner.is_preparing)
    finally:
        heartbeats.stop()
    if not all_ended:
        signals.end_now(code)
    return code


def run_threads(workers: Sequence[Worker], interrupted: Callable[[], None] = lambda: None,
                take_signals: bool = True, wait: Optional[Wait] = None,
                is_working: Callable[[], bool] = lambda: False) -> Tuple[int, bool]:
    """A thread for each worker; SIGTERM and SIGINT let them leave. The largest exit code counts.

    Returns it and whether all threads have ended: after a signal nobody waits longer than 3 s for
    them. is_working() -> whether another thread computes for them, which counts as one of theirs.
    A worker that fails, rather than being refused, ends the others of its process too: whoever
    supervises it must hear of it. interrupted() is called before the workers are told to end, by a
    signal, because one failed or because the caller's thread did. take_signals False leaves the
    handlers of the process as they are; where the caller's thread then raises, KeyboardInterrupt
    for one, the workers are told to end and it goes on from here. wait(workers whose threads live)
    is called in the caller's thread again and again, whenever it has returned.
    """
    running = Running(workers, interrupted, is_working)

    def body(worker: Worker) -> None:
        code = running.attempt(worker, worker.run)
        if code is not None:
            running.ended(code)

    threads = [
        threading.Thread(target=body, args=(worker,), name=f"worker-{worker.worker}", daemon=True)
        for worker in workers
    ]

    def living() -> List[int]:
        return [worker.worker for thread, worker in zip(threads, workers) if thread.is_alive()]

    return running.until_they_end(threads, living, take_signals, wait)


class Running(object):
    """Workers that run on threads of this process, to the exit code.

    interrupted() is called before the workers are told to end. is_working: as of run_threads.
    """

    def __init__(self, workers: Sequence[Worker], interrupted: Callable[[], None],
                 is_working: Callable[[], bool] = lambda: False) -> None:
        self._workers, self._interrupted, self._is_working = workers, interrupted, is_working
        self._codes: List[int] = []

    def attempt(self, worker: Worker, part: Callable[[], Result]) -> Optional[Result]:
        """What a part of a worker's run gives; where it fails None, and all of them end."""
        try:
            return part()
        except FlqError as error:
            _log.error("worker %d: %s", worker.worker, error)
            self._fail(error.exit_code)
        except Exception:  # every failure of a thread must reach the exit code
            _log.exception("worker %d failed", worker.worker)
            self._fail(1)
        return None

    def ended(self, code: int) -> None:
        """A worker's run is over."""
        self._codes.append(code)

    def until_they_end(self, threads: Sequence[threading.Thread], living: Callable[[], List[int]],
                       take_signals: bool, wait: Optional[Wait]) -> Tuple[int, bool]:
        """Start the threads and give what run_threads gives. living() -> whose run is not over."""
        stopping = threading.Event()

        def stop(number: int, frame: Any) -> None:
            stopping.set()
            self._end_all()

        if take_signals and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
        for thread in threads:
            thread.start()
        alive = list(threads)
        try:
            while alive and not stopping.is_set():
                if wait is None:
                    alive[0].join(0.2)
                else:
                    wait(living())
                alive = [thread for thread in alive if thread.is_alive()]
        except BaseException:
            self._end_all()
            _end_soon(self._workers, threads, self._is_working)
            raise
        if stopping.is_set():
            return 0, _end_soon(self._workers, threads, self._is_working)
        return max(self._codes), True

    def _fail(self, code: int) -> None:
        self._codes.append(code)
        self._end_all()

    def _end_all(self) -> None:
        self._interrupted()
        for worker in self._workers:
            worker.stop()


def _end_soon(workers: Sequence[Worker], threads: Sequence[threading.Thread],
              is_working: Callable[[], bool]) -> bool:
    """Whether all threads end within 3 s: a long poll or a training step may last longer than a
    person or an init system waits, and so may a master that is gone."""
    threading.Thread(target=_leave, args=(workers,), name="leaving", daemon=True).start()
    deadline = time.monotonic() + 3.0
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    while is_working() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_working() and not any(thread.is_alive() for thread in threads)


def _leave(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.leave()


def _client(options: Options, longest: int = LONGEST_JSON) -> HttpClient:
    return HttpClient(options.master_url, options.cafile, options.cert, options.key, longest)


def _hello(options: Options, path: str) -> Hello:
    """Ask the master for its configuration, with patience: workers may start before their master.
    """
    client = _client(options)
    arithmetic.tell(_log)
    _log.info("asking %s for the run's configuration", options.master_url)
    worker = options.workers[0]
    started, attempt, told, token_read_again = time.monotonic(), 0, "", False
    while True:
        then = trying_again(options.retry_for_s)
        try:
            token = tokens.token_for_worker(path, worker)
            if token is None:
                raise UnreachableError(
                    f"no token yet at {path}",
                    hint="start the master on this machine or copy the worker's token here")
            client.authorize(token)
            return client.hello(Question(PROTOCOL_VERSION, worker))
        except ProtocolError as error:
            if error.kind.action != "retry" and (error.name != "unauthorized" or token_read_again):
                raise
            token_read_again = error.name == "unauthorized"
            if token_read_again:
                then = TOKEN_AGAIN
            trouble: FlqError = error
        except UnreachableError as error:
            trouble = error
        if options.retry_for_s is not None and time.monotonic() - started >= options.retry_for_s:
            raise trouble
        if str(trouble) != told:
            told = str(trouble)
            _log.warning("%s; %s", told, then)
        time.sleep(min(LONGEST_PAUSE_S / 5, FIRST_PAUSE_S * 2 ** attempt))
        attempt = min(attempt + 1, 8)


def _check_ids(workers: Sequence[int], total_workers: int) -> None:
    if workers[-1] >= total_workers:
        raise ConfigError("--worker_id is not in this run", f"0 to {total_workers - 1}",
                          workers[-1], f"the master's system.total_workers is {total_workers}")


def _token_reader(path: str, worker: int) -> Callable[[], str]:
    def read() -> str:
        token = tokens.token_for_worker(path, worker)
        if token is None:
            raise UnreachableError(f"no token at {path}")
        return token
    return read


class Heartbeats(threading.Thread):
    """A sign of life while a worker trains: no other request travels then. client: one of its own.
    take_turns: the workers ask nothing either while others are at work.
    """

    def __init__(self, workers: Sequence[Worker], client: MasterClient, config: Config,
                 take_turns: bool = False) -> None:
        super().__init__(name="heartbeats", daemon=True)
        self._workers, self._client, self._take_turns = workers, client, take_turns
        self._every_s = config.system.worker_timeout_s / 3.0
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._every_s):
            for worker in self._workers:
                if not (self._take_turns or worker.training) or not worker.session:
                    continue
                try:
                    self._client.authorize(worker.session)
                    self._client.heartbeat(jetson.temperature())
                except FlqError:
                    pass  # the worker's own next request meets the same trouble and handles it

    def stop(self) -> None:
        self._stopped.set()
        self._client.close()
