"""A PyTorch model with its data loaders as a learner (docs/frameworks.md), without TensorFlow.

    pip install "flq[torch]"
"""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterable, Sequence

import numpy as np
import torch

from flq.errors import DataError
from flq.learning.own import Learner

Optimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]


def sgd(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """SGD with rate 0.1: what TorchLearner trains with unless told."""
    return torch.optim.SGD(parameters, lr=0.1)


class TorchLearner(Learner):
    """A torch.nn.Module that is trained with a loader of (inputs, targets).

    model: float32; its weights are those parameters that require a gradient, then its float
    buffers, such as the moving means of batch normalisation. Whole-number buffers stay local, and
    frozen parameters must be the same everywhere. train: a DataLoader, or anything that can be
    iterated again and again and has a `dataset` with a length; None on a master. test: the same for
    `evaluate`, where a model gives a row of logits a sample; None on a worker. loss(outputs,
    targets) -> a scalar. optimizer(parameters): a new one is made each round, so that a round is a
    function of the model that came. local_steps: batches a round; None is one pass.

    Example:

        learner = TorchLearner(model, DataLoader(train_set, 32, shuffle=True))
        flq.worker.run(learner, worker_id=0, master_url="http://192.168.1.10:5000")
    """

    def __init__(self, model: torch.nn.Module, train: Any = None, test: Any = None,
                 loss: Callable[[Any, Any], Any] = torch.nn.functional.cross_entropy,
                 optimizer: Optimizer = sgd, local_steps: int | None = None,
                 device: Any = "cpu") -> None:
        self._model, self._train, self._test = model.to(device), train, test
        self._loss, self._optimizer = loss, optimizer
        self._local_steps, self._device = local_steps, device
        self._parameters = [
            parameter for parameter in model.parameters() if parameter.requires_grad
        ]
        self._moving = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.num_moving = len(self._moving)

    def weights(self) -> list[np.ndarray]:
        return [
            tensor.detach().cpu().numpy().copy() for tensor in self._parameters + self._moving
        ]

    def num_samples(self) -> int:
        return len(self._needed(self._train, "train").dataset)

    def train(self, weights: list[np.ndarray], round_: int) -> tuple[list[np.ndarray], float]:
        """One pass, or local_steps batches; the loss is the mean over them."""
        self._load(weights)
        self._model.train()
        optimizer = self._optimizer(self._parameters)
        losses = []
        for inputs, targets in self._batches(self._needed(self._train, "train")):
            optimizer.zero_grad()
            value = self._loss(self._model(inputs.to(self._device)), targets.to(self._device))
            value.backward()
            optimizer.step()
            losses.append(value.item())
        return self.weights(), sum(losses) / max(1, len(losses))

    @torch.no_grad()
    def evaluate(self, weights: list[np.ndarray]) -> tuple[float, float, int]:
        """Accuracy and mean loss over all batches of the test loader."""
        self._load(weights)
        self._model.eval()
        right, total, samples = 0, 0.0, 0
        for inputs, targets in self._needed(self._test, "test"):
            targets = targets.to(self._device)
            outputs = self._model(inputs.to(self._device))
            right += int((outputs.argmax(1) == targets).sum())
            total += float(self._loss(outputs, targets)) * len(targets)
            samples += len(targets)
        if not samples:
            raise DataError("the test loader has no batch", "at least one", 0)
        return right / samples, total / samples, samples

    @torch.no_grad()
    def _load(self, weights: Sequence[np.ndarray]) -> None:
        for tensor, values in zip(self._parameters + self._moving, weights):
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(values)))

    def _batches(self, loader: Any) -> Iterable[Any]:
        if self._local_steps is None:
            return loader
        return itertools.islice(
            itertools.chain.from_iterable(loader for _ in range(self._local_steps)),
            self._local_steps)

    def _needed(self, loader: Any, name: str) -> Any:
        if loader is None:
            raise DataError(f"this TorchLearner was made without a {name} loader",
                            f"TorchLearner(model, {name}=loader)", "none")
        return loader
