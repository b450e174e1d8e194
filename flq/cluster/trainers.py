"""The workers of a simulation, trained on a Ray cluster.

Only the training goes to the nodes: it is a function of the model, the worker and the round
(interface.Learner), so that a node that dies has nothing that is not computed again elsewhere.
What a worker remembers stays with the run (docs/decisions/0038-ray-trains.md).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import Any, Callable, Iterator

import numpy as np

from flq import config as configuration
from flq.cluster.nodes import Share, connected, room
from flq.errors import DataError, FlqError, in_one_line
from flq.learning.interface import Learner
from flq.learning.learner import TensorFlowLearner, build_learner
from flq.parameters import constants_hash
from flq.records import Evaluation, LocalResult
from flq.settings import Config

_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 60.0
_LOSSES_OF_EACH = 5  # trainers that end before one has trained: then something else is wrong

_log = logging.getLogger("flq.cluster")


class Trainer:
    """On a node: the shards of all workers and one copy of the model."""

    def load(self, values: dict[str, Any], digest: str, constants: bytes) -> tuple[str, str]:
        """Read the data and build the model of a configuration by path, with these frozen layers;
        the hashes of the partition and of the model's shapes.
        """
        config = configuration.build(values)
        self._learner = build_learner(config, range(config.system.total_workers), evaluate=False)
        if constants:
            self._learner.hold_constants(digest, lambda: constants)
        return self._learner.partition_hash, self._learner.layout.hash()

    def local_update(self, params: np.ndarray, non_trainable: np.ndarray, worker: int,
                     round_: int) -> LocalResult:
        """Learner.local_update"""
        return self._learner.local_update(params, non_trainable, worker, round_)


class ClusterLearner(Learner):
    """Trains on the nodes of a cluster, as many workers at a time as there are trainers, and tests
    here.

    ray: the connected module. number: of trainers; each takes a share of a node. A trainer whose
    node dies is replaced as soon as one fits somewhere, and what it was asked is asked of another;
    while there is none, everybody waits. close() ends them.
    """

    def __init__(self, ray: Any, config: Config, number: int, share: Share) -> None:
        self._ray, self._closed = ray, threading.Event()
        self._local: TensorFlowLearner = build_learner(config, (), evaluate=True)
        self.layout, self.builtin_model = self._local.layout, self._local.builtin_model
        self.partition_hash, self.constants = self._local.partition_hash, self._local.constants
        self.at_a_time = number
        self._trainer = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(Trainer)
        self._made_of = (dict(configuration.flat(config)), constants_hash(self.constants),
                         self.constants)
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._problem: Exception | None = None
        self._losses, self._most_losses = 0, _LOSSES_OF_EACH * number
        for _ in range(number):
            self._begin_one()

    def num_samples(self, worker: int) -> int:
        return self._local.num_samples(worker)

    def initial(self) -> tuple[np.ndarray, np.ndarray]:
        return self._local.initial()

    def evaluate(self, params: np.ndarray, non_trainable: np.ndarray) -> Evaluation:
        return self._local.evaluate(params, non_trainable)

    def weights(self, params: np.ndarray, non_trainable: np.ndarray) -> list[np.ndarray]:
        """TensorFlowLearner.weights"""
        return self._local.weights(params, non_trainable)

    @property
    def new_model(self) -> Callable[[], Any]:
        """TensorFlowLearner.new_model"""
        return self._local.new_model

    def device(self) -> dict[str, Any]:
        return self._local.device()

    def hold_constants(self, digest: str, fetch: Callable[[], bytes]) -> bool:
        return self._local.hold_constants(digest, fetch)  # they are this process's own

    def local_update(self, params: np.ndarray, non_trainable: np.ndarray, worker: int,
                     round_: int) -> LocalResult:
        """On whichever trainer is free. Raises what the training raises, and FlqError where the
        nodes cannot train.
        """
        errors = self._ray.exceptions
        while True:
            trainer = self._free()
            try:
                result: LocalResult = self._ray.get(
                    trainer.local_update.remote(params, non_trainable, worker, round_))
            except errors.RayTaskError as error:
                self._idle.put(trainer)
                raise _raised(error)
            except errors.RayError as error:
                self._replace(error)
            else:
                self._losses = 0
                self._idle.put(trainer)
                return result

    def close(self) -> None:
        """Nobody trains any more."""
        self._closed.set()

    def _free(self) -> Any:
        while True:
            if self._problem is not None:
                raise self._problem
            if self._closed.is_set():
                raise FlqError("the simulation ended")
            try:
                return self._idle.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                continue

    def _begin_one(self) -> None:
        threading.Thread(target=self._take_in, name="trainer", daemon=True).start()

    def _take_in(self) -> None:
        """Have a trainer made, wait until it is there, on whatever node, and see that it has what
        this process has.
        """
        errors = self._ray.exceptions
        try:
            trainer = self._trainer.remote()
            loading = trainer.load.remote(*self._made_of)
            while not self._ray.wait([loading], timeout=_TELL_EVERY_S)[0]:
                if self._closed.is_set():
                    return
                _log.warning("a trainer waits for a node with room for it")
            held = self._ray.get(loading)
        except errors.RayTaskError as error:
            self._problem = _raised(error)
        except errors.RayError as error:
            self._replace(error)
        except Exception as error:  # else everybody would wait for this trainer for ever
            self._problem = error
        else:
            wanted = self.partition_hash, self.layout.hash()
            if held != wanted:
                self._problem = DataError("a node has other data, or builds another model",
                                          "hashes " + " ".join(wanted), " ".join(held),
                                          "the same files and packages on every node")
            else:
                self._idle.put(trainer)

    def _replace(self, error: Exception) -> None:
        if self._closed.is_set():
            return
        self._losses += 1
        _log.warning("a trainer ended (%s); another takes its place",
                     in_one_line(str(error).strip().split("\n")[0]))
        if self._losses > self._most_losses:
            self._problem = FlqError(f"{self._losses} trainers ended, one after the other",
                                     "one that trains a worker", in_one_line(error),
                                     "the logs of the nodes say more")
        else:
            self._begin_one()


@contextlib.contextmanager
def cluster_learner(config: Config, address: str | None, cpus: float,
                    gpus: float) -> Iterator[ClusterLearner]:
    """As many trainers as fit on a cluster now, each with its share, and no more than workers.

    address: see nodes.connected. Raises ConfigError and DataError.
    """
    share = Share(cpus, gpus)
    with connected(address) as ray:
        number = min(room(ray, share), config.system.total_workers)
        with contextlib.closing(ClusterLearner(ray, config, number, share)) as learner:
            _log.info("%d trainers on %d nodes", number, len(ray.nodes()))
            yield learner


def _raised(error: Any) -> Exception:
    """What a trainer raised, as it would be raised here."""
    found: Exception = error.cause if isinstance(error.cause, Exception) else error
    return found
