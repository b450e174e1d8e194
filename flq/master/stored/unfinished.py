"""Which run a master goes on with when nobody names one: the newest unfinished run of the same
configuration (protocol.md 3).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from flq import config as configuration
from flq.errors import ConfigError, FlqError
from flq.master.store.events import changed_keys
from flq.master.store.run_store import FINISHED, STOPPED, RunReader, RunStore, StoreError
from flq.master.stored.stored_run import stored_config
from flq.settings import Config

_log = logging.getLogger("flq.master")


class Glance(NamedTuple):
    """A run as it looks from outside, also while a master writes it. changed: keys that were
    changed at run time.
    """

    run_id: str
    config: dict[str, dict[str, Any]]
    rounds: int
    changed: dict[str, Any]
    ended: bool


def newest_unfinished(result_dir: Path, config: Config) -> tuple[Path, RunStore] | None:
    """The folder and the opened store of the run to go on with; None when there is none.

    Runs that are over or have another configuration are passed over, and so is a store that cannot
    be read, with a warning. Raises ConfigError when the run is being served by another master.
    """
    over = others = 0
    for directory, seen in _newest_first(result_dir):
        if is_over(seen):
            over += 1
            continue
        other = _other_key(seen, config)
        if other:
            others += 1
            if others == 1:
                _log.info("%s is unfinished but has another %s: not resumed", directory, other)
            continue
        try:
            store = RunStore(directory)
        except StoreError as error:
            _log.warning("%s; not resumed", error)
            continue
        except ConfigError:
            raise ConfigError(
                f"another master serves {directory}, the newest unfinished run of this "
                "configuration",
                "one master for each run",
                hint="stop that master, or begin another run with --fresh")
        _log.info("resuming %s: %d rounds are done", directory, seen.rounds)
        return directory, store
    _log.info(
        "nothing to resume in %s (runs that are over: %d, of another configuration: %d): a new run",
        result_dir, over, others)
    return None


def is_over(seen: Glance) -> bool:
    """True when a run has all its rounds, or was stopped by its operator and went no further."""
    return seen.ended or seen.rounds >= seen.changed.get("system.max_rounds",
                                                         seen.config["system"]["max_rounds"])


def glance(directory: Path) -> Glance:
    """Look at the store of a run without its lock. Raises StoreError when it cannot be read."""
    with RunReader(directory) as store:
        try:
            meta, ending = store.meta(), store.ending()
            return Glance(meta["run_id"], meta["config"], store.num_rounds(),
                          changed_keys(store.events()),
                          ending is not None and ending.phase in (FINISHED, STOPPED))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the run store {store.path} cannot be read", "a whole database",
                             f"{type(error).__name__}: {error}", "a backup can take its place")


def _newest_first(result_dir: Path) -> list[tuple[Path, Glance]]:
    found = []
    for path in result_dir.glob("*/run.db"):
        try:
            found.append((path.parent, glance(path.parent)))
        except StoreError as error:
            _log.warning("%s; not resumed", error)
    # an id begins with the time of its start
    return sorted(found, key=lambda item: str(item[1].run_id), reverse=True)


def _other_key(seen: Glance, config: Config) -> str:
    """What is different in the configuration of a run, '' when nothing is; a machine's own keys do
    not count.
    """
    try:
        stored = configuration.shared_values(stored_config(seen.config))
    except FlqError:
        return "set of keys"
    given = configuration.shared_values(config)
    other = next((path for path in given if stored[path] != given[path]), None)
    return ("" if other is None else
            f"{other} ({json.dumps(stored[other])}, not {json.dumps(given[other])})")
