"""`python -m flq compact`: keep what a run goes on from, drop the uploads that led there
(protocol.md 4).

Every member's g_m is written once, with a checkpoint of the whole state; older uploads and the
broadcasts that nobody can be sent any more become empty. All rows and records stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from flq.learning.interface import Learner
from flq.master.run.broadcasts import Broadcasts
from flq.master.run.closing import pack_reference, rebuild_reference
from flq.master.run.recovery import pack_checkpoint
from flq.master.store.run_store import Reference
from flq.master.stored.stored_run import open_stored_run
from flq.protocol.frames import Expected
from flq.settings import Config


def compact(directory: Path, build_learner: Callable[[Config], Learner]) -> int:
    """Compact a run that no master serves; returns the version from which it can be computed again.
    Raises StoreError, ConfigError.

    The rounds since the last checkpoint are computed again first and compared, so that nothing is
    dropped that is still needed.
    """
    with open_stored_run(directory, build_learner) as run:
        model = run.replayer.recover(run.config, run.first).model
        if model.version == 0:
            return 0
        store, expected = run.store, Expected(run.run_id, run.learner.layout, run.settings.sizes,
                                              run.settings.quantizer)
        references = []
        for worker in model.members:
            account = model.accounts[worker]
            reference = rebuild_reference(store, worker, account, expected, run.settings)
            if reference is not None:
                references.append(
                    Reference(worker, account.epoch, pack_reference(reference, account.activity)))
        digest, checkpoint = pack_checkpoint(model)
        store.compact(model.version, digest, checkpoint, references,
                      Broadcasts(expected, run.config.system.cohorts).restore(
                          store.broadcasts(), run.first.params_hash))
        return model.version
