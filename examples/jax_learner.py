#!/usr/bin/env python3
"""JAX at FLQ's door: softmax regression on the digits, as a whole run in one process.

    pip install flq jax
    python examples/jax_learner.py

The same learner takes part over HTTP with flq.worker.run(Softmax(worker, workers), worker).
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import flq
import flq.learning

DIGITS = Path(flq.learning.__file__).parent / "datasets" / "digits.npz"


@jax.jit
def loss_of(weights, x, y):
    kernel, bias = weights
    return -jnp.take_along_axis(jax.nn.log_softmax(x @ kernel + bias), y[:, None], 1).mean()


@jax.jit
def step(weights, x, y):
    loss, gradient = jax.value_and_grad(loss_of)(weights, x, y)
    return [weight - 0.5 * change for weight, change in zip(weights, gradient)], loss


class Softmax(flq.Learner):
    """Worker number `worker` of `workers`, which share the training set."""

    def __init__(self, worker, workers):
        with np.load(DIGITS) as data:
            sets = {part: (data[f"x_{part}"].reshape(-1, 64).astype(np.float32) / 16,
                           data[f"y_{part}"].astype(np.int32)) for part in ("train", "test")}
        self.x, self.y = (array[worker::workers] for array in sets["train"])
        self.test = sets["test"]

    def weights(self):
        return [np.zeros((64, 10), np.float32), np.zeros(10, np.float32)]

    def num_samples(self):
        return len(self.y)

    def train(self, weights, round_):
        losses = []
        for _ in range(5):
            weights, loss = step(weights, self.x, self.y)
            losses.append(float(loss))
        return weights, sum(losses) / len(losses)

    def evaluate(self, weights):
        x, y = self.test
        kernel, bias = weights
        right = ((x @ kernel + bias).argmax(1) == y).mean()
        return float(right), float(loss_of(weights, x, y)), len(y)


if __name__ == "__main__":
    print(flq.simulate(learners=[Softmax(worker, 4) for worker in range(4)], mode="rd",
                       max_rounds=20))
