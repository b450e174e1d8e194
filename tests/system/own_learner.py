"""A learner of a program's own in plain NumPy, at FLQ's door: least squares with a moving mean.

    python tests/system/own_learner.py master [KEY=VALUE ...]
    python tests/system/own_learner.py worker ID URL

FLQ_TOKEN, FLQ_STATE_DIR and SECONDS_OF_TRAINING are those of tests/system. Says at its end whether
TensorFlow was imported.
"""

import os
import sys
import time

import numpy as np

import flq.master
import flq.worker


class LeastSquares:
    """No subclass of flq.Learner: whatever has its four methods is one."""

    num_moving = 1

    def __init__(self, worker=0):
        random = np.random.RandomState(worker)
        self.x = random.standard_normal((40 + 10 * worker, 6)).astype(np.float32)
        self.y = self.x @ np.arange(6, dtype=np.float32) + np.float32(0.1) * worker

    def weights(self):
        return [np.zeros((2, 3), np.float32), np.full(1, 0.5, np.float32),
                np.zeros(6, np.float32)]

    def num_samples(self):
        return len(self.y)

    def train(self, weights, round_):
        kernel, bias, mean = weights
        losses = []
        time.sleep(float(os.environ.get("SECONDS_OF_TRAINING", "0")))
        for batch in range(3):
            rows = slice(batch, None, 3)
            error = self.x[rows] @ kernel.reshape(-1) + bias - self.y[rows]
            kernel -= 0.1 * (self.x[rows].T @ error / len(error)).reshape(2, 3)
            bias -= 0.1 * error.mean()
            losses.append(float(np.square(error).mean()))
        return [kernel, bias, 0.9 * mean + 0.1 * self.x.mean(axis=0)], float(np.mean(losses))

    def evaluate(self, weights):
        loss = float(np.square(self.x @ weights[0].reshape(-1) + weights[1] - self.y).mean())
        return 1 / (1 + loss), loss, len(self.y)


def main():
    if sys.argv[1] == "master":
        values = dict(word.split("=") for word in sys.argv[2:])
        code = flq.master.serve(LeastSquares(), {
            name: int(value) if value.isdecimal() else value for name, value in values.items()
        }, port=0, port_file="master.port", run_dir="master-run", exit_when_done=True,
                                save_results=False)
    else:
        code = flq.worker.run(LeastSquares(int(sys.argv[2])), int(sys.argv[2]), sys.argv[3],
                              state_dir=os.environ["FLQ_STATE_DIR"])
    print("tensorflow" in sys.modules, "TensorFlow")
    return code


if __name__ == "__main__":
    sys.exit(main())
