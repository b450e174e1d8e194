"""One process with one or many workers: the master's configuration, one learner, a thread each."""

import logging
import signal
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from flq import config as configuration
from flq import jetson, memory, signals, tokens
from flq.algorithm import uplink
from flq.errors import ConfigError, FlqError, ProtocolError, UnreachableError
from flq.protocol import PROTOCOL_VERSION
from flq.worker.loop import FIRST_PAUSE_S, LONGEST_PAUSE_S, Worker
from flq.worker.master_client import HttpClient
from flq.worker.next_step import TOKEN_AGAIN, trying_again
from flq.worker.state_file import StateFile, state_directory

_log = logging.getLogger("flq.worker")

BuildLearner = Callable[[Any, Sequence[int]], Any]


class Options(NamedTuple):
    """The command line of flq_worker.py. own: the worker's file, for its local keys; cafile: None for the CAs of requests."""

    workers: Sequence[int]
    master_url: str
    own: configuration.Loaded
    token_file: Optional[str]
    retry_for_s: Optional[float]
    take_over: bool
    state_dir: Optional[str]
    cafile: Optional[str]


def parse_workers(text: str) -> List[int]:
    """`3` or `0-15` -> worker ids. Raises ConfigError."""
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ConfigError("--worker_id cannot take this value", "a number like 3 or a range like 0-15", text)
    low, high = int(first), int(last) if dash else int(first)
    if high < low or high > 65535:
        raise ConfigError("--worker_id cannot take this value", "ids from 0 to 65535, smallest first", text)
    return list(range(low, high + 1))


def run(options: Options, build_learner: BuildLearner) -> int:
    """Run all workers of the process to the end of the run and return the exit code.

    build_learner(config, workers) -> a learner; it is called once, with the master's configuration.
    """
    memory.keep_freed_memory()
    path = tokens.token_path(options.token_file)
    hello = _hello(options, path)
    config = configuration.adopt(hello["config"], options.own)
    for line in configuration.without_effect(config, options.own.explicit):
        _log.warning("%s", line)
    _check_ids(options.workers, config)
    learner = build_learner(config, options.workers)
    settings, directory = uplink.settings_from(config, learner.layout), state_directory(options.state_dir)
    workers = [Worker(worker, HttpClient(options.master_url, options.cafile), learner, config, hello["run_id"],
                      StateFile(directory, worker, learner.layout, settings),
                      _token_reader(path, worker), options.take_over, options.retry_for_s) for worker in options.workers]
    heartbeats = Heartbeats(workers, HttpClient(options.master_url, options.cafile), config)
    heartbeats.start()
    try:
        code, all_ended = run_threads(workers)
    finally:
        heartbeats.stop()
    if not all_ended:
        signals.end_now(code)
    return code


def run_threads(workers: Sequence[Worker], interrupted: Callable[[], None] = lambda: None) -> Tuple[int, bool]:
    """A thread for each worker; SIGTERM and SIGINT let them leave. The largest exit code counts.

    Returns it and whether all threads have ended: after a signal nobody waits longer than 3 s for them.
    A worker that fails, rather than being refused, ends the others of its process too: whoever supervises it must hear of it.
    interrupted() is called before the workers are told to end, by a signal or because one failed.
    """
    codes = []  # type: List[int]

    def body(worker: Worker) -> None:
        try:
            codes.append(worker.run())
        except FlqError as error:
            _log.error("worker %d: %s", worker.worker, error)
            fail(error.exit_code)
        except Exception:  # every failure of a thread must reach the exit code
            _log.exception("worker %d failed", worker.worker)
            fail(1)

    def fail(code: int) -> None:
        codes.append(code)
        end_all()

    def end_all() -> None:
        interrupted()
        for worker in workers:
            worker.stop()

    threads = [threading.Thread(target=body, args=(worker,), name="worker-{}".format(worker.worker), daemon=True) for worker in workers]
    stopping = threading.Event()

    def stop(number: int, frame: Any) -> None:
        stopping.set()
        end_all()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not stopping.is_set():
            thread.join(0.2)
    if stopping.is_set():
        # A long poll or a training step may last longer than a person or an init system waits, and so may a master that is gone.
        threading.Thread(target=_leave, args=(workers,), name="leaving", daemon=True).start()
        deadline = time.monotonic() + 3.0
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return 0, not any(thread.is_alive() for thread in threads)
    return max(codes), True


def _leave(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.leave()


def _hello(options: Options, path: str) -> Dict[str, Any]:
    """Ask the master for its configuration, with patience: workers may start before their master."""
    client = HttpClient(options.master_url, options.cafile)
    _log.info("asking %s for the run's configuration", options.master_url)
    worker = options.workers[0]
    started, attempt, told, token_read_again = time.monotonic(), 0, "", False
    while True:
        token, then = tokens.token_for_worker(path, worker), trying_again(options.retry_for_s)
        try:
            if token is None:
                raise UnreachableError("no token yet at {}".format(path),
                                       hint="start the master on this machine or copy the worker's token here")
            client.authorize(token)
            return client.register({"protocol": PROTOCOL_VERSION, "worker_id": worker})
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


def _check_ids(workers: Sequence[int], config: Any) -> None:
    if workers[-1] >= config.system.total_workers:
        raise ConfigError("--worker_id is not in this run", "0 to {}".format(config.system.total_workers - 1), workers[-1],
                          "the master's system.total_workers is {}".format(config.system.total_workers))


def _token_reader(path: str, worker: int) -> Callable[[], str]:
    def read() -> str:
        token = tokens.token_for_worker(path, worker)
        if token is None:
            raise UnreachableError("no token at {}".format(path))
        return token
    return read


class Heartbeats(threading.Thread):
    """A sign of life while a worker trains: no other request travels then. client: one of its own, HttpClient or what stands for it."""

    def __init__(self, workers: Sequence[Worker], client: Any, config: Any) -> None:
        super().__init__(name="heartbeats", daemon=True)
        self._workers, self._client, self._every_s = workers, client, config.system.worker_timeout_s / 3.0
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._every_s):
            for worker in self._workers:
                if not worker.training or not worker.session:
                    continue
                try:
                    self._client.authorize(worker.session)
                    self._client.heartbeat({"temperature_c": jetson.temperature()})
                except FlqError:
                    pass  # the worker's own next request meets the same trouble and handles it

    def stop(self) -> None:
        self._stopped.set()
        self._client.close()
