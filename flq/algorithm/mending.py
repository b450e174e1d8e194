"""What an operator does to a model that somebody spoilt: take one worker's part out of the average
for good, or go back to an earlier model (algorithm.md 3 and 10).
"""

from typing import Dict, Optional

import numpy as np

from flq.algorithm.model_state import ModelState, Waiting
from flq.algorithm.round import departed
from flq.errors import FlqError


def summed_anew(model: ModelState, references: Dict[int, Optional[np.ndarray]]) -> ModelState:
    """The model whose A / a is sum n_m g_m over the given references, in worker order.

    Subtracting a reference leaves what it had rounded away: beside 1e30 a float64 sum holds nothing
    of a reference of length 1. references: g_m of every member, float64[p].
    """
    assert model.reference_sum is not None, "there is a sum"
    total = np.zeros_like(model.reference_sum)
    for worker in model.members:
        reference = references[worker]
        if reference is None:
            raise FlqError(f"worker {worker} is a member but its reference is missing")
        total += np.multiply(reference, model.accounts[worker].weight, dtype=np.float64)
    return model._replace(reference_sum=total)


def rolled_back(model: ModelState, target: ModelState, run_id: str) -> ModelState:
    """The version after `model` that is what `target` was. target: an earlier version of this run.

    Every cohort holds the broadcast model of the target from then on, and no worker is a member:
    what was committed since belongs to other models.
    """
    accounts = {
        worker: departed(run_id, worker, account) for worker, account in model.accounts.items()
    }
    waiting = (Waiting(target.broadcast, target.activity),) * len(model.waiting)
    total = None if target.reference_sum is None else np.zeros_like(target.reference_sum)
    observed = target.observed and target.observed._replace(sketches={})
    robust = target.robust and target.robust._replace(references={})
    return target._replace(version=model.version + 1, accounts=accounts, reference_sum=total,
                           waiting=waiting, observed=observed, robust=robust)
