#!/usr/bin/env python3
"""A PyTorch model at FLQ's door: the digits, in three terminals. No TensorFlow is imported.

    pip install "flq[torch]"
    python examples/pytorch_worker.py master
    python examples/pytorch_worker.py worker 0
    python examples/pytorch_worker.py worker 1

Each worker has every second sample here; yours has its own data. Then http://127.0.0.1:5000/ shows
the run. On another machine: worker 1 http://192.168.1.10:5000, with the token of worker 1 in
~/.flq/token (README.md, "On four machines").
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import flq.learning
import flq.master
import flq.worker
from flq.integrations.torch import TorchLearner

DIGITS = Path(flq.learning.__file__).parent / "datasets" / "digits.npz"
WORKERS = 2


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64),
                               torch.nn.BatchNorm1d(64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def loader(part, rows=slice(None), **options):
    """Batches of `train` or `test`: pixels from 0 to 1, and the digit."""
    with np.load(DIGITS) as data:
        pixels = torch.from_numpy(data[f"x_{part}"][rows].astype(np.float32) / 16)
        digits = torch.from_numpy(data[f"y_{part}"][rows].astype(np.int64))
    return DataLoader(TensorDataset(pixels, digits), batch_size=32, **options)


def main():
    if sys.argv[1] == "master":
        return flq.master.serve(TorchLearner(model(), test=loader("test")), mode="laq",
                                total_workers=WORKERS, quorum="all", max_rounds=20)
    worker = int(sys.argv[2])
    learner = TorchLearner(model(), loader("train", slice(worker, None, WORKERS), shuffle=True),
                           optimizer=lambda parameters: torch.optim.SGD(parameters, 0.05, 0.9))
    return flq.worker.run(learner, worker, *sys.argv[3:4])


if __name__ == "__main__":
    sys.exit(main())
