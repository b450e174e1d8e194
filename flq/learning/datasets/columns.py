"""What the features of a data set look like: their range, mean and deviation, and whether they suit
a gradient method."""

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.kernels import row_sums_f64
from flq.learning.datasets.dataset import Dataset

_BLOCK = 2 ** 20  # values that are float64 at the same time
_TINY = float(np.finfo(np.float32).tiny)


class Columns(NamedTuple):
    """One value a feature, float64[features]. A feature is an index of the samples' last axis: a
    column of a table, a colour of images. deviation: the standard deviation, 0 of a constant."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @property
    def mean_square(self) -> np.ndarray:
        return self.mean ** 2 + self.deviation ** 2


def columns_of(x: np.ndarray, scale: float = 1.0) -> Columns:
    """The features of samples x[n, ..., features] as a model sees them, x / scale.

    Sums are float64 in one order (kernels.row_sums_f64), so that every machine that has the same
    samples gets the same bits. The deviation is that of all samples, sqrt(mean((x - mean)^2)).
    """
    rows = x.reshape(-1, x.shape[-1])
    low = rows.min(axis=0).astype(np.float64)
    high = rows.max(axis=0).astype(np.float64)
    mean = _sums(rows, None) / len(rows)
    # the rounded sum of equal values may miss their mean by its last bit
    mean = np.where(low == high, low, mean)
    deviation = np.sqrt(_sums(rows, mean) / len(rows))
    return Columns(low / scale, high / scale, mean / scale, deviation / scale)


def _sums(rows: np.ndarray, mean: Optional[np.ndarray]) -> np.ndarray:
    """Of each column, or of its squared distances from a mean."""
    step = max(1, _BLOCK // rows.shape[1])
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), step):
        block = rows[start:start + step].astype(np.float64)
        if mean is not None:
            block = np.square(block - mean)
        total += row_sums_f64(np.ascontiguousarray(block.T))
    return total


def standard(columns: Columns) -> Tuple[np.ndarray, np.ndarray]:
    """mean and deviation, float32[features], of (x - mean) / deviation; a feature that is constant
    is divided by 1."""
    deviation = np.where(columns.deviation > _TINY, columns.deviation, 1.0)
    return columns.mean.astype(np.float32), deviation.astype(np.float32)


def steep(columns: Columns, local_lr: float) -> np.ndarray:
    """Which features are so large that local steps can diverge, positions in descending order.

    With one feature x, the loss of the softmax model curves by at most E[x^2] / 2 in each weight
    (Boehning 1992), and gradient steps shrink it for sure up to the rate 2 / curvature: local_lr
    E[x^2] <= 4.
    """
    over = local_lr * columns.mean_square
    found = np.flatnonzero(over > 4.0)
    return found[np.argsort(-over[found], kind="stable")]


def scale_warning(dataset: Dataset, local_lr: float) -> Optional[str]:
    """One line where a feature of the training samples is too large for the local rate, or None."""
    x = dataset.x_train
    if x.dtype == np.uint8:
        return None  # pixels, which a model sees from 0 to 1
    largest = max(abs(float(x.min())), abs(float(x.max())))
    if local_lr * largest ** 2 <= 4.0:
        return None
    return steep_warning(dataset, columns_of(x, dataset.scale), local_lr)


def steep_warning(dataset: Dataset, columns: Columns, local_lr: float) -> Optional[str]:
    """One line on the features that are `steep`, or None."""
    found = steep(columns, local_lr)
    if not len(found):
        return None
    largest = max(abs(columns.low[found[0]]), abs(columns.high[found[0]]))
    return (f"{feature_names(dataset.features, found)}: values up to {largest:.3g} can make "
            f"training diverge at model.local_lr {local_lr:g}; set dataset.standardize to true")


def feature_name(features: Sequence[str], place: int) -> str:
    return f"column {features[place]}" if features else f"feature {place} (the first is 0)"


def feature_names(features: Sequence[str], places: np.ndarray) -> str:
    """The first one's name, and how many there are beside it."""
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return feature_name(features, int(places[0])) + more
