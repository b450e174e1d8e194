"""A whole run in one process: `python -m flq simulate`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Sequence

from flq import config as configuration
from flq.algorithm import uplink
from flq.errors import DataError, FlqError
from flq.host import arithmetic, heap, open_files
from flq.learning.interface import Learner
from flq.master.process import WriteReports, new_run, new_store, open_run
from flq.master.service import Service
from flq.master.store.results import run_of
from flq.master.store.run_store import StoreError
from flq.master.stored.stored_run import check_model
from flq.records import RoundRecord, Run
from flq.reports.run_files import is_written, write_config, write_run
from flq.settings import Config
from flq.simulation import room
from flq.simulation.in_step import ClientInStep, InStep
from flq.simulation.local_client import LocalClient
from flq.simulation.pool import run_pool
from flq.simulation.shelves import Shelves
from flq.worker.loop import Worker
from flq.worker.process import Heartbeats
from flq.worker.received import SharedModels
from flq.worker.state_file import InMemory, StateFile
from flq.worker.worker_record import WorkerRecord

if TYPE_CHECKING:
    from flq.learning.learner import TensorFlowLearner

_log = logging.getLogger("flq.simulation")


def simulation_learner(config: Config) -> "TensorFlowLearner":
    """Trains every worker, as many at a time as there are processors, and tests the model."""
    from flq.learning.learner import build_learner
    workers = range(config.system.total_workers)
    return build_learner(config, workers, evaluate=True, replicas=_processors(config))


def _processors(config: Config) -> int:
    """How many workers can compute at the same time."""
    return min(config.system.total_workers, os.cpu_count() or 1)


class _Unsaved(InMemory):
    """The state of a worker that nobody starts again: nothing is kept of it."""

    def save(self, record: WorkerRecord, broadcasts: Sequence[bytes] | None = None) -> None:
        """There is nothing to do."""


def simulate(config: Config, run_dir: str | None, learner: Learner,
             watch: Callable[[Service], None] | None = None, resume: bool = False,
             write_reports: WriteReports | None = None, take_signals: bool = True,
             on_round: Callable[[RoundRecord], Any] | None = None) -> tuple[Path, Run]:
    """Run all workers of a configuration against a service in this process; returns the run's
    directory and records.

    Raises FlqError when a worker failed or the run paused with an error; what was stored until then
    is written. After SIGTERM or Ctrl-C, which are taken over in the main thread, it returns the
    rounds that are stored, and the summary's phase is UNFINISHED. Neither stores anything that an
    undisturbed run would not, so that the run can go on.
    take_signals False leaves the process's handlers as they are; KeyboardInterrupt, or what
    on_round raises, then goes to the caller, and the rounds until then are stored. on_round(record)
    is called in the caller's thread after each round (in_step.InStep). learner: trains every worker
    and tests the model (build_learner with all workers and evaluate).
    watch(service) is called once the service runs, in the caller's thread, and may start a progress
    display.
    resume: the workers keep their states in run_dir, as they would on their own machines, and a run
    that is there already goes on where it ended; ConfigError where it has another configuration. Of
    a run that is over already nothing is written again. write_reports(directory, run) writes the
    workbook and the plots.
    """
    heap.keep_freed_memory()
    arithmetic.tell(_log)
    kept = resume and run_dir is not None
    if kept:
        directory, run_id, config, store = open_run(run_dir, config,
                                                    set(configuration.flat(config)))
        if store is not None:
            check_model(store, learner.layout)
    else:
        (directory, run_id), store = new_run(run_dir, config), None
    service = Service(config, learner, store or new_store(directory, run_id, config, learner),
                      run_id)
    write_config(directory, service.store.meta()["config"])
    if service.run.state.paused:
        service.resume()  # by a master's operator, and here is none
    service.start()
    state_files: list[StateFile | InMemory] = []
    try:
        # beside a run that is over nothing is written, once its workers have its last model
        kept = kept and not service.run.history.over
        settings = uplink.settings_from(config, learner.layout)
        shelves = Shelves(directory, config.system.total_workers, settings,
                          config.flq_algorithm.b_up)
        room.tell(directory, config, learner.layout, shelves.num_bytes,
                  config.system.max_rounds - len(service.run.history), kept)
        models = SharedModels(learner, config, run_id, config.system.total_workers)
        if kept:  # each has a file that is locked
            open_files.allow(config.system.total_workers,
                             f"{config.system.total_workers} workers with --resume")
        for worker in range(config.system.total_workers):
            state_files.append(
                StateFile(str(directory /
                              "workers"), worker, learner.layout, settings) if kept else _Unsaved())
        if watch is not None:
            watch(service)
        in_step = None if on_round is None else InStep(service, on_round)
        workers = [
            Worker(
                worker,
                LocalClient(service, worker, longest_wait_s=0.0) if in_step is None else
                ClientInStep(service, worker, in_step), learner, config, run_id, state_file, str,
                models=models, shelf=shelves.of(worker))
            for worker, state_file in enumerate(state_files)
        ]
        # With a deadline no worker may be late because it waits for its turn.
        num_threads = len(workers)
        if config.system.quorum == "all":
            num_threads = min(num_threads, max(_processors(config), learner.at_a_time))
        heartbeats = Heartbeats(workers, LocalClient(service, 0), config, take_turns=True)
        heartbeats.start()
        try:
            if in_step is None:
                code, _ = run_pool(workers, service, num_threads, service.halt, take_signals)
            else:
                code, _ = run_pool(workers, service, num_threads, in_step.halt, take_signals,
                                   in_step.wait)
        finally:
            heartbeats.stop()
        if not service.run.is_over:
            service.halt()  # nobody is left to answer
        service.wait_for_end()
        service.halt()
        service.wait_until_still()
        go_on = f"go on with --resume --run_dir {directory}"
        try:
            service.settle(interrupted=True)
            run = run_of(service.store)
            if not is_written(directory, run):
                write_run(directory, run, write_reports)
        except (DataError, StoreError) as error:
            raise StoreError(error.message, error.expected, error.got,
                             "the rounds are stored: make room" + (f" and {go_on}" if kept else ""))
        if code:
            raise FlqError(
                "the simulation ended early",
                hint="its workers said why above" + (f"; mend it and {go_on}" if kept else ""))
        return directory, run
    finally:
        service.close()
        for state_file in state_files:
            state_file.close()
