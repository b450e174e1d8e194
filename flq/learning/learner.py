"""What a machine can do: train on the shards of its workers and test a model.

TensorFlow starts in build_learner.
"""

import contextlib
import functools
import logging
import queue
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.compression import quantizer_of
from flq.errors import DataError, ProtocolError
from flq.learning import device
from flq.learning.ahead import Ahead
from flq.learning.batches import batch_orders, local_steps_of
from flq.learning.datasets import check_dataset, computes_with_tensorflow, load_dataset
from flq.learning.datasets.columns import columns_of, scale_warning, standard
from flq.learning.datasets.dataset import Dataset
from flq.learning.initial import initial_params
from flq.learning.interface import Learner
from flq.learning.limits import Limits
from flq.learning.models import (
    MODELS,
    NUM_PARAMS,
    build_model,
    check_model,
    constant_variables,
    layout_of,
    non_trainable_variables,
    trainable_variables,
)
from flq.learning.partition import data_hash, partition
from flq.parameters import constants_hash, flatten
from flq.records import Evaluation, LocalResult
from flq.settings import Config
from flq.user_code import blamed

_log = logging.getLogger("flq.learning")


class TensorFlowLearner(Learner):
    """The training data of some workers, a test set, and copies of the model to use them with; made
    by build_learner.

    As many calls compute at the same time as there are copies, and no result depends on which copy
    it was. new_model(): another copy of the model, with weights of its own.
    """

    def __init__(self, config: Config, shards: Sequence[np.ndarray], rows: Dict[int, np.ndarray],
                 hash_: str, model: Any, trainers: Sequence[Any],
                 new_model: Callable[[], Any]) -> None:
        self._config = config
        self.new_model = new_model
        self._shards = shards
        self._rows = rows
        self.layout = layout_of(model)
        self.builtin_model = config.model.name in MODELS
        self.partition_hash = hash_
        # Read before the copies are used, which changes their weights. Those of a model that
        # everybody can draw are drawn when they are asked for.
        self._model_params = None if self.builtin_model else flatten(
            [variable.numpy() for variable in trainable_variables(model)], self.layout.shapes)
        self._model_non_trainable = flatten(
            [variable.numpy() for variable in non_trainable_variables(model)],
            self.layout.non_trainable_shapes)
        self._num_trainers = len(trainers)
        self._ahead = Ahead(self._order)
        self._constants_lock = threading.Lock()
        self._constants_checked = False
        self._idle: Any = queue.LifoQueue()
        for trainer in trainers:
            self._idle.put(trainer)
        if self.layout.num_constants:
            # The copies may have drawn others.
            self._set_constants(
                flatten([variable.numpy() for variable in constant_variables(model)],
                        self.layout.constant_shapes))

    def num_samples(self, worker: int) -> int:
        return len(self._shards[worker])

    def num_local_steps(self, worker: int) -> int:
        """E_m, the number of local SGD steps of a worker in a round."""
        return local_steps_of(self._config, self.num_samples(worker))

    def initial(self) -> Tuple[np.ndarray, np.ndarray]:
        """Drawn from the seed, or as the user's function returned them."""
        if self._model_params is None:
            return initial_params(self.layout, self._config.model.init,
                                  self._config.dataset.seed), self._model_non_trainable.copy()
        return self._model_params.copy(), self._model_non_trainable.copy()

    def hold_constants(self, digest: str, fetch: Callable[[], bytes]) -> bool:
        with self._constants_lock:  # the workers of a process ask once together
            if constants_hash(self.constants) == digest:
                return False
            data = fetch()
            if len(data) != 4 * self.layout.num_constants or constants_hash(data) != digest:
                raise ProtocolError("other_base",
                                    "the values of the frozen layers are not the master's",
                                    f"{4 * self.layout.num_constants} bytes with hash {digest}",
                                    f"{len(data)} bytes with hash {constants_hash(data)}")
            self._set_constants(np.frombuffer(data, "<f4").astype(np.float32))
            return True

    def _set_constants(self, values: np.ndarray) -> None:
        # nobody computes meanwhile
        trainers = [self._idle.get() for _ in range(self._num_trainers)]
        for trainer in trainers:
            trainer.set_constants(values)
            self._idle.put(trainer)
        self.constants = values.astype("<f4").tobytes()

    def _check_constants(self, trainer: Any) -> None:
        """After the first update: a layer of one's own may change its values although it is frozen.
        """
        if self.layout.num_constants and not self._constants_checked:
            if trainer.constants.astype("<f4").tobytes() != self.constants:
                raise DataError("a frozen layer changed its own values in training",
                                "values that stay as they are", "other ones",
                                "set trainable = True for that layer, so that its values travel")
            self._constants_checked = True

    def local_update(self, params: np.ndarray, non_trainable: np.ndarray, worker: int,
                     round_: int) -> LocalResult:
        """Trainer.local_update on the worker's samples."""
        rows, batch = self._ahead.take(worker, round_) or self._order(worker, round_)
        steps = self.num_local_steps(worker)
        with self._trainer() as trainer:
            update, new_values, loss = trainer.local_update(params, non_trainable, rows, batch,
                                                            steps)
            self._check_constants(trainer)
        return LocalResult(update, new_values, loss, steps)

    def prepare(self, worker: int, round_: int) -> None:
        """Draw the round's order of samples. Not where more workers train than there are copies:
        while one of them waits, another needs the processor.
        """
        if len(self._rows) <= self._num_trainers:
            self._ahead.prepare(worker, round_)

    def is_preparing(self) -> bool:
        return self._ahead.is_busy()

    def _order(self, worker: int, round_: int) -> Tuple[np.ndarray, int]:
        """int32[passes, length] of positions in the samples that are kept, and the batch size."""
        model = self._config.model
        orders, batch = batch_orders(self.num_samples(worker), self._config.dataset.batch_size,
                                     model.local_epochs, model.local_steps,
                                     self._config.dataset.seed, worker, round_)
        return self._rows[worker][orders], batch

    def evaluate(self, params: np.ndarray, non_trainable: np.ndarray) -> Evaluation:
        with self._trainer() as trainer:
            return trainer.evaluate(params, non_trainable)

    def weights(self, params: np.ndarray, non_trainable: np.ndarray) -> List[np.ndarray]:
        """All weights of a model, those of frozen layers too, in Keras's order."""
        with self._trainer() as trainer:
            weights: List[np.ndarray] = trainer.weights(params, non_trainable)
        return weights

    def device(self) -> Dict[str, Any]:
        return device.describe()

    @contextlib.contextmanager
    def _trainer(self) -> Iterator[Any]:
        trainer = self._idle.get()
        try:
            yield trainer
        finally:
            self._idle.put(trainer)


def check(config: Config) -> None:
    """Refuse at once, without TensorFlow, a data set or a model that is not there, or a quantiser
    that cannot be used. Raises DataError.
    """
    quantizer_of(config.flq_algorithm.mode)
    check_dataset(config.dataset.name, config.dataset.data_dir)
    check_model(config.model.name)


def build_learner(config: Config, workers: Sequence[int], evaluate: bool, replicas: int = 1,
                  limits: Optional[Limits] = None) -> TensorFlowLearner:
    """Load the data once, keep what is needed, build and compile the model.

    workers: whose shards this process trains on; the rest of the training set is dropped. evaluate:
    whether it keeps the test set. replicas: how many local updates may run at the same time, each
    on a copy of the model. limits: of a configuration that is somebody else's. Raises DataError and
    ConfigError.
    """
    check(config)
    own_code = computes_with_tensorflow(config.dataset.name, config.dataset.data_dir)
    if own_code:
        _start_tensorflow(config, replicas)
    # Else the data set comes before TensorFlow: what is dropped of it leaves no gaps, since
    # TensorFlow is loaded into the same pages.
    with _told(f"reading the data set {config.dataset.name}"):
        data = _read(config, workers, evaluate, limits)
    if not own_code:
        _start_tensorflow(config, replicas)
    from flq.learning.trainer import Trainer, to_samples

    train, test = (arrays and to_samples(*arrays, scale=data.scale)
                   for arrays in (data.train, data.test))
    data = data._replace(train=None, test=None)  # the tensors are the one copy from here on
    with _told(f"building the model {config.model.name}"):
        form = config.model.name, data.input_shape, data.num_classes, data.standard
        new_model = functools.partial(build_model, *form, warn=False)
        models = [build_model(*form)]
        if limits:
            limits.check_layout(config.model.name, layout_of(models[0]))
        models += [new_model() for _ in range(replicas - 1)]
        pipelined = device.has_gpu() and config.jetson_optimization.prefetch_size > 0
        with blamed(config.model.name, "a model that can be trained in a tf.function"):
            trainers = [Trainer(model, train, test, config, pipelined) for model in models]
    return TensorFlowLearner(config, data.shards, data.rows, data.hash, models[0], trainers,
                             new_model)


def _start_tensorflow(config: Config, replicas: int) -> None:
    with _told("loading TensorFlow"):
        device.configure(config, replicas)


class _Data(NamedTuple):
    """What is kept of a data set. train, test: x and y, None for what is not needed. rows: for each
    worker the int32 positions of its samples in train. standard: as of build_model.
    """

    train: Optional[Tuple[np.ndarray, np.ndarray]]
    test: Optional[Tuple[np.ndarray, np.ndarray]]
    scale: float
    input_shape: Tuple[int, ...]
    num_classes: int
    standard: Optional[Tuple[np.ndarray, np.ndarray]]
    shards: Sequence[np.ndarray]
    rows: Dict[int, np.ndarray]
    hash: str


def _read(config: Config, workers: Sequence[int], evaluate: bool,
          limits: Optional[Limits]) -> _Data:
    dataset = load_dataset(config.dataset.name, config.dataset.data_dir,
                           check_images=limits.check_images if limits else None)
    shards = partition(dataset.y_train, dataset.clients_train, config)
    input_shape = dataset.x_train.shape[1:]
    if limits:
        limits.check_training(config, input_shape, [len(shards[worker]) for worker in workers])
        if config.model.name in NUM_PARAMS:
            limits.check_model(config.model.name, NUM_PARAMS[config.model.name](
                input_shape, dataset.num_classes))
    kept, rows = _own_rows(shards, workers, len(dataset.y_train))
    train = (dataset.x_train[kept], dataset.y_train[kept]) if workers else None
    test = (dataset.x_test, dataset.y_test) if evaluate else None
    return _Data(train, test, dataset.scale, input_shape, dataset.num_classes,
                 _standard(dataset, config), shards, rows, data_hash(shards, dataset, config))


def _standard(dataset: Dataset, config: Config) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation of the features of all training samples of this machine's files, where
    dataset.standardize asks for them; else a warning where a feature is too large without."""
    if config.dataset.standardize:
        return standard(columns_of(dataset.x_train, dataset.scale))
    warning = scale_warning(dataset, config.model.local_lr)
    if warning is not None:
        _log.warning("%s; python -m flq check-data shows every column", warning)
    return None


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What takes seconds, on a small machine tens of them, is in the log when it begins and when it
    is done.
    """
    _log.info("%s ...", what)
    started = time.monotonic()
    yield
    _log.info("%s: done in %.1f s", what, time.monotonic() - started)


def _own_rows(shards: Sequence[np.ndarray], workers: Sequence[int],
              num_samples: int) -> Tuple[Any, Dict[int, np.ndarray]]:
    """An index of the samples to keep, and for each worker the int32 positions of its samples among
    them.
    """
    own = np.unique(np.concatenate([shards[worker]
                                    for worker in workers])) if workers else np.zeros(0, np.int64)
    rows = {worker: np.searchsorted(own, shards[worker]).astype(np.int32) for worker in workers}
    return (slice(None) if len(own) == num_samples else own), rows  # a slice does not copy the set
