"""The direction of a run with a rule against bad workers (algorithm.md 11): what the rule sees, and
what the master keeps for it.

    reference   x_m = h_m + c_m where something was committed, else h_m, of all members
                v = rule(x)
    residual    x_m = c_m of the round's uploads,        v = |S| / M rule(x)
    none        x_m = c_m,                               v = rule(x)

Nothing that a worker says of itself counts, neither its number of samples nor what its bid is
worth. Where the mean needs only the sum of the references, a rule needs each of them: the master
keeps g_m = h_m / a of every member, 8 p bytes each.
"""

from typing import Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.algorithm import memories
from flq.algorithm.memories import Memory
from flq.algorithm.robust_rules import RULES, median
from flq.compression.quantizer import FLOAT32_MAX
from flq.errors import ConfigError
from flq.modes import AGGREGATIONS
from flq.settings import Config, FlqAlgorithmSection


class Kept(NamedTuple):
    """What a rule needs of the rounds before. references: g_m of every member, float64[p]; empty
    where the memory has no references. center: what the rule gave last, float32[p], 0 at first.
    """

    references: Dict[int, np.ndarray]
    center: np.ndarray


def initial(algorithm: FlqAlgorithmSection, num_params: int) -> Optional[Kept]:
    """Of version 0; None with the mean."""
    if not AGGREGATIONS[algorithm.aggregation].is_robust:
        return None
    return Kept({}, np.zeros(num_params, np.float32))


def without(kept: Kept, workers: Sequence[int]) -> Kept:
    """After these workers departed."""
    return kept._replace(references={
        worker: reference for worker, reference in kept.references.items() if worker not in workers
    })


def commit(kept: Kept, memory: Memory, committed: Mapping[int, np.ndarray]) -> Kept:
    """After a round that took the innovations `committed`, float32[p] by worker."""
    if not memory.has_reference_sum:
        return kept
    references = dict(kept.references)
    for worker, innovation in committed.items():
        known = references.get(worker)
        if known is None:
            known = np.zeros(innovation.size, np.float64)
        references[worker], _ = memory.commit(known, innovation)
    return kept._replace(references=references)


def direction(kept: Kept, memory: Memory, committed: Mapping[int, np.ndarray], turn: int,
              algorithm: FlqAlgorithmSection) -> Tuple[Optional[np.ndarray], Kept]:
    """v float32[p], None where there are fewer updates than the rule needs, and what is kept after
    the round.

    kept: before the round. committed: the innovations float32[p] by worker. turn: number of members
    whose turn it is, those of this round included.
    """
    after = commit(kept, memory, committed)
    if memory.has_reference_sum:
        seen = [_update(memory, kept.references.get(worker), committed.get(worker))
                for worker in sorted(after.references)]
    else:
        seen = [committed[worker] for worker in sorted(committed)]
    if len(seen) < fewest(algorithm):
        return None, after
    found = RULES[algorithm.aggregation](seen, algorithm.bad_workers, kept.center)
    if memory.keeps_unsent:
        # Fixed weights: what is missing is still in somebody's e.
        found = found * np.float32(len(seen) / turn)
    return found, after._replace(center=found)


def non_trainable(values: Mapping[int, np.ndarray], fallback: np.ndarray,
                  algorithm: FlqAlgorithmSection) -> np.ndarray:
    """The median of each of the non-trainable values, float32[N], whatever the rule; fallback where
    too few sent some.
    """
    if len(values) < fewest(algorithm) or not fallback.size:
        return fallback
    return median([values[worker] for worker in sorted(values)], algorithm.bad_workers, fallback)


def fewest(algorithm: FlqAlgorithmSection) -> int:
    """How many updates the configured rule needs to make a step."""
    return AGGREGATIONS[algorithm.aggregation].fewest(algorithm.bad_workers)


def sees(memory: Memory, members: int, uploads: int) -> int:
    """How many updates a rule has after a round with so many members and uploads."""
    return members if memory.has_reference_sum else uploads


def reference_bytes(config: Config, num_params: int) -> int:
    """What the references of all workers take at the master; 0 where it keeps none."""
    algorithm = config.flq_algorithm
    keeps = AGGREGATIONS[algorithm.aggregation].is_robust and memories.configured(
        algorithm).has_reference_sum
    return 8 * num_params * config.system.total_workers if keeps else 0


def check_room(config: Config, num_params: int) -> None:
    """Raises ConfigError where the references take more than the master may give them."""
    needed, limit = reference_bytes(config, num_params), config.system.references_mb << 20
    if needed > limit:
        raise ConfigError(
            f"flq_algorithm.aggregation {config.flq_algorithm.aggregation} keeps the references of "
            f"{config.system.total_workers} workers with {num_params} weights",
            f"at most {config.system.references_mb} MiB (system.references_mb)",
            f"{-(-needed >> 20)} MiB", "raise system.references_mb, or take memory none")


def _update(memory: Memory, reference: Optional[np.ndarray],
            innovation: Optional[np.ndarray]) -> np.ndarray:
    """h + c, what a worker says that its update is, or h; float32[p]. What is beyond float32 counts
    as its largest value: only who lies gets there, and a rule takes finite vectors.
    """
    if reference is None:
        assert innovation is not None, "a member has committed"
        return innovation
    update = memory.rate * reference
    if innovation is not None:
        update += innovation
    return np.clip(update, -FLOAT32_MAX, FLOAT32_MAX, out=update).astype(np.float32)
