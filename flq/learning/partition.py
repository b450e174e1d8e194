"""Who trains on which samples (algorithm.md 8). Every machine computes the same from the seed."""

import hashlib
import heapq
import json
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from flq import rng
from flq.errors import DataError
from flq.learning.datasets.dataset import Dataset
from flq.settings import Config

_LARGEST_TABLE = 10 ** 7  # of the proportions of non_iid, float64: 80 MB, of which there are a few


def partition(labels: np.ndarray, clients: Optional[np.ndarray],
              config: Config) -> List[np.ndarray]:
    """The shards of all workers 0..total_workers-1: ascending int64 positions in the training set.

    Every sample belongs to exactly one worker, except with partition local, where each worker's
    file is its own shard. labels: int[n]. clients: [n] or None, used by natural. Raises DataError
    when there are fewer samples than workers.
    """
    num_samples, num_workers = len(labels), config.system.total_workers
    if config.dataset.partition == "local":
        return [np.arange(num_samples, dtype=np.int64)] * num_workers
    if num_samples < num_workers:
        raise DataError("fewer training samples than workers", f"at least {num_workers}",
                        num_samples, "lower system.total_workers or use a larger data set")
    order = rng.Stream(config.dataset.seed, rng.PARTITION).permutation(num_samples)
    owners = _OWNERS[config.dataset.partition](order, labels, clients, config)
    # A stable sort by owner keeps each shard in the drawn order, so that what is taken from its end
    # is random.
    bounds = np.cumsum(np.bincount(owners, minlength=num_workers))[:-1]
    shards = np.split(order[np.argsort(owners, kind="stable")], bounds)
    _fill_up(shards, max(1, min(config.dataset.batch_size, num_samples // num_workers)))
    return [np.sort(shard) for shard in shards]


def shard_hash(indices: np.ndarray) -> str:
    """16 hex digits: the first of SHA-256 over the positions as little-endian int64."""
    return hashlib.sha256(np.ascontiguousarray(indices, "<i8")).hexdigest()[:16]


def partition_hash(parts: Sequence[np.ndarray]) -> str:
    """16 hex digits that agree when two machines computed the same shards, in worker order."""
    return hashlib.sha256("".join(shard_hash(part)
                                  for part in parts).encode("ascii")).hexdigest()[:16]


def data_hash(parts: Sequence[np.ndarray], dataset: Dataset, config: Config) -> str:
    """What master and workers must agree on of their data, as at most 16 hex digits.

    The shards, and the names of the columns and of the classes where the data have any; with
    partition local the names alone, so that it is empty for data without them.
    """
    shards = "" if config.dataset.partition == "local" else partition_hash(parts)
    if not dataset.features and not dataset.classes:
        return shards
    text = json.dumps([shards, dataset.features, dataset.classes])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def _iid(order: np.ndarray, labels: np.ndarray, clients: Optional[np.ndarray],
         config: Config) -> np.ndarray:
    """Owner of order[i], int64[n]: consecutive pieces whose lengths differ by at most one."""
    return np.arange(len(order), dtype=np.int64) * config.system.total_workers // len(order)


def _non_iid(order: np.ndarray, labels: np.ndarray, clients: Optional[np.ndarray],
             config: Config) -> np.ndarray:
    """Owner of order[i]: the samples of each label are dealt in the proportions that
    Dirichlet(dir_alpha) drew for it (Hsu 2019).
    """
    num_workers, seed = config.system.total_workers, config.dataset.seed
    classes = np.unique(labels)
    if len(classes) * num_workers > _LARGEST_TABLE:
        raise DataError("too many labels for so many workers with partition non_iid",
                        f"labels x system.total_workers of at most {_LARGEST_TABLE}",
                        f"{len(classes)} x {num_workers}")
    table = _dirichlet(
        rng.Stream(seed, rng.DIRICHLET).generator(), config.dataset.dir_alpha,
        (len(classes), num_workers))
    owners = np.empty(len(order), np.int64)
    for label, shares in zip(classes, table):
        positions = np.flatnonzero(labels[order] == label)
        owners[positions] = np.repeat(np.arange(num_workers),
                                      _largest_remainder(shares, len(positions)))
    return owners


def _natural(order: np.ndarray, labels: np.ndarray, clients: Optional[np.ndarray],
             config: Config) -> np.ndarray:
    """Owner of order[i]: whole clients are dealt in turn, in the order in which `order` meets them
    first.
    """
    if clients is None:
        raise DataError("partition natural needs the data's own clients",
                        "client_train in the data set", "none",
                        "use partition iid or non_iid, or data that names its clients")
    _, first, number = np.unique(clients[order], return_index=True, return_inverse=True)
    turn = np.empty(len(first), np.int64)
    turn[np.argsort(first)] = np.arange(len(first)) % config.system.total_workers
    return turn[number.reshape(-1)]


_OWNERS: Dict[str, Callable[...,
                            np.ndarray]] = {"iid": _iid, "non_iid": _non_iid, "natural": _natural}


def _dirichlet(generator: np.random.Generator, alpha: float, shape: Tuple[int, int]) -> np.ndarray:
    """Rows drawn from the symmetric Dirichlet(alpha), float64.

    Normalised gamma variates, kept as logarithms with Gamma(a) = Gamma(a + 1) U^(1/a) (Marsaglia
    and Tsang 2000): Generator.dirichlet is NaN for a tiny alpha on NumPy 1.19 and draws otherwise
    on later ones.
    """
    log_gamma = np.log(generator.standard_gamma(alpha + 1.0,
                                                shape)) + np.log1p(-generator.random(shape)) / alpha
    gamma = np.exp(log_gamma - log_gamma.max(axis=1, keepdims=True))
    return gamma / gamma.sum(axis=1, keepdims=True)


def _largest_remainder(shares: np.ndarray, total: int) -> np.ndarray:
    """Shares that add up to 1 -> whole numbers that add up to total, ties to the lower position
    (Hamilton's method).
    """
    # rounding errors may not make the whole parts exceed the total
    quotas = shares * (total * (1.0 - 1e-12))
    counts = np.floor(quotas).astype(np.int64)
    rest = total - int(counts.sum())
    counts[np.argsort(counts - quotas, kind="stable")[:rest]] += 1
    return counts


def _fill_up(shards: List[np.ndarray], minimum: int) -> None:
    """Who is below the minimum takes samples, one by one, from the end of the currently largest
    shard, in worker order.
    """
    largest = [(-len(shard), worker) for worker, shard in enumerate(shards)]
    heapq.heapify(largest)
    for worker, shard in enumerate(shards):
        for _ in range(minimum - len(shard)):
            size, donor = largest[0]
            heapq.heapreplace(largest, (size + 1, donor))
            shards[worker] = np.append(shards[worker], shards[donor][-1])
            shards[donor] = shards[donor][:-1]
