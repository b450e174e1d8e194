"""A natural partition for accuracy_per_bit.py: digits of MNIST as 30 people write them.

    python benchmarks/accuracy_per_bit.py --small --dataset benchmarks.writers:load \\
        --set partition=natural ...

A person has a slant, a size, a shift, a strength of the stroke, digits that come more often, and a
number of samples: what differs between people in FEMNIST (Caldas 2018). None of FLQ's defaults was
chosen on it. The test set has samples of all people.
"""

import numpy as np

from flq.learning.datasets import load_dataset

PEOPLE, TRAIN, TEST, SEED = 30, 12_000, 3_000, 11


def _as_written(images, slant, size, shift, strength):
    """float32[n, rows, columns] in [0, 1]: each image sheared, scaled and moved, its grey values
    raised to a power.
    """
    rows, columns = images.shape[1:]
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    y, x = (y - rows / 2) / size, (x - columns / 2) / size
    from_y = np.rint(y + rows / 2 - shift[0]).astype(int)
    from_x = np.rint(x + slant * y + columns / 2 - shift[1]).astype(int)
    inside = (from_y >= 0) & (from_y < rows) & (from_x >= 0) & (from_x < columns)
    seen = images[:, from_y.clip(0, rows - 1), from_x.clip(0, columns - 1)] * inside
    return (seen.astype(np.float32) / 255) ** np.float32(strength)


def _people(random):
    """What each person is like, and its part of the samples."""
    parts = random.lognormal(0, 0.7, PEOPLE)
    people = [{
        "slant": random.normal(0, 0.35), "size": random.uniform(0.75, 1.15),
        "shift": random.randint(-2, 3, 2), "strength": random.uniform(0.5, 2)
    } for _ in range(PEOPLE)]
    return people, random.dirichlet(np.full(10, 1.0), PEOPLE), parts / parts.sum()


def _written(random, images, labels, number, of):
    """(x, y, person) of so many samples, a person's share of them each."""
    people, digits, parts = of
    by_label = [np.flatnonzero(labels == digit) for digit in range(10)]
    counts = np.maximum(10, np.rint(parts * number)).astype(int)
    x, y, person = [], [], []
    for who, count in enumerate(counts):
        wanted = random.choice(10, count, p=digits[who])
        chosen = np.array([random.choice(by_label[digit]) for digit in wanted])
        x.append(_as_written(images[chosen], **people[who]))
        y.append(wanted)
        person.append(np.full(count, who))
    return np.concatenate(x), np.concatenate(y), np.concatenate(person)


def load(data_dir):
    """The arrays of a data set of one's own (docs: USAGE_GUIDE.md), the same on every machine."""
    random = np.random.RandomState(SEED)
    mnist = load_dataset("mnist", data_dir)
    of = _people(random)
    x_train, y_train, client_train = _written(random, mnist.x_train.reshape(-1, 28, 28),
                                              mnist.y_train, TRAIN, of)
    x_test, y_test, _ = _written(random, mnist.x_test.reshape(-1, 28, 28), mnist.y_test, TEST, of)
    return {"x_train": x_train[..., None], "y_train": y_train, "x_test": x_test[..., None],
            "y_test": y_test, "client_train": client_train}
