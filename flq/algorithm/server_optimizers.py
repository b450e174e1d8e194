"""How the master turns the direction v into a step: theta <- theta - lr step (algorithm.md 1.4).

An optimiser is made once from its hyperparameters. It is an init/apply pair over float32[p]
vectors, elementwise, so that its result is the same on every machine. A new one is one function and
one line in `SERVER_OPTIMIZERS`.
"""

from typing import Callable, NamedTuple, Tuple

import numpy as np

from flq.settings import FlqAlgorithmSection, ModelSection

_NOTHING = np.zeros(0, np.float32)


class Hyperparameters(NamedTuple):
    """beta1: also the beta of momentum."""

    beta1: float
    beta2: float
    epsilon: float


class OptimizerState(NamedTuple):
    """What an optimiser keeps between rounds.

    m: running sum or mean of v, s: of v^2, float32[p], of length 0 where none is kept.
    power1, power2: beta1^t and beta2^t, by repeated multiplication; 1 where none is kept.
    """

    m: np.ndarray = _NOTHING
    s: np.ndarray = _NOTHING
    power1: float = 1.0
    power2: float = 1.0


class ServerOptimizer(NamedTuple):
    """init(num_params) -> state; apply(state, v) -> (step, state);
    default_lr(local_path) -> lr, local_path = local_lr times the mean number of local steps."""

    init: Callable[[int], OptimizerState]
    apply: Callable[[OptimizerState, np.ndarray], Tuple[np.ndarray, OptimizerState]]
    default_lr: Callable[[float], float]


def _sgd(given: Hyperparameters) -> ServerOptimizer:
    return ServerOptimizer(lambda num_params: OptimizerState(), lambda state, v: (v, state),
                           lambda path: path)


def _momentum(given: Hyperparameters) -> ServerOptimizer:
    beta = given.beta1

    def init(num_params: int) -> OptimizerState:
        return OptimizerState(m=np.zeros(num_params, np.float32))

    def apply(state: OptimizerState, v: np.ndarray) -> Tuple[np.ndarray, OptimizerState]:
        m = np.float32(beta) * state.m + v
        return m, state._replace(m=m)

    # One gradient moves theta by lr / (1 - beta) in the end: this makes it FedAvg's step.
    return ServerOptimizer(init, apply, lambda path: (1 - beta) * path)


def _adam(given: Hyperparameters) -> ServerOptimizer:
    """m_t = b1 m + (1 - b1) v; s_t = b2 s + (1 - b2) v^2; step = m_t/(1 - b1^t) / (sqrt(s_t/(1 -
    b2^t)) + eps).

    FedAdam of Reddi et al. 2021 (algorithm 2) with Adam's bias correction (Kingma and Ba 2015).
    """
    beta1, beta2, epsilon = given

    def init(num_params: int) -> OptimizerState:
        return OptimizerState(m=np.zeros(num_params, np.float32),
                              s=np.zeros(num_params, np.float32))

    def apply(state: OptimizerState, v: np.ndarray) -> Tuple[np.ndarray, OptimizerState]:
        m = np.float32(beta1) * state.m + np.float32(1 - beta1) * v
        s = np.float32(beta2) * state.s + np.float32(1 - beta2) * (v * v)
        power1, power2 = state.power1 * beta1, state.power2 * beta2
        step = (m / np.float32(1 - power1)) / (np.sqrt(s / np.float32(1 - power2)) +
                                               np.float32(epsilon))
        return step, OptimizerState(m, s, power1, power2)

    return ServerOptimizer(init, apply, lambda path: 0.01)


SERVER_OPTIMIZERS = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}


def configured(model: ModelSection) -> ServerOptimizer:
    """The optimiser that a configuration names."""
    return SERVER_OPTIMIZERS[model.server_optimizer](Hyperparameters(model.momentum,
                                                                     model.adam_beta2,
                                                                     model.adam_epsilon))


def server_lr(model: ModelSection, mean_local_steps: float) -> float:
    """The configured rate, or the optimiser's default."""
    if model.lr is not None:
        return model.lr
    return configured(model).default_lr(model.local_lr * mean_local_steps)


def selected_scale(algorithm: FlqAlgorithmSection, num_selected: int, num_members: int) -> float:
    """The factor of scale_by_selected: min(scale_max, max(1, |S|) / sel_ref), sel_ref 0 = the
    members.
    """
    if not algorithm.scale_by_selected:
        return 1.0
    reference = algorithm.sel_ref or max(1, num_members)
    return min(algorithm.scale_max, max(1, num_selected) / reference)
