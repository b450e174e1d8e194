"""What a run needs of whoever trains its workers and tests its model. learner.py has the one with
TensorFlow; a test has its own.
"""

import abc
from typing import Any, Callable, Dict, Tuple

import numpy as np

from flq.parameters import Layout
from flq.records import Evaluation, LocalResult


class Learner(abc.ABC):
    """The training data of some workers, a test set, and a model to use them with.

    layout: of the model's flat vectors: p parameters and N non-trainable values. builtin_model:
    whether everybody can draw the initial weights. partition_hash: 16 hex digits over the shards of
    all workers, empty with partition local. constants: the values of the model's frozen layers,
    little-endian float32, for a layout that has any. at_a_time: how many local updates can be
    computed at the same time, where that is more than there are processors here.
    Every method may be called from several threads at the same time, and no result depends on the
    others.
    """

    layout: Layout
    builtin_model: bool
    partition_hash: str
    constants: bytes = b""
    at_a_time: int = 1

    @abc.abstractmethod
    def num_samples(self, worker: int) -> int:
        """n_m, the number of training samples of any worker of the run; with partition local, that
        of this machine's file.
        """

    @abc.abstractmethod
    def initial(self) -> Tuple[np.ndarray, np.ndarray]:
        """Version 0, which the caller may change: params float32[p] and the non-trainable values
        float32[N]. The same at each call, and with builtin_model in each process."""

    @abc.abstractmethod
    def local_update(self, params: np.ndarray, non_trainable: np.ndarray, worker: int,
                     round_: int) -> LocalResult:
        """One worker's training in one round, from the broadcast model; a function of its
        arguments, which it leaves as they are.

        params: float32[p]. non_trainable: its non-trainable values float32[N]. worker: one of those
        that the learner was built for.
        Raises FlqError, or whatever the training raises, and then the worker ends.
        """

    @abc.abstractmethod
    def evaluate(self, params: np.ndarray, non_trainable: np.ndarray) -> Evaluation:
        """Test a model, params float32[p] and non_trainable float32[N], on the whole test set; for
        a learner that was built to do so.
        """

    @abc.abstractmethod
    def device(self) -> Dict[str, Any]:
        """What this machine is, as JSON values: a row of a table (protocol.md 1)."""

    def prepare(self, worker: int, round_: int) -> None:
        """The worker's next round is this one, as far as is known: what training needs of it beside
        the model can be made now, in a thread of the learner's. Returns at once.

        No result depends on it: the round may never come, and others come without a call.
        """

    def is_preparing(self) -> bool:
        """Whether that thread still works."""
        return False

    def hold_constants(self, digest: str, fetch: Callable[[], bytes]) -> bool:
        """Make the values of the frozen layers those with this hash (16 hex digits); False when
        they were. fetch() gives them where they are others. Raises ProtocolError when what it gives
        is not what the hash says. Only for a layout that has any.
        """
        raise NotImplementedError
