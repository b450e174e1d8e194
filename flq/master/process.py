"""The master process from the command line to the exit code."""

from __future__ import annotations

import datetime
import functools
import json
import logging
import os
import secrets
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

from flq import config as configuration
from flq import idle_keys, keys, revoked, tokens
from flq.algorithm import uplink
from flq.compression import payload
from flq.errors import ConfigError, DataError
from flq.host import arithmetic, heap, private_files
from flq.learning.interface import Learner
from flq.master.http.guard import Access, is_worker
from flq.master.http.http_api import create_app
from flq.master.http.revocations import Revocations
from flq.master.http.server import Server
from flq.master.http.tls import server_context
from flq.master.http.wire import WireCounter
from flq.master.run.checks import check_budget
from flq.master.service import Service
from flq.master.store.events import NOBODY, Order
from flq.master.store.results import run_of
from flq.master.store.run_store import RunStore, StoreError
from flq.master.stored.stored_run import check_model, stored_config
from flq.master.stored.unfinished import newest_unfinished
from flq.parameters import Layout
from flq.protocol import endpoints, frames
from flq.protocol.messages import Stopped
from flq.records import Run
from flq.reports.run_files import is_written, write_config, write_run
from flq.settings import Config

_log = logging.getLogger("flq.master")

WriteReports = Callable[[Path, Run], list[Path]]

_LOOK_EVERY_S = 0.2  # how soon a signal is noticed
_LONGEST_LAST_ANSWER_S = 2.0


class Options(NamedTuple):
    """The command line of flq_master.py. explicit: the keys that the configuration file or --set
    name. client_ca: who signed the certificates that clients have to show; None where none has to.

    resume: without a run_dir, go on with the newest unfinished run of this configuration.
    """

    config: Config
    explicit: set[str]
    host: str
    port: int
    run_dir: str | None
    resume: bool
    exit_when_done: bool
    token_file: str | None
    port_file: str | None
    certfile: str | None = None
    keyfile: str | None = None
    client_ca: str | None = None


def run(options: Options, build_learner: Callable[[Config], Learner],
        write_reports: WriteReports | None) -> int:
    """Serve one run. build_learner(config) -> the master's learner; write_reports(directory, run)
    -> files, None where none are wanted.
    """
    heap.keep_freed_memory()
    tls = None
    if options.client_ca and not options.certfile:
        raise ConfigError("--client_ca asks for certificates under TLS", "--certfile", "none")
    if options.certfile:
        tls = server_context(options.certfile, options.keyfile, options.client_ca)
        private_files.check(options.keyfile or options.certfile, "the key of the certificate")
    token_file = tokens.token_path(options.token_file)
    secret = tokens.make_secret(token_file)
    revocations = Revocations(token_file)
    _tell_doubts(secret, token_file)
    opened = open_run(options.run_dir, options.config, options.explicit, options.resume)
    config, run_id, directory = opened.config, opened.run_id, opened.directory
    # It listens early: a busy port fails before TensorFlow loads.
    server = Server(options.host, options.port, config.system.total_workers, tls)
    _log.info("run %s in %s", run_id, directory)
    arithmetic.tell(_log)
    for line in idle_keys.without_effect(config, options.explicit):
        _log.warning("%s", line)
    learner = build_learner(config)
    if opened.store is not None:
        check_model(opened.store, learner.layout)
    store = opened.store or new_store(directory, run_id, config, learner)
    service = Service(config, learner, store, run_id, server.wire.bits)
    if not service.run.history.over:
        server.wire.keep(directory / "run.wire", run_id, service.run.history.wire_in_rows)
    write_config(directory, store.meta()["config"])
    stop = threading.Event()
    results = Results(service, directory, write_reports, stop)
    _handle_signals(stop)
    service.start()
    access = Access(secret, server.on_loopback, revocations.now, options.client_ca is not None)
    revocations.start(service)
    server.start(create_app(service, access, results.stop_and_save),
                 largest_upload(learner.layout), functools.partial(is_worker, service, access))
    _announce(server, options, directory)
    try:
        _watch(service, server.wire, results, stop, options.exit_when_done)
        service.halt()
        service.wait_until_still()
        if len(service.run.history) and not results.saved:
            try:
                results.save(interrupted=True)  # of what there is
            # it was asked to end, and the rounds are stored: report and the next start write the
            # rest
            except StoreError as error:
                _log.error("%s", error)
    finally:
        revocations.close()
        service.close()
        server.close()
    return 0


def _tell_doubts(secret: str, token_file: str) -> None:
    """Warn of what could be safer; what is refused was checked before."""
    for doubt in (tokens.weakness(secret),
                  private_files.warning(token_file, "the operator's token"),
                  private_files.warning(revoked.beside(token_file), "what was revoked")):
        if doubt:
            _log.warning("%s", doubt)


class Results:
    """Writes the run's files once it is over, or interrupted; /stop waits for that and then sets
    `stop`.
    """

    def __init__(self, service: Service, directory: Path, write_reports: WriteReports | None,
                 stop: threading.Event) -> None:
        self._service, self._directory = service, directory
        self._write_reports, self._stop = write_reports, stop
        self.saved, self._tried = False, threading.Event()

    def save(self, interrupted: bool = False) -> list[Path]:
        """config.json, history.json, summary.json, and the workbook and plots where they are
        wanted.

        What is there already as it should be stays untouched. interrupted: see Run.ending. Raises
        StoreError when the disk refuses: the run itself is stored.
        """
        files = [self._directory / "summary.json"]
        try:
            self._service.settle(interrupted)
            run = run_of(self._service.store)
            if not is_written(self._directory, run):
                files = write_run(self._directory, run, self._write_reports)
            self.saved = True
        except (DataError, StoreError) as error:
            raise StoreError(
                error.message, error.expected, error.got,
                "the rounds are stored: make room and start the master with --run_dir "
                f"{self._directory}"
            )
        finally:
            self._tried.set()
        return files

    def stop_and_save(self, order: Order = NOBODY) -> Stopped:
        self._service.stop(order)
        self._tried.wait(600)
        self._stop.set()
        return Stopped(self.saved, str(self._directory))


class OpenedRun(NamedTuple):
    """A run to serve; store is None for a new one, whose store needs the model's shapes first."""

    directory: Path
    run_id: str
    config: Config
    store: RunStore | None


def open_run(given: str | None, config: Config, explicit: set[str],
             resume: bool = False) -> OpenedRun:
    """The run in the given directory, continued, or a new one. Raises ConfigError when the
    directory holds another configuration.

    Of a run that goes on the stored configuration counts; a key that somebody set now must agree
    with it. resume: with no directory given, the newest unfinished run of the same configuration is
    continued, if there is one.
    """
    if given and (Path(given) / "run.db").exists():
        opened = _continued(Path(given), RunStore(Path(given)), config)
        refuse_other_keys(given, configuration.flat(opened.config), configuration.flat(config),
                           explicit)
        return opened
    found = newest_unfinished(Path(config.logging.result_dir),
                              config) if resume and not given else None
    if found is not None:
        return _continued(*found, config)
    directory, run_id = new_run(given, config)
    return OpenedRun(directory, run_id, config, None)


def _continued(directory: Path, store: RunStore, config: Config) -> OpenedRun:
    """A stored run with its own shared keys and this machine's local ones."""
    meta = store.meta()
    local = {
        path: value for path, value in configuration.flat(config).items()
        if keys.BY_PATH[path].local
    }
    return OpenedRun(
        directory, meta["run_id"],
        configuration.build({**configuration.flat(stored_config(meta["config"])), **local}), store)


def refuse_other_keys(directory: str, stored: dict[str, Any], given: dict[str, Any],
                       explicit: set[str]) -> None:
    """Raises ConfigError for a key that somebody set, not of a machine's own, and that a stored run
    has otherwise. stored, given: values by path.
    """
    for path in sorted(explicit.intersection(given)):
        if not keys.BY_PATH[path].local and stored[path] != given[path]:
            raise ConfigError(
                f"{directory} is a run with another {path}", json.dumps(stored[path]),
                json.dumps(given[path]),
                "leave the key out to go on with that run, or name a new directory with --run_dir")


def new_run(given: str | None, config: Config) -> tuple[Path, str]:
    """A new run's directory, which is made with its store, and its id."""
    run_id = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)
    directory = Path(given) if given else Path(config.logging.result_dir) / run_id
    return directory, run_id


def new_store(directory: Path, run_id: str, config: Config, learner: Learner) -> RunStore:
    """The store of a run that begins. Raises ConfigError for a budget that no upload can meet,
    before anything is made: a corrected command finds no run with the wrong configuration in its
    folder."""
    check_budget(config, uplink.settings_from(config, learner.layout), learner.layout)
    return RunStore(directory, run_meta(run_id, config, learner))


def run_meta(run_id: str, config: Config, learner: Learner) -> dict[str, Any]:
    """What a run store says of its run as a whole. references: the dtype in which g_m is summed;
    older versions, which summed in float32, did not say. side_information_bytes: what the workers'
    histories take at the master, where they are asked for; 0 where that would be too much."""
    constants = {"constant_shapes": learner.layout.constant_shapes
                 } if learner.layout.constant_shapes else {}
    side = {"side_information_bytes": uplink.side_information_bytes(config, learner.layout)
            } if uplink.wants_history(config) else {}
    return {
        "run_id": run_id, "config": configuration.to_dict(config), "shapes": learner.layout.shapes,
        "state_shapes": learner.layout.non_trainable_shapes,
        **constants, **side, "shapes_hash": learner.layout.hash(), "references": "float64"
    }


def largest_upload(layout: Layout) -> int:
    """Bytes of the longest body that a worker may send: float32 and a scale for each tensor, or a
    JSON message.
    """
    body = 4 * (layout.num_params + layout.num_tensors)
    return max(
        64 * 1024,
        frames.header_length(frames.UPLOAD_KIND)
        + payload.num_bytes(body, layout.num_non_trainable))


def _handle_signals(stop: threading.Event) -> None:
    def handler(number: int, frame: Any) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def _announce(server: Server, options: Options, directory: Path) -> None:
    host = ("127.0.0.1" if server.host == "0.0.0.0" else
            f"[{server.host}]" if ":" in server.host else server.host)
    curl, scheme = ("curl --cacert CA_FILE", "https") if options.certfile else ("curl", "http")
    cert = key = None
    if options.client_ca:
        cert, key = "CERT_FILE", "KEY_FILE"
        curl += f" --cert {cert} --key {key}"
    url = f"{scheme}://{host}:{server.port}"
    stop = tokens.operator_command(endpoints.STOP.method, url + endpoints.STOP.path,
                                   token_file=options.token_file,
                                   cafile="CA_FILE" if options.certfile else None, cert=cert,
                                   key=key)
    print(
        f"status:  {curl} {url + endpoints.STATUS.path}\nstop:    {stop}\n"
        f"page:    {url + endpoints.PAGE.path}\nresults: {directory}", flush=True)
    if not server.on_loopback and not options.certfile:
        _log.warning("listening on %s without TLS: anybody on this network can read what travels",
                     server.host)
    if options.port_file:
        temporary = options.port_file + ".new"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{server.port}\n")
        os.replace(temporary, options.port_file)


def _watch(service: Service, wire: WireCounter, results: Results, stop: threading.Event,
           exit_when_done: bool) -> None:
    """Return when the process should end: a signal, the operator's stop, or the end with
    --exit_when_done.
    """
    while not stop.is_set() and not service.wait_for_end(_LOOK_EVERY_S):
        pass
    if stop.is_set():
        _log.info("signal: nothing new is committed")
        return
    deadline = time.monotonic() + service.run.hearing_s
    while not stop.is_set() and time.monotonic(
    ) < deadline and not service.wait_until_heard(_LOOK_EVERY_S):
        pass
    _wait_for_quiet(wire)
    for path in results.save():
        print(f"saved:   {path}", flush=True)
    if not exit_when_done:
        _log.info("the run is over; serving its results until this process is stopped")
        stop.wait()


def _wait_for_quiet(wire: WireCounter) -> None:
    """Until the answers that told everybody of the end are out: they belong to the run, and what
    comes after its results does not.
    """
    before, deadline = (-1, -1), time.monotonic() + _LONGEST_LAST_ANSWER_S
    while before != wire.bits() and time.monotonic() < deadline:
        before = wire.bits()
        time.sleep(_LOOK_EVERY_S)
