"""Which samples the local SGD steps of one worker in one round see (algorithm.md 1.3)."""

from typing import Optional, Tuple

import numpy as np

from flq import rng
from flq.settings import Config


def num_local_steps(num_samples: int, batch_size: int, local_epochs: Optional[int],
                    local_steps: Optional[int]) -> int:
    """E_m, the number of local SGD steps of a worker with num_samples samples; one of the last two
    is None.
    """
    if local_epochs is None:
        return int(local_steps)  # type: ignore[arg-type]
    batch = _batch(num_samples, batch_size)
    return local_epochs * ((num_samples + batch - 1) // batch)


def local_steps_of(config: Config, num_samples: int) -> int:
    """E_m of a worker with that many samples in a run of this configuration."""
    return num_local_steps(num_samples, config.dataset.batch_size, config.model.local_epochs,
                           config.model.local_steps)


def batch_size_of(config: Config, num_samples: int) -> int:
    """B of a worker with that many samples in a run of this configuration."""
    return _batch(num_samples, config.dataset.batch_size)


def batch_orders(num_samples: int, batch_size: int, local_epochs: Optional[int],
                 local_steps: Optional[int], seed: int, worker: int,
                 round_: int) -> Tuple[np.ndarray, int]:
    """The order of the samples: int32[passes, length] of positions in the shard, and the batch
    size.

    Batches are consecutive pieces of a row. local_epochs: a row is a fresh permutation of the shard
    and its last batch may be smaller. local_steps: one row of whole batches that runs through a
    permutation of the round and starts over at its end.
    """
    batch = _batch(num_samples, batch_size)
    stream = rng.Stream(seed, rng.BATCHES, worker, round_)
    if local_epochs is None:
        row = np.resize(stream.permutation(num_samples),
                        num_local_steps(num_samples, batch_size, None, local_steps) * batch)
        return row[np.newaxis].astype(np.int32), batch
    return np.stack([stream.permutation(num_samples)
                     for _ in range(local_epochs)]).astype(np.int32), batch


def _batch(num_samples: int, batch_size: int) -> int:
    """B, at most the shard; 0 stands for the whole shard."""
    return min(batch_size, num_samples) if batch_size else num_samples
