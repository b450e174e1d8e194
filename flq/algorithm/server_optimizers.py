"""How the master turns the direction v into a step: theta <- theta - lr step (algorithm.md 1.4).

Each optimiser is an init/apply pair over float32[p] vectors, elementwise, so that its result is the same
on every machine. A new one is one pair and one line in `SERVER_OPTIMIZERS`.
"""

from typing import Any, Callable, NamedTuple, Tuple

import numpy as np


class OptimizerState(NamedTuple):
    """vectors: float32[p] each. powers: beta^t of each moment, by repeated multiplication."""

    vectors: Tuple[np.ndarray, ...]
    powers: Tuple[float, ...]


class ServerOptimizer(NamedTuple):
    """init(num_params) -> state; apply(state, v, model) -> (step, state), model = the configuration's section;
    default_lr(model, local_path) -> lr, local_path = local_lr times the mean number of local steps."""

    init: Callable[[int], OptimizerState]
    apply: Callable[[OptimizerState, np.ndarray, Any], Tuple[np.ndarray, OptimizerState]]
    default_lr: Callable[[Any, float], float]


def _sgd(state: OptimizerState, v: np.ndarray, model: Any) -> Tuple[np.ndarray, OptimizerState]:
    return v, state


def _momentum(state: OptimizerState, v: np.ndarray, model: Any) -> Tuple[np.ndarray, OptimizerState]:
    m = np.float32(model.momentum) * state.vectors[0] + v
    return m, OptimizerState((m,), ())


def _adam(state: OptimizerState, v: np.ndarray, model: Any) -> Tuple[np.ndarray, OptimizerState]:
    """m_t = b1 m + (1 - b1) v; s_t = b2 s + (1 - b2) v^2; step = m_t/(1 - b1^t) / (sqrt(s_t/(1 - b2^t)) + eps).

    FedAdam of Reddi et al. 2021 (algorithm 2) with Adam's bias correction (Kingma and Ba 2015).
    """
    beta1, beta2 = model.momentum, model.adam_beta2
    m = np.float32(beta1) * state.vectors[0] + np.float32(1 - beta1) * v
    s = np.float32(beta2) * state.vectors[1] + np.float32(1 - beta2) * (v * v)
    power1, power2 = state.powers[0] * beta1, state.powers[1] * beta2
    step = (m / np.float32(1 - power1)) / (np.sqrt(s / np.float32(1 - power2)) + np.float32(model.adam_epsilon))
    return step, OptimizerState((m, s), (power1, power2))


def _zeros(count: int, powers: Tuple[float, ...]) -> Callable[[int], OptimizerState]:
    return lambda num_params: OptimizerState(tuple(np.zeros(num_params, np.float32) for _ in range(count)), powers)


SERVER_OPTIMIZERS = {
    "sgd": ServerOptimizer(_zeros(0, ()), _sgd, lambda model, path: path),
    # One gradient moves theta by lr / (1 - beta) in the end: this makes it FedAvg's step.
    "momentum": ServerOptimizer(_zeros(1, ()), _momentum, lambda model, path: (1 - model.momentum) * path),
    "adam": ServerOptimizer(_zeros(2, (1.0, 1.0)), _adam, lambda model, path: 0.01),
}


def server_lr(model: Any, mean_local_steps: float) -> float:
    """The configured rate, or the optimiser's default."""
    if model.lr is not None:
        return model.lr
    return SERVER_OPTIMIZERS[model.server_optimizer].default_lr(model, model.local_lr * mean_local_steps)


def selected_scale(flq: Any, num_selected: int, num_members: int) -> float:
    """The factor of scale_by_selected: min(scale_max, max(1, |S|) / sel_ref), sel_ref 0 = the members."""
    if not flq.scale_by_selected:
        return 1.0
    reference = flq.sel_ref or max(1, num_members)
    return min(flq.scale_max, max(1, num_selected) / reference)
