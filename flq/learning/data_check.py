"""What a run's data look like, and what is wrong with them: `python -m flq check-data`."""

import hashlib
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.errors import DataError
from flq.learning.datasets import load_dataset, names
from flq.learning.datasets.columns import (
    Columns,
    columns_of,
    feature_name,
    feature_names,
    steep_warning,
)
from flq.learning.datasets.dataset import Dataset
from flq.learning.partition import data_hash, partition
from flq.settings import Config

SHOWN = 10  # examples of one kind of trouble
_UNEVEN = 1000.0  # times that one feature may spread more than another before they learn unevenly
_FEW_PARTS = 20   # samples of a label below which its accuracy says little


class Checked(NamedTuple):
    """What was found. errors: why a run cannot use the data. warnings: what may go wrong with them.
    Both are one line each. The other fields are None where the data cannot be loaded.

    counts: int[workers, classes], the training samples of each; with partition local those of this
    machine's file in one row. test_counts: int[classes]. columns: of the training samples.
    hash: what master and workers compare.
    """

    errors: List[str]
    warnings: List[str]
    dataset: Optional[Dataset] = None
    counts: Optional[np.ndarray] = None
    test_counts: Optional[np.ndarray] = None
    columns: Optional[Columns] = None
    hash: str = ""


def check_data(config: Config) -> Checked:
    """Load the data as a run would, but go on over what is wrong in the rows of a CSV file."""
    wrong = _Wrong()
    try:
        dataset = load_dataset(config.dataset.name, config.dataset.data_dir, wrong.note)
    except DataError as error:
        return Checked(wrong.lines() + [str(error)], [])
    columns = columns_of(dataset.x_train, dataset.scale)
    classes = np.arange(dataset.num_classes)
    test_counts = np.bincount(dataset.y_test, minlength=len(classes))
    warnings = _of_columns(dataset, columns, config) + _of_labels(
        dataset, np.bincount(dataset.y_train, minlength=len(classes)), test_counts)
    warnings += _of_repeats(dataset) + _of_clients(dataset, config)
    try:
        shards = partition(dataset.y_train, dataset.clients_train, config)
    except DataError as error:
        return Checked(wrong.lines() + [str(error)], warnings, dataset, None, test_counts, columns)
    own = shards[:1] if config.dataset.partition == "local" else shards
    counts = np.array([
        np.bincount(dataset.y_train[shard], minlength=len(classes)) for shard in own])
    return Checked(wrong.lines(), warnings + _of_shards(counts, config), dataset, counts,
                   test_counts, columns, data_hash(shards, dataset, config))


class _Wrong(object):
    """The first lines of what is wrong in the rows, and how many there are."""

    def __init__(self) -> None:
        self._first: List[str] = []
        self._count = 0

    def note(self, error: DataError) -> None:
        self._count += 1
        if self._count <= SHOWN:
            self._first.append(str(error))

    def lines(self) -> List[str]:
        more = self._count - len(self._first)
        return self._first + ([f"{more} more values or rows like these"] if more else [])


def _of_columns(dataset: Dataset, columns: Columns, config: Config) -> List[str]:
    found = []
    constant = np.flatnonzero(columns.low == columns.high)
    # a pixel of the border may be the same in every image
    if len(constant) and dataset.x_train.ndim == 2:
        found.append(f"{feature_names(dataset.features, constant)}: constant, so that nothing can "
                     "be learnt from it")
    numbering = np.array([
        place for place in range(len(dataset.features))
        if _numbers_the_rows(dataset.x_train[:, place])])
    if len(numbering):
        found.append(f"{feature_names(dataset.features, numbering)}: rises by whole numbers from "
                     "row to row; if it only numbers them, leave it out with ignore=")
    if config.dataset.standardize or dataset.x_train.dtype == np.uint8:
        return found
    too_large = steep_warning(dataset, columns, config.model.local_lr)
    if too_large is not None:
        found.append(too_large)
    spread = columns.deviation[columns.deviation > 0]
    if len(spread) and spread.max() > _UNEVEN * spread.min():
        widest, narrowest = (int(np.flatnonzero(columns.deviation == value)[0])
                             for value in (spread.max(), spread.min()))
        found.append(
            f"{feature_name(dataset.features, widest)} spreads {spread.max() / spread.min():.2g} "
            f"times as much as {feature_name(dataset.features, narrowest)}: unscaled features are "
            "learnt unevenly; set dataset.standardize to true")
    return found


def _numbers_the_rows(values: np.ndarray) -> bool:
    return bool(len(values) > 1 and (np.diff(values) > 0).all() and (values % 1 == 0).all())


def _of_labels(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> List[str]:
    found = []
    for counts, part in ((train, "training"), (test, "test")):
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            found.append(f"no {part} sample of {_labels(dataset, empty)}")
    few = np.flatnonzero((train > 0) & (train < _FEW_PARTS))
    if len(few):
        found.append(f"fewer than {_FEW_PARTS} training samples of {_labels(dataset, few)}")
    if train.max() > 10 * max(1, np.median(train)):
        found.append(f"{_labels(dataset, np.array([train.argmax()]))} has more than ten times as "
                     "many samples as the median: accuracy says little of the others")
    return found


def _of_repeats(dataset: Dataset) -> List[str]:
    """Samples that were learnt from tell nothing of what is new."""
    seen = set(map(_digest, dataset.x_train))
    again = sum(_digest(sample) in seen for sample in dataset.x_test)
    if not again:
        return []
    return [f"{again} of {len(dataset.x_test)} test samples are training samples too: accuracy is "
            "too high"]


def _digest(sample: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(sample), digest_size=16).digest()


def _of_clients(dataset: Dataset, config: Config) -> List[str]:
    if dataset.clients_train is None:
        return []
    number, workers = len(np.unique(dataset.clients_train)), config.system.total_workers
    if config.dataset.partition == "natural":
        if number < workers:
            return [f"{number} clients for {workers} workers: {workers - number} of them get "
                    "samples of other workers' clients"]
    elif "client=" in config.dataset.name and config.dataset.partition != "local":
        return [f"client= has no effect with partition {config.dataset.partition}: set "
                "dataset.partition to natural"]
    return []


def _of_shards(counts: np.ndarray, config: Config) -> List[str]:
    found, sizes = [], counts.sum(axis=1)
    small = np.flatnonzero(sizes < config.dataset.batch_size)
    if len(small):
        found.append(f"{len(small)} of {len(sizes)} workers have fewer samples than "
                     f"dataset.batch_size {config.dataset.batch_size}: their batches are smaller")
    one = np.flatnonzero((counts > 0).sum(axis=1) == 1)
    if len(one) and counts.shape[1] > 1:
        found.append(f"{len(one)} of {len(sizes)} workers have samples of one label only")
    return found


def _labels(dataset: Dataset, labels: np.ndarray) -> str:
    shown = [class_name(dataset, int(label)) for label in labels[:SHOWN]]
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ("label " if len(labels) == 1 else "labels ") + ", ".join(shown) + more


def class_name(dataset: Dataset, label: int) -> str:
    return dataset.classes[label] if dataset.classes else str(label)


def form(config: Config, checked: Checked) -> List[Tuple[str, str]]:
    """(name, text) of what a machine must have in common with the others, and how much there is."""
    dataset = checked.dataset
    assert dataset is not None
    shape = " x ".join(map(str, dataset.x_train.shape[1:]))
    rows = [("data set", config.dataset.name),
            ("samples", f"{len(dataset.y_train)} to train, {len(dataset.y_test)} to test"),
            ("a sample", f"{shape}, {dataset.x_train.dtype}"),
            ("classes", _listed([class_name(dataset, k) for k in range(dataset.num_classes)]))]
    if dataset.features:
        rows.append(("columns", _listed(dataset.features)))
    if dataset.clients_train is not None:
        rows.append(("clients", str(len(np.unique(dataset.clients_train)))))
    source = names.parse(config.dataset.name, config.dataset.data_dir)
    if source is not None and source.test_path is None and source.kind == "csv":
        rows.append(("test", "the fifth, tenth, ... row of each label"))
    rows.append(("compared", checked.hash or "nothing (partition local, no names)"))
    return rows


def _listed(texts: Sequence[str]) -> str:
    more = [f"... {len(texts) - 30} more"] if len(texts) > 30 else []
    return ", ".join(list(texts[:30]) + more) + f" ({len(texts)})"
