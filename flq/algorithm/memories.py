"""The memories: what a worker remembers of what was sent, and what the master makes of it
(algorithm.md 2 and 3).

    reference   d = u - h, c = Q(d);  committed: h + c, else: h
                v = (A + rho sum_S n_m c_m) / N;  A <- A + sum_S n_m c_m
                (LAQ, Sun 2019, eq. 4 to 6; EF21, Richtarik 2021)
    residual    d = u + e, c = Q(d);  committed: d - c, else: d
                v = sum_S n_m c_m / N
                (Seide 2014; Karimireddy 2019, algorithm 2)
    none        d = u,     c = Q(d)
                v = sum_S n_m c_m / sum_S n_m

A = sum n_m h_m and N = sum n_m over members. h is float64, as A is: both are sums of the same
float32 terms c, and a c that is far smaller than h is not lost on one side only (decision 18). e is
float32.

Example: u = 1.0, Q rounds to halves, and the worker remembers 0.3. With `reference` d = 0.7 and c =
0.5: h becomes 0.8 when it is committed, and stays 0.3 when it is not. With `residual` d = 1.3 and c
= 1.5: e becomes -0.2 or 1.3.

Another memory is a value here, with its name in `MEMORIES` and in modes.MEMORIES. A reference that
learns at a rate a (DIANA, Mishchenko
2019) would be REFERENCE with the commit h + a c and the sum A + a D.
"""

from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from flq.compression.quantizer import FLOAT32_MAX


class Memory(NamedTuple):
    """One rule. A worker's memory is one vector, or None; no function changes its arguments.

    dtype: what the vector is kept in; None where there is none.
    difference(update float32[p], memory) -> d float32[p], what is quantised.
    keep(memory, d) -> what the worker holds when the update is not committed.
    commit(kept, c) -> what it holds when it is, from what it would hold otherwise: so a state file
        stores one vector for both futures, and the master, who sees only c, can add up h_m.
    in_range(committed) -> whether the memory may become this. Who would leave the range stays
        silent instead.
    gain(||d||^2, ||d - c||^2) -> what a bid is worth, before the worker's weight.
    has_reference_sum: whether the master holds A, and corrects v for who was refused.
    accumulate(A, D) -> A after a round, None without one. D = sum_S n_m c_m, float64.
    direction(A, N, D, sum_S n_m, rho) -> v float32[p], None when the optimiser must not step.
        A: before the round. N: after it.
    """

    name: str
    dtype: Any
    difference: Callable[[np.ndarray, Any], np.ndarray]
    keep: Callable[[Any, np.ndarray], Any]
    commit: Callable[[Any, np.ndarray], Any]
    in_range: Callable[[Any], bool]
    gain: Callable[[float, float], float]
    has_reference_sum: bool
    accumulate: Callable[[Any, np.ndarray], Any]
    direction: Callable[[Any, float, np.ndarray, float, float], Optional[np.ndarray]]

    def initial(self, num_params: int) -> Optional[np.ndarray]:
        """h or e = 0."""
        return None if self.dtype is None else np.zeros(num_params, self.dtype)


def _from_reference(update: np.ndarray, h: Any) -> np.ndarray:
    """u - h, in float64 and rounded once; NumPy does it piece by piece, without a vector of
    float64.
    """
    return np.subtract(update, h, out=np.empty_like(update), dtype=np.float64)


def _in_float32(h: Any) -> bool:
    """No mean of references beyond float32 is a float32 direction."""
    return bool(h.max() <= FLOAT32_MAX and h.min() >= -FLOAT32_MAX)


def _around_reference(reference_sum: Any, total_weight: float, weighted: np.ndarray,
                      selected_weight: float, rho: float) -> Optional[np.ndarray]:
    """H + rho sum_S w_m c_m; H itself when nobody was selected."""
    if total_weight <= 0:
        return None
    return ((reference_sum + rho * weighted) / total_weight).astype(np.float32)


def _mean_of_members(reference_sum: Any, total_weight: float, weighted: np.ndarray,
                     selected_weight: float, rho: float) -> Optional[np.ndarray]:
    """Fixed weights: fewer uploads make a smaller step, because what is missing is still in
    somebody's e.
    """
    return None if selected_weight <= 0 else (weighted / total_weight).astype(np.float32)


def _mean_of_selected(reference_sum: Any, total_weight: float, weighted: np.ndarray,
                      selected_weight: float, rho: float) -> Optional[np.ndarray]:
    return None if selected_weight <= 0 else (weighted / selected_weight).astype(np.float32)


def _error_gone(norm2: float, error2: float) -> float:
    return max(0.0, norm2 - error2)


REFERENCE = Memory("reference", np.float64, difference=_from_reference, keep=lambda h, d: h,
                   commit=lambda h, c: h + c, in_range=_in_float32, gain=_error_gone,
                   has_reference_sum=True, accumulate=lambda total, weighted: total + weighted,
                   direction=_around_reference)
RESIDUAL = Memory("residual", np.float32, difference=lambda update, e: update + e,
                  keep=lambda e, d: d, commit=lambda d, c: d - c, in_range=lambda e: True,
                  gain=_error_gone, has_reference_sum=False,
                  accumulate=lambda total, weighted: None, direction=_mean_of_members)
NONE = Memory("none", None, difference=lambda update, _: update, keep=lambda _, d: None,
              commit=lambda _, c: None, in_range=lambda _: True, gain=lambda norm2, error2: norm2,
              has_reference_sum=False, accumulate=lambda total, weighted: None,
              direction=_mean_of_selected)

MEMORIES = {memory.name: memory for memory in (REFERENCE, RESIDUAL, NONE)}
