"""One run of a sweep, in a process of its own, and how far it is on the disk."""

from __future__ import annotations

import logging
import os
import signal
import threading
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import NamedTuple

from flq import command_line, idle_keys
from flq import config as configuration
from flq.errors import ConfigError
from flq.host import log, signals
from flq.master.process import refuse_other_keys
from flq.master.store.results import run_of
from flq.master.store.run_store import FINISHED, STOPPED, RunReader
from flq.master.stored.stored_run import stored_config
from flq.reports.run_files import STORE, is_written, load_run
from flq.sweep.plan import LOGS, Planned

_LAST_FILE = "summary.json"  # of those for people


class Progress(NamedTuple):
    """rounds: so many are stored. over: the run has ended, and its files are written."""

    rounds: int
    over: bool


def progress(planned: Planned, folder: Path) -> Progress:
    """Of the run in folder/NAME, also while it is played."""
    directory, max_rounds = folder / planned.name, planned.config.system.max_rounds
    if not (directory / STORE).exists():
        if not (directory / _LAST_FILE).exists():
            return Progress(0, False)
        summary = load_run(directory).summary  # its store stayed where it was played
        return Progress(summary["rounds"], summary["phase"] in (FINISHED, STOPPED))
    with RunReader(directory) as reader:
        ending, rounds = reader.ending(), reader.num_rounds()
        ended = ending is not None and (ending.phase == STOPPED or rounds >= max_rounds)
        return Progress(rounds, ended and rounds > 0 and is_written(directory, run_of(reader)))


def refuse_another_run(planned: Planned, folder: Path) -> None:
    """Raises ConfigError where folder/NAME holds a run with another configuration."""
    directory = folder / planned.name
    if (directory / STORE).exists():
        with RunReader(directory) as reader:
            stored = stored_config(reader.meta()["config"])
    elif (directory / _LAST_FILE).exists():
        stored = stored_config(load_run(directory).config)
    else:
        return
    given = configuration.flat(planned.config)
    try:
        for paths in (set(planned.explicit), set(given)):  # first what somebody wrote down
            refuse_other_keys(str(directory), configuration.flat(stored), given, paths)
    except ConfigError as error:
        raise ConfigError(error.message, error.expected, error.got,
                          "move that run elsewhere, or name another folder with --out")


def play(planned: Planned, folder: Path, take_signals: bool = True) -> None:
    """Play a run in folder/NAME from where it stands, as `python -m flq simulate --resume` does."""
    from flq.reports.files import write_reports
    from flq.simulation.run import simulate, simulation_learner
    config = planned.config
    for line in idle_keys.without_effect(config, set(planned.explicit)):
        logging.getLogger("flq.sweep").warning("%s", line)
    simulate(config, str(folder / planned.name), simulation_learner(config), resume=True,
             write_reports=write_reports if config.logging.save_results else None,
             take_signals=take_signals)


def play_as_process(planned: Planned, folder: Path) -> None:
    """What a process of a sweep does: all that it prints goes to its log in folder/logs, and it
    ends with the program that started it.
    """
    signals.end_on_request()
    path = log.start(planned.name, str(folder / LOGS), planned.config.logging.log_level,
                     logging.NullHandler())
    with open(path, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()

    def program() -> int:
        play(planned, folder)
        return 0

    signals.end_now(command_line.run("master", program))


def _end_with_parent() -> None:
    """A sweep that is killed leaves nobody behind who writes into the folders of the next one."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
