"""`python -m flq rollback`: a run goes on from an earlier model (protocol.md 4).

Nothing is deleted. A round without answers is added, whose event says that the model is again the
one that round K started from. Every reference is 0 from then on: what the workers committed since
round K came of models that are no longer those of the run.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Callable, Sequence

from flq.algorithm import cohorts, mending
from flq.algorithm import round as rounds
from flq.errors import ConfigError
from flq.learning.interface import Learner
from flq.master.run.recovery import changed_config, pack_checkpoint
from flq.master.store.events import Event, KeyChange, Order, Remove, Rollback
from flq.master.store.run_store import RoundCommit, StoreError
from flq.master.stored.stored_run import open_stored_run
from flq.records import RoundRecord
from flq.revoked import login_name
from flq.settings import Config


def rollback(directory: Path, build_learner: Callable[[Config], Learner], round_: int,
             without: Sequence[int] = ()) -> int:
    """Go back to the model that round_ started from, and remove the workers `without`; returns the
    version that this makes. The run has as many rounds left as it had then.

    Raises ConfigError for a round that was not played or a worker that is none, StoreError.
    """
    with open_stored_run(directory, build_learner) as run:
        store, config = run.store, changed_config(run.config, run.store)
        played = store.num_rounds()
        if not store.compacted() <= round_ <= played:
            raise ConfigError(f"the run cannot go back to round {round_}",
                              f"{store.compacted()} to {played}", round_,
                              "python -m flq compact drops what leads to earlier rounds")
        for worker in without:
            if not 0 <= worker < config.system.total_workers:
                raise ConfigError(f"worker {worker} is not in this run",
                                  f"0 to {config.system.total_workers - 1}", worker)
        before = run.replayer.recover(run.config, run.first).model
        target = run.replayer.recover(run.config, run.first, until=round_).model
        model = mending.rolled_back(before, target, run.run_id)
        longest = config.system.max_rounds
        order = Order(f"{login_name()}@local", round(time.time(), 3))
        events: list[Event] = [
            Rollback(round_, *order), *(Remove(worker, True, *order) for worker in without)
        ]
        events.append(KeyChange("system.max_rounds", order.by, longest,
                                longest + model.version - round_, order.at))
        last = store.records(played - 1) if played else []
        wire = 0 if not last or last[0].wire_bits_up is not None else None
        record = RoundRecord(
            round=played, version=model.version, accuracy=None, loss=None, train_loss=None,
            selected=(), skipped=(), refused=(), missing=(), late=(), members=0, nominal_bits_up=0,
            payload_bits_up=0, wire_bits_up=wire, nominal_bits_down=0, payload_bits_down=0,
            wire_bits_down=wire, float32_bits_up=0, float32_bits_down=0, round_time_s=0.0,
            server_lr=0.0, rho=1.0, direction_norm2=0.0,
            history_sum=rounds.history_sum(config.lazy_selection, model),
            params_hash=model.params_hash.hex(), closed_at=time.time(),
            cohort=cohorts.cohort_of(played, config.system.cohorts))
        ending = store.ending()
        accounting = store.newest_accounting() if ending is None else ending.accounting
        # Without a broadcast: whoever comes is sent the model itself.
        store.commit_round(RoundCommit(record, (), tuple(events), accounting, b""))
        with contextlib.suppress(StoreError):  # without it a restart computes the rounds again
            store.add_checkpoint(model.version, *pack_checkpoint(model))
        return model.version
