"""The model that a run keeps: an average of theta over its last rounds (algorithm.md 1, step 4).

It costs no bits and changes no step. Single models of a run differ by the noise of mini-batches,
of quantisers and of the workers whose turn it was; most of this is gone from their average.
"""

from typing import NamedTuple, Optional

import numpy as np

from flq import kernels


class Average(NamedTuple):
    """params: of theta, float32[p]. non_trainable: of the non-trainable values, float32[N]."""

    params: np.ndarray
    non_trainable: np.ndarray


def average_after(average: Optional[Average], round_: int, new: Average,
                part: float) -> Optional[Average]:
    """x_bar <- x_bar + (x - x_bar) / (1 + part k) after round k, elementwise in float32.

    average: x_bar, None where none is kept. new: x. part: s, the mean age of what is in the average
    as a part of the rounds so far; 1 is the mean of all. Polynomial-decay averaging, Shamir and
    Zhang 2013, section 4, with eta = 1 / s - 1.
    """
    if average is None:
        return None
    weight = np.float32(1 / (1 + part * round_))
    with np.errstate(over="ignore", invalid="ignore"):  # of the thread that it runs on
        return Average(*(kernels.moved(mean, x, weight) for mean, x in zip(average, new)))
