"""The network of NVFlare's example hello-pt, for images of 8 x 8, and the data of one site."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flq.learning

DIGITS = Path(flq.learning.__file__).parent / "datasets" / "digits.npz"


class SimpleNetwork(nn.Module):
    """19,754 weights."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 3, padding=1)
        self.fc1 = nn.Linear(16 * 2 * 2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


def load_data(part, site=0, num_sites=1):
    """Batches of `train` or `test`, every num_sites-th sample."""
    with np.load(DIGITS) as data:
        rows = slice(site, None, num_sites)
        images = data[f"x_{part}"][rows].astype(np.float32).reshape(-1, 1, 8, 8) / 16
        labels = data[f"y_{part}"][rows].astype(np.int64)
    dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    return DataLoader(dataset, batch_size=32, shuffle=part == "train")


@torch.no_grad()
def accuracy(net, loader):
    """Of a model on a site's test set."""
    net.eval()
    right = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)
