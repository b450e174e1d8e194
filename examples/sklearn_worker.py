#!/usr/bin/env python3
"""scikit-learn at FLQ's door: an SGDClassifier on the digits, a master and two workers.

    pip install flq scikit-learn
    python examples/sklearn_worker.py master
    python examples/sklearn_worker.py worker 0        # and in another terminal: worker 1
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

import flq.master
import flq.worker


class Classifier:
    """Logistic regression. Every third sample is the test set, the others are dealt out."""

    def __init__(self, worker=0, workers=2):
        x, y = load_digits(return_X_y=True)
        held = np.arange(len(y)) % 3 == 0
        self.test, self.shard = (x[held] / 16, y[held]), (x[~held][worker::workers] / 16,
                                                          y[~held][worker::workers])
        self.model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05,
                                   random_state=worker)
        self.model.partial_fit(*self.shard, classes=np.arange(10))

    def weights(self):
        return [np.zeros((10, 64), np.float32), np.zeros(10, np.float32)]

    def num_samples(self):
        return len(self.shard[1])

    def train(self, weights, round_):
        self.hold(weights)
        self.model.partial_fit(*self.shard)
        return [self.model.coef_, self.model.intercept_], self.loss(*self.shard)

    def evaluate(self, weights):
        self.hold(weights)
        return self.model.score(*self.test), self.loss(*self.test), len(self.test[1])

    def hold(self, weights):
        self.model.coef_, self.model.intercept_ = (tensor.astype(np.float64) for tensor in weights)

    def loss(self, x, y):
        chances = self.model.predict_proba(x)[np.arange(len(y)), y]
        return float(-np.log(np.maximum(chances, 1e-12)).mean())


if __name__ == "__main__":
    if sys.argv[1] == "master":
        sys.exit(flq.master.serve(Classifier(), mode="laq", total_workers=2, quorum="all",
                                  max_rounds=10))
    sys.exit(flq.worker.run(Classifier(int(sys.argv[2])), int(sys.argv[2])))
