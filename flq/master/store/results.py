"""A run as reports read it, out of its store: the same for the master that plays it and for who
looks later.
"""

from __future__ import annotations

from pathlib import Path

from flq.errors import DataError
from flq.master.store.events import DeviceNote, changed_keys
from flq.master.store.run_store import FINISHED, OPEN, UNFINISHED, RunReader, StoredRows
from flq.records import Run
from flq.reports.run_files import load_run, summarize


def run_of(store: StoredRows) -> Run:
    """All that is stored of a run. Its configuration is that of the start; the summary has the
    max_rounds that operators have made of it.
    """
    meta, ending, events = store.meta(), store.ending(), store.events()
    rounds, workers = [record.to_json() for record in store.records()], store.worker_rounds()
    devices = {} if ending is None else dict(ending.devices)
    noted = {str(event.worker): event.device for event in events if isinstance(event, DeviceNote)}
    devices.update((worker, noted[worker]) for worker in noted if worker not in devices)
    max_rounds = changed_keys(events).get("system.max_rounds",
                                          meta["config"]["system"]["max_rounds"])
    if ending is not None and ending.phase != OPEN:
        phase = ending.phase
    else:
        phase = FINISHED if len(rounds) >= max_rounds else UNFINISHED
    summary = summarize(meta["run_id"], meta["config"], rounds, workers, phase)
    side = {name: meta[name] for name in ("side_information_bytes",) if name in meta}
    return Run(meta["run_id"], meta["config"], rounds, workers,
               dict(summary, **side, max_rounds=max_rounds, devices=devices))


def read_run(directory: Path) -> Run:
    """The run in a folder, also while a master plays it, and where it was killed. Of a folder
    without run.db the files for people count. Raises StoreError or DataError when neither can be
    read or no round has closed yet, ConfigError where there is no run."""
    if not (directory / "run.db").exists():
        return load_run(directory)
    with RunReader(directory) as store:
        run = run_of(store)
    if not run.rounds:
        raise DataError(f"the run in {directory} has no round yet", "at least one closed round", 0,
                        "look again later")
    return run
