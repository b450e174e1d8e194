"""The model, the data and the training of the quickstart."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flq.learning

DIGITS = Path(flq.learning.__file__).parent / "datasets" / "digits.npz"


class Net(nn.Module):
    """The quickstart's network, for images of 8 x 8: 19,754 weights."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(16 * 2 * 2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


def load_data(part, partition_id=0, num_partitions=1):
    """Batches of `train` or `test`, every num_partitions-th sample."""
    with np.load(DIGITS) as data:
        rows = slice(partition_id, None, num_partitions)
        images = data[f"x_{part}"][rows].astype(np.float32).reshape(-1, 1, 8, 8) / 16
        labels = data[f"y_{part}"][rows].astype(np.int64)
    dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    return DataLoader(dataset, batch_size=32, shuffle=part == "train")


def train(net, loader, epochs, lr):
    """The mean loss of some epochs of SGD."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    total = 0.0
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(loader))


@torch.no_grad()
def test(net, loader):
    """Mean loss and accuracy."""
    net.eval()
    loss, right = 0.0, 0
    for images, labels in loader:
        outputs = net(images)
        loss += F.cross_entropy(outputs, labels, reduction="sum").item()
        right += int((outputs.argmax(1) == labels).sum())
    return loss / len(loader.dataset), right / len(loader.dataset)
