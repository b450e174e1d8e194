"""The memories: what a worker remembers of what was sent, and what the master makes of it
(algorithm.md 2 and 3).

    reference   d = u - h, c = Q(d);  committed: h + a c, else: h
                v = (A + rho sum_S n_m c_m) / N;  A <- A + a sum_S n_m c_m
                (a = 1: LAQ, Sun 2019, eq. 4 to 6; EF21, Richtarik 2021;
                a < 1: DIANA, Mishchenko 2019, algorithm 1)
    residual    d = u + e, c = Q(d);  committed: d - c, else: d
                v = sum_S n_m c_m / N
                (Seide 2014; Karimireddy 2019, algorithm 2)
    none        d = u,     c = Q(d)
                v = sum_S n_m c_m / sum_S n_m

A = sum n_m h_m and N = sum n_m over members. Both sides keep h and A without the memory rate a:
g = h / a, the sum of what was committed, and sum n_m g_m. So they are float64 sums of the same
float32 terms c for every a, and nothing is rounded because of it (decision 20); a c that is far
smaller than g is not lost on one side only (decision 18). e is float32.

Example: u = 1.0, Q rounds to halves, and the worker remembers 0.3. With `reference` d = 0.7 and c =
0.5: h becomes 0.8 when it is committed, and stays 0.3 when it is not. With `residual` d = 1.3 and c
= 1.5: e becomes -0.2 or 1.3.

Another memory is a value here, with its name in `MEMORIES` and in modes.MEMORIES. `configured`
gives the one of a configuration, at its rate.
"""

import functools
from typing import Any, Callable, NamedTuple, Optional, Tuple

import numpy as np

from flq import kernels
from flq.compression.quantizer import FLOAT32_MAX
from flq.settings import FlqAlgorithmSection


class Memory(NamedTuple):
    """One rule. A worker's memory is one vector, or None; no function changes its arguments.

    dtype: what the vector is kept in; None where there is none. What is kept of a reference is g,
        and of A the sum of n_m g_m: their place is the same at every rate.
    difference(update float32[p], memory) -> d float32[p], what is quantised, and ||d||^2, finite
        where all of d is.
    keep(memory, d) -> what the worker holds when the update is not committed.
    commit(kept, c) -> what it holds when it is, from what it would hold otherwise, and whether it
        may become this: who would leave the range stays silent instead. So a state file stores one
        vector for both futures, and the master, who sees only c, can add up h_m.
    gain(||d||^2, ||d - c||^2) -> what a bid is worth, before the worker's weight.
    has_reference_sum: whether the master holds A / a, and corrects v for who was refused.
    accumulate(sum n_m g_m, D, out): that sum after a round, in `out`; where the master holds it.
        D = sum_S n_m c_m, float64.
    direction(sum n_m g_m, N, D, sum_S n_m, rho, out) -> whether the optimiser is to step, with v in
        `out`, float32. The sum: before the round. N: after it. Both functions are elementwise, and
        are given pieces of their vectors.
    rate: a, 1 where there is no reference.
    """

    name: str
    dtype: Any
    difference: Callable[[np.ndarray, Any], Tuple[np.ndarray, float]]
    keep: Callable[[Any, np.ndarray], Any]
    commit: Callable[[Any, np.ndarray], Tuple[Any, bool]]
    gain: Callable[[float, float], float]
    has_reference_sum: bool
    accumulate: Callable[[Any, np.ndarray, np.ndarray], Any]
    direction: Callable[[Any, float, np.ndarray, float, float, np.ndarray], bool]
    rate: float = 1.0

    @property
    def bounds_gain(self) -> bool:
        """Whether a bid's gain is what the error shrinks by: then it is not far from ||c||^2."""
        return self.gain is _error_gone

    @property
    def keeps_unsent(self) -> bool:
        """Whether what was not committed is part of the next d."""
        return self.dtype is not None and not self.has_reference_sum

    def initial(self, num_params: int) -> Optional[np.ndarray]:
        """h or e = 0."""
        return None if self.dtype is None else np.zeros(num_params, self.dtype)


def _measured(d: np.ndarray) -> Tuple[np.ndarray, float]:
    return d, kernels.squared_norm(d)


def _around_reference(rate: float, reference_sum: Any, total_weight: float, weighted: np.ndarray,
                      selected_weight: float, rho: float, out: np.ndarray) -> bool:
    """H + rho sum_S w_m c_m; H itself when nobody was selected."""
    if total_weight <= 0:
        return False
    kernels.around_reference(reference_sum, rate, weighted, rho, total_weight, out)
    return True


def _mean_of_members(reference_sum: Any, total_weight: float, weighted: np.ndarray,
                     selected_weight: float, rho: float, out: np.ndarray) -> bool:
    """Fixed weights: fewer uploads make a smaller step, because what is missing is still in
    somebody's e.
    """
    if selected_weight <= 0:
        return False
    out[...] = weighted / total_weight
    return True


def _mean_of_selected(reference_sum: Any, total_weight: float, weighted: np.ndarray,
                      selected_weight: float, rho: float, out: np.ndarray) -> bool:
    if selected_weight <= 0:
        return False
    out[...] = weighted / selected_weight
    return True


def _error_gone(norm2: float, error2: float) -> float:
    return max(0.0, norm2 - error2)


def reference(rate: float) -> Memory:
    """The memory `reference` whose h takes in the part `rate` of each c, 0 < rate <= 1."""
    return Memory("reference", np.float64,
                  difference=functools.partial(kernels.from_reference, rate), keep=lambda g, d: g,
                  # No mean of references beyond float32 is a float32 direction.
                  commit=functools.partial(kernels.to_reference, rate, FLOAT32_MAX),
                  gain=_error_gone, has_reference_sum=True,
                  accumulate=np.add,
                  direction=functools.partial(_around_reference, rate), rate=rate)


def _nothing(total: Any, weighted: np.ndarray, out: np.ndarray) -> None:
    """The master holds no sum."""


REFERENCE = reference(1.0)
RESIDUAL = Memory("residual", np.float32, difference=lambda update, e: _measured(update + e),
                  keep=lambda e, d: d, commit=lambda d, c: (d - c, True), gain=_error_gone,
                  has_reference_sum=False, accumulate=_nothing,
                  direction=_mean_of_members)
NONE = Memory("none", None, difference=lambda update, _: _measured(update), keep=lambda _, d: None,
              commit=lambda _, c: (None, True), gain=lambda norm2, error2: norm2,
              has_reference_sum=False, accumulate=_nothing,
              direction=_mean_of_selected)

MEMORIES = {memory.name: memory for memory in (REFERENCE, RESIDUAL, NONE)}


def configured(algorithm: FlqAlgorithmSection) -> Memory:
    """The memory of a configuration, at its rate where it has one."""
    memory = MEMORIES[algorithm.memory]
    rate = algorithm.memory_rate
    return reference(rate) if memory is REFERENCE and rate != 1 else memory
