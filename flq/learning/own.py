"""Learners of a user's own, in any framework: four methods over lists of arrays.

A run of such learners has model.name `own`. What a worker sends is its pseudo-gradient, the
weights that came minus those that its training gave (Reddi et al. 2021, algorithm 1), so that with
the server rate 1 a round of float32 is FedAvg (docs/frameworks.md).
"""

import abc
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from flq import config as configuration
from flq.errors import ConfigError, DataError
from flq.host import jetson
from flq.keys import BY_PATH, OWN_MODEL
from flq.learning import device, interface
from flq.learning.ahead import Ahead
from flq.parameters import Layout, flatten, unflatten
from flq.records import Evaluation, LocalResult
from flq.user_code import blamed

_SET = {"model.name": OWN_MODEL, "dataset.partition": "local", "model.local_steps": 1,
        "model.local_epochs": None, "model.local_lr": 1.0}
_OF_TRAINING = ("dataset.name", "dataset.batch_size", "dataset.dir_alpha", "dataset.data_dir",
                "model.init", "model.l2", "model.l2_biases", "model.num_threads",
                "jetson_optimization.gpu_memory_limit_mb",
                "jetson_optimization.enable_mixed_precision", "jetson_optimization.prefetch_size",
                "jetson_optimization.num_parallel_calls")
"""Keys of FLQ's own training, which such a learner does not read."""


class Learner(abc.ABC):
    """What FLQ needs of a training program of your own; any object with these four methods is one.

    Weights are lists of float32 arrays, always in the same order and shapes. num_moving: how many
    of them, at the end of the list, training changes without a gradient (the moving means of batch
    normalisation): they travel in float32 and are averaged. A worker never calls `evaluate`, a
    master never `train`.

    >>> import numpy as np
    >>> import flq
    >>> class Mean(flq.Learner):
    ...     '''The mean of some numbers, found by gradient steps.'''
    ...     def __init__(self, numbers):
    ...         self.numbers = np.asarray(numbers, np.float32)
    ...     def weights(self):
    ...         return [np.zeros(1, np.float32)]
    ...     def num_samples(self):
    ...         return len(self.numbers)
    ...     def train(self, weights, round_):
    ...         error = weights[0] - self.numbers.mean()
    ...         return [weights[0] - 0.5 * error], float(error[0] ** 2)
    ...     def evaluate(self, weights):
    ...         return 1.0, float((weights[0][0] - self.numbers.mean()) ** 2), len(self.numbers)
    >>> result = flq.simulate(learners=[Mean([1, 2]), Mean([3, 6])], mode="laq", max_rounds=20)
    >>> round(float(result.weights[0][0]), 3)
    3.0
    """

    num_moving = 0

    @abc.abstractmethod
    def weights(self) -> Sequence[np.ndarray]:
        """The first model. The run starts from the master's; of a worker's only the shapes count.
        """

    @abc.abstractmethod
    def num_samples(self) -> int:
        """How much data this worker has: its weight in the average, at least 1."""

    @abc.abstractmethod
    def train(self, weights: List[np.ndarray], round_: int) -> Tuple[Sequence[Any], float]:
        """Train from these weights, which may be changed in place: the new weights, and the mean
        loss on the way.
        """

    def prepare(self, round_: int) -> None:
        """Optional: make ready what training in this round needs beside the weights, such as its
        batches. Called on a thread of FLQ's while a worker's upload waits, never beside `train`;
        the round may not come, and others may come without a call.
        """

    @abc.abstractmethod
    def evaluate(self, weights: List[np.ndarray]) -> Tuple[float, float, int]:
        """Test these weights on the master's test set: accuracy, mean loss, number of samples."""


METHODS = tuple(sorted(Learner.__abstractmethods__))


class OwnLearner(interface.Learner):
    """A user's learners as the worker loop and the master use them: of each worker of this process,
    and of the one that starts and tests the model.

    Raises DataError for an object that is no learner.
    """

    builtin_model = False
    partition_hash = ""

    def __init__(self, workers: Mapping[int, Any], first: Optional[Any] = None) -> None:
        self._workers = dict(workers)
        self._first = first if first is not None else next(iter(self._workers.values()))
        everybody = list(self._workers.values()) + [self._first]
        self._locks = {id(learner): threading.Lock() for learner in everybody}
        tensors: List[np.ndarray] = []
        for learner in everybody:
            tensors = _checked_weights(learner)
        moving = _moving(self._first, tensors)
        split = len(tensors) - moving
        shapes = [tuple(tensor.shape) for tensor in tensors]
        self.layout = Layout(tuple(shapes[:split]), tuple(shapes[split:]))
        self._ahead = Ahead(self._prepare)
        self._initial = (flatten(tensors[:split], self.layout.shapes),
                         flatten(tensors[split:], self.layout.non_trainable_shapes))

    def num_samples(self, worker: int) -> int:
        learner = self._workers[worker]
        with blamed(_name(learner), "the number of samples"):
            samples = learner.num_samples()
        if not isinstance(samples, (int, np.integer)) or isinstance(samples, bool) or samples < 1:
            raise DataError(f"{_name(learner)}.num_samples gave no usable number",
                            "a whole number of at least 1", samples)
        return int(samples)

    def initial(self) -> Tuple[np.ndarray, np.ndarray]:
        params, non_trainable = self._initial
        return params.copy(), non_trainable.copy()

    def local_update(self, params: np.ndarray, non_trainable: np.ndarray, worker: int,
                     round_: int) -> LocalResult:
        """The pseudo-gradient of the learner's own training."""
        learner, expected = self._workers[worker], "the new weights and the mean loss"
        self._ahead.take(worker, round_)
        with self._locks[id(learner)], blamed(_name(learner), expected):
            trained, loss = _pair(learner, learner.train(self.weights(params, non_trainable),
                                                         round_))
        if len(trained) != self.layout.num_tensors + len(self.layout.non_trainable_shapes):
            raise DataError(f"{_name(learner)}.train gave another number of arrays",
                            self.layout.num_tensors + len(self.layout.non_trainable_shapes),
                            len(trained))
        split = self.layout.num_tensors
        with np.errstate(over="ignore", invalid="ignore"):  # a round that diverged is a silence
            update = params - flatten(trained[:split], self.layout.shapes)
        return LocalResult(update, flatten(trained[split:], self.layout.non_trainable_shapes), loss,
                           1)

    def prepare(self, worker: int, round_: int) -> None:
        """The learner's own, where it is a flq.Learner that has one: another object's method of
        that name may be anything. Not where several share this process, for its processors.
        """
        learner = self._workers[worker]
        overridden = getattr(type(learner), "prepare", None) is not Learner.prepare
        if isinstance(learner, Learner) and overridden and len(self._workers) == 1:
            self._ahead.prepare(worker, round_)

    def is_preparing(self) -> bool:
        return self._ahead.is_busy()

    def _prepare(self, worker: int, round_: int) -> None:
        learner = self._workers[worker]
        with self._locks[id(learner)], blamed(_name(learner), "a round made ready"):
            learner.prepare(round_)

    def evaluate(self, params: np.ndarray, non_trainable: np.ndarray) -> Evaluation:
        learner = self._first
        with self._locks[id(learner)], blamed(_name(learner), "accuracy, loss and samples"):
            accuracy, loss, samples = learner.evaluate(self.weights(params, non_trainable))
            return Evaluation(float(accuracy), float(loss), int(samples))

    def weights(self, params: np.ndarray, non_trainable: np.ndarray) -> List[np.ndarray]:
        """The arrays of a model in the learner's order; they may be changed."""
        return (unflatten(params.copy(), self.layout.shapes) +
                unflatten(non_trainable.copy(), self.layout.non_trainable_shapes))

    def new_model(self) -> Any:
        """Raises DataError: the learner has the model."""
        raise DataError("this run has no Keras model", "its weights",
                        hint="result.weights has them in the order of its weights()")

    def device(self) -> Dict[str, Any]:
        return dict(device.program(), **jetson.describe())


def configured(loaded: configuration.Loaded) -> configuration.Loaded:
    """The configuration of a run of own learners. Raises ConfigError where somebody changed what
    such a learner decides by itself.
    """
    values = configuration.flat(loaded.config)
    for path in sorted(loaded.explicit.intersection(_OF_TRAINING + tuple(_SET))):
        if values[path] not in (BY_PATH[path].default, _SET.get(path, BY_PATH[path].default)):
            raise ConfigError(f"{path} does not fit a learner of your own",
                              "a configuration without it", values[path],
                              "the learner trains in its own way; model.lr is the master's rate")
    return configuration.Loaded(
        configuration.build(dict(values, **_SET)),
        loaded.explicit | {path for path, value in _SET.items() if value is not None})


def require_own(name: str) -> None:
    """Raises ConfigError for a run whose master has no own learner. name: its model.name."""
    if name != OWN_MODEL:
        raise ConfigError("this run trains a model of FLQ's, not a learner of your own",
                          f"model.name {OWN_MODEL}", name, "start its master with flq.master.serve")


def _checked_weights(learner: Any) -> List[np.ndarray]:
    missing = [name for name in METHODS if not callable(getattr(learner, name, None))]
    if missing:
        raise DataError(f"{_name(learner)} is no learner",
                        f"an object with the methods {', '.join(METHODS)}",
                        f"one without {', '.join(missing)}")
    with blamed(_name(learner), "a list of float32 arrays"):
        tensors = [np.asarray(tensor) for tensor in learner.weights()]
    wrong = sorted({str(tensor.dtype) for tensor in tensors} - {"float32"})
    if wrong or not sum(tensor.size for tensor in tensors):
        raise DataError(f"{_name(learner)}.weights gave nothing that FLQ can send",
                        "float32 arrays with at least one number", ", ".join(wrong) or "none")
    return tensors


def _moving(learner: Any, tensors: Sequence[np.ndarray]) -> int:
    moving = getattr(learner, "num_moving", 0)
    if not isinstance(moving, int) or not 0 <= moving < len(tensors):
        raise DataError(f"{_name(learner)}.num_moving is not usable",
                        f"a number from 0 to {len(tensors) - 1}", moving)
    return moving


def _pair(learner: Any, answer: Any) -> Tuple[List[Any], float]:
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise DataError(f"{_name(learner)}.train gave something else",
                        "the new weights and the mean loss", type(answer).__name__)
    return [np.asarray(tensor) for tensor in answer[0]], float(answer[1])


def _name(learner: Any) -> str:
    kind = type(learner)
    return f"{kind.__module__}:{kind.__qualname__}"
