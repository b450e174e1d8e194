"""`python -m flq compact`: keep what a run goes on from, drop the uploads that led there (protocol.md 4).

Every member's h_m is written once, with a checkpoint of the whole state; older uploads and the broadcasts that nobody can be sent
any more become empty. All rows and records stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from flq.algorithm import round as rounds
from flq.algorithm import uplink
from flq.master.broadcasts import Broadcasts
from flq.master.closing import rebuild_reference
from flq.master.recovery import Replayer, pack_state
from flq.master.run_store import Reference, RunStore, StoreError
from flq.master.unfinished import stored_config
from flq.protocol.frames import Expected


def compact(directory: Path, build_learner: Callable[[Any], Any]) -> int:
    """Compact a run that no master serves; returns the version from which it can be computed again. Raises StoreError, ConfigError.

    The rounds since the last checkpoint are computed again first and compared, so that nothing is dropped that is still needed.
    """
    store = RunStore(directory)
    try:
        meta = store.meta()
        config = stored_config(meta)
        learner = build_learner(config)
        if learner.layout.hash() != meta["shapes_hash"]:
            raise StoreError(f"the model of {store.path} cannot be built here", meta["shapes_hash"], learner.layout.hash())
        settings = uplink.settings_from(config, learner.layout)
        expected = Expected(meta["run_id"], learner.layout, settings.sizes)
        first = rounds.initial_state(config, learner.layout, *learner.initial())
        model = Replayer(meta["run_id"], store, learner.layout, settings).recover(config, first).model
        if model.version == 0:
            return 0
        references = []
        for worker in model.members:
            account = model.accounts[worker]
            reference = rebuild_reference(store, worker, account, config.flq_algorithm.memory, expected, settings)
            if reference is not None:
                references.append(Reference(worker, account.epoch, reference.astype("<f4").tobytes()))
        digest, state = pack_state(model)
        store.compact(model.version, digest, state, references, Broadcasts(expected).restore(store.broadcasts(), first.params_hash))
        return model.version
    finally:
        store.close()
