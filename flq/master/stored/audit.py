"""`python -m flq replay`: compute a run again from its store and compare every round with what was
recorded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable

from flq.algorithm.model_state import Closed
from flq.learning.interface import Learner
from flq.master.store.run_store import RunStore, StoredRound, StoreError
from flq.master.stored.stored_run import open_stored_run
from flq.settings import Config


def replay(directory: Path, build_learner: Callable[[Config], Learner], evaluate: bool,
           say: Callable[[str], None], on_round: Callable[[int, int, str], None]) -> str:
    """Recompute a run from round 0, or from its compaction on; returns the last model's hash.
    Raises StoreError where anything differs.

    evaluate: also test every model that was tested, and compare accuracy and loss. on_round(rounds
    that are done, of how many, a line about the last) is called after each.
    """
    with open_stored_run(directory, build_learner) as run:
        rounds = run.store.num_rounds()
        store, tested = run.store, run.store.evaluations() if evaluate else {}

        def compare(stored: StoredRound, closed: Closed) -> None:
            record = stored.record
            _compare(store, record.round, "direction_norm2", record.direction_norm2,
                     closed.direction_norm2)
            _compare(store, record.round, "history_sum", record.history_sum, closed.history_sum)
            _compare(store, record.round, "rho", record.rho, closed.rho)
            if record.round in tested:
                found = run.learner.evaluate(*closed.model.result)
                _compare(store, record.round, "accuracy", tested[record.round].accuracy,
                         found.accuracy)
                if not math.isclose(tested[record.round].loss, found.loss, rel_tol=1e-6):
                    _compare(store, record.round, "loss", tested[record.round].loss, found.loss)
            on_round(record.round + 1, rounds,
                     f"round {record.round}: {closed.model.params_hash.hex()} as recorded")

        if store.compacted():
            say(f"rounds before {store.compacted()} were compacted: the audit starts from the "
                "model of that version"
                )
        return run.replayer.recover(run.config, run.first, checkpoints=False,
                                    compare=compare).model.params_hash.hex()


def _compare(store: RunStore, round_: int, name: str, recorded: float, computed: float) -> None:
    if recorded != computed:
        raise StoreError(f"round {round_} of {store.path} has another {name} than it was", recorded,
                         computed)
