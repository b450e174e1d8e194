"""A run that no master serves, opened so that its rounds can be computed again: for `replay` and
`compact`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from flq import config as configuration
from flq.algorithm import uplink
from flq.algorithm.model_state import ModelState
from flq.algorithm.uplink import UplinkSettings
from flq.learning.interface import Learner
from flq.master.run.recovery import Replayer, first_model
from flq.master.store.run_store import RunStore, StoreError
from flq.parameters import Layout, constants_hash
from flq.reports.run_files import need_run
from flq.settings import Config


class StoredRun(NamedTuple):
    """config: what the run was started with. first: version 0. replayer: computes the rounds after
    it.
    """

    run_id: str
    store: RunStore
    config: Config
    learner: Learner
    settings: UplinkSettings
    first: ModelState
    replayer: Replayer


def stored_config(sections: dict[str, dict[str, Any]]) -> Config:
    """The configuration that a run was started with, from what its store says of it."""
    return configuration.build_told({
        f"{section}.{name}": value for section, keys in sections.items()
        for name, value in keys.items()
    })


def check_model(store: RunStore, layout: Layout) -> None:
    """Raises StoreError unless the run is one of a model with these shapes."""
    told = store.meta()["shapes_hash"]
    if told != layout.hash():
        hint = (
            "frozen layers were part of every message before: that run must end with the version "
            "that began it"
        )
        raise StoreError(f"the model of {store.path} cannot be built here", told, layout.hash(),
                         hint if layout.constant_shapes else None)


@contextlib.contextmanager
def open_stored_run(directory: Path, build_learner: Callable[[Config],
                                                             Learner]) -> Iterator[StoredRun]:
    """Holds the run's lock meanwhile. Raises StoreError where the model cannot be built here,
    ConfigError where a master serves it or no run is there."""
    need_run(directory)
    store = RunStore(directory)
    try:
        store.check_all()
        meta = store.meta()
        config = stored_config(meta["config"])
        learner = build_learner(config)
        check_model(store, learner.layout)
        kept = store.constants()
        if kept is not None:
            learner.hold_constants(constants_hash(kept), lambda: kept)
        settings = uplink.settings_from(config, learner.layout)
        first = first_model(config, learner, store)
        yield StoredRun(meta["run_id"], store, config, learner, settings, first,
                        Replayer(meta["run_id"], store, learner.layout, settings))
    finally:
        store.close()
