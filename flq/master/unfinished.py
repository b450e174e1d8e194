"""Which run a master goes on with when nobody names one: the newest unfinished run of the same configuration (protocol.md 3)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from flq import config as configuration
from flq.errors import ConfigError, FlqError
from flq.master.run_store import Glance, RunStore, StoreError, glance
from flq.master.stored_run import stored_config

_log = logging.getLogger("flq.master")


def newest_unfinished(result_dir: Path, config: Any) -> tuple[Path, RunStore] | None:
    """The folder and the opened store of the run to go on with; None when there is none.

    Runs that are over or have another configuration are passed over, and so is a store that cannot be read, with a warning.
    Raises ConfigError when the run is being served by another master.
    """
    over = others = 0
    for directory, seen in _newest_first(result_dir):
        if is_over(directory, seen):
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
            raise ConfigError(f"another master serves {directory}, the newest unfinished run of this configuration",
                              "one master for each run", hint="stop that master, or begin another run with --fresh")
        _log.info("resuming %s: %d rounds are done", directory, seen.rounds)
        return directory, store
    _log.info("nothing to resume in %s (runs that are over: %d, of another configuration: %d): a new run", result_dir, over, others)
    return None


def is_over(directory: Path, seen: Glance) -> bool:
    """True when a run has all its rounds, or was stopped by its operator: then its results were written after the last one."""
    if seen.rounds >= seen.changed.get("system.max_rounds", seen.meta["config"]["system"]["max_rounds"]):
        return True
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        return bool(summary["phase"] == "FINISHED" and summary["rounds"] == seen.rounds)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _newest_first(result_dir: Path) -> list[tuple[Path, Glance]]:
    found = []
    for path in result_dir.glob("*/run.db"):
        try:
            found.append((path.parent, glance(path.parent)))
        except StoreError as error:
            _log.warning("%s; not resumed", error)
    return sorted(found, key=lambda item: str(item[1].meta["run_id"]), reverse=True)  # an id begins with the time of its start


def _other_key(seen: Glance, config: Any) -> str:
    """What is different in the configuration of a run, '' when nothing is; a machine's own keys do not count."""
    try:
        stored = configuration.shared_values(stored_config(seen.meta))
    except FlqError:
        return "set of keys"
    given = configuration.shared_values(config)
    other = next((path for path in given if stored[path] != given[path]), None)
    return "" if other is None else f"{other} ({json.dumps(stored[other])}, not {json.dumps(given[other])})"
