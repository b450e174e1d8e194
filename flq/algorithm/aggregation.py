"""From the selected innovations to what the direction is made of: their sum D, and the correction
rho (algorithm.md 3).

Sums are float64 and run in the order of worker ids, so that the order of arrival never shows.
"""

import math
from typing import Iterable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq import kernels


class Committed(NamedTuple):
    """One selected upload: the worker, its weight n_m, and what its levels stand for, float32[p].
    """

    worker: int
    weight: float
    innovation: np.ndarray


class Bidder(NamedTuple):
    """What the correction needs of one member of B: it bid, or it is missing or was not asked and
    gain is None.
    """

    worker: int
    weight: float
    gain: Optional[float]


def weighted_sum(committed: Sequence[Committed], part: slice) -> np.ndarray:
    """A piece of D = sum n_m c_m in float64, by worker id."""
    ordered = sorted(committed, key=lambda c: c.worker)
    return kernels.weighted_sum([item.innovation for item in ordered],
                                [item.weight for item in ordered], part)


def correction(method: str, bidders: Iterable[Bidder], selected: Iterable[int],
               rho_max: float) -> float:
    """rho: how much the selected stand for all who had something to say.

    bidders: the members that bid, are missing or were not asked (B). count: W_B / W_S. bids: sum_B
    w sqrt(g) / sum_S w sqrt(g), g the bid's gain; a member without a bid counts with the mean
    sqrt(g) of the bids. Never above rho_max.
    """
    bidders, chosen = list(bidders), set(selected)
    if method == "none" or not chosen:
        return 1.0
    roots = [math.sqrt(item.gain) for item in bidders if item.gain is not None]
    mean_root = sum(roots) / len(roots) if roots else 0.0

    def size(item: Bidder) -> float:
        if method == "count":
            return item.weight
        return item.weight * (mean_root if item.gain is None else math.sqrt(item.gain))

    of_all = sum(size(item) for item in bidders)
    of_selected = sum(size(item) for item in bidders if item.worker in chosen)
    if of_selected <= 0:
        return rho_max if of_all > 0 else 1.0
    return min(rho_max, max(1.0, of_all / of_selected))


def mean_non_trainable(uploaded: Sequence[Tuple[int, float, np.ndarray]],
                       fallback: np.ndarray) -> np.ndarray:
    """Weighted mean of the selected workers' non-trainable values, float32[N]; fallback when nobody
    was selected.

    uploaded: (worker, weight, values float32[N]).
    """
    total = sum(weight for _, weight, _ in uploaded)
    if not uploaded or total <= 0:
        return fallback
    mean = np.zeros(fallback.size, np.float64)
    for _, weight, values in sorted(uploaded, key=lambda item: item[0]):
        mean += weight * values.astype(np.float64)
    return (mean / total).astype(np.float32)


def effective_rho_max(configured: Optional[float], num_members: int, sel_clients: int,
                      num_cohorts: int = 1) -> float:
    """The configured cap, else M / sel_clients, else 4 J: a cohort stands for J of its size."""
    if configured is not None:
        return configured
    if sel_clients > 0:
        return max(1.0, num_members / sel_clients)
    return 4.0 * num_cohorts
