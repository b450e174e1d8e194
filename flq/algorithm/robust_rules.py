"""Rules that make one vector of many, of which some may be anything (algorithm.md 11).

    median             of each coordinate (Yin 2018, algorithm 1, option I)
    trimmed_mean       of each coordinate, without the f smallest and the f largest (option II)
    krum               multi-Krum: the mean of the n - f - 2 vectors that are closest to others
                       (Blanchard 2017)
    centered_clipping  v + 1/n sum_m min(1, tau / ||x_m - v||) (x_m - v), from the last v
                       (Karimireddy 2021)

Each vector counts once. They come in worker order, which is the order of every sum that is not
sorted. A new rule is a function here and a line in `RULES`, and its name with the number of
vectors that it needs a row in modes.AGGREGATIONS.
"""

import functools
import math
import statistics
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from flq.kernels import squared_distance_f64, squared_norm

PIECE = 1 << 13
"""Coordinates that are sorted at a time: the rows of 20 workers stay in a processor's cache."""
CLIPPINGS = 3
"""Times that centred clipping moves its centre. Each brings it nearer to where most vectors are."""

Rule = Callable[[Sequence[np.ndarray], int, np.ndarray], np.ndarray]
"""rule(vectors float32[p] in worker order, f, center float32[p]) -> float32[p]. center: what the
rule gave last, 0 before; only centred clipping asks for it. All vectors are finite, and there are
as many as modes.Aggregation.fewest(f) says.
"""


def median(vectors: Sequence[np.ndarray], bad: int, center: np.ndarray) -> np.ndarray:
    """Between two honest values in each coordinate while bad ones are fewer than half."""
    return trimmed_mean(vectors, (len(vectors) - 1) // 2, center)


def trimmed_mean(vectors: Sequence[np.ndarray], bad: int, center: np.ndarray) -> np.ndarray:
    """The sum runs from the smallest to the largest, in float64."""
    kept = len(vectors) - 2 * bad
    result = np.empty_like(vectors[0])
    for piece, rows in _sorted_pieces(vectors):
        total = rows[bad].astype(np.float64)
        for row in rows[bad + 1:bad + kept]:
            total += row
        result[piece] = total / kept
    return result + np.float32(0)  # -0 becomes 0: which of them a sort puts first is open


def krum(vectors: Sequence[np.ndarray], bad: int, center: np.ndarray) -> np.ndarray:
    """A vector's score is the sum of the squares of its distances to the n - f - 2 next ones; of
    equal scores the earlier worker's counts as the smaller.
    """
    near = len(vectors) - bad - 2
    scores = [sum(sorted(distances)[:near]) for distances in _squared_distances(vectors)]
    kept = sorted(range(len(vectors)), key=lambda place: (scores[place], place))[:near]
    total = np.zeros(vectors[0].size, np.float64)
    for place in sorted(kept):
        total += vectors[place]
    return (total / near).astype(np.float32)


def centered_clipping(vectors: Sequence[np.ndarray], bad: int, center: np.ndarray) -> np.ndarray:
    """tau: the median of the distances to v, so that no unit has to be known, and no more than that
    of an honest vector. Each time a bad vector moves v by tau / n at most.
    """
    found = center.astype(np.float64)
    for _ in range(CLIPPINGS):
        lengths = [math.sqrt(squared_norm(vector - found)) for vector in vectors]
        radius = statistics.median(lengths)
        moved = np.zeros_like(found)
        for vector, length in zip(vectors, lengths):
            moved += (vector - found) * (1.0 if length <= radius else radius / length)
        found += moved / len(vectors)
    return found.astype(np.float32)


RULES: Dict[str, Rule] = {
    "median": median, "trimmed_mean": trimmed_mean, "krum": krum,
    "centered_clipping": centered_clipping
}
"""By name, those of modes.AGGREGATIONS but the mean, which aggregation.py computes."""


def _squared_distances(vectors: Sequence[np.ndarray]) -> List[List[float]]:
    """||x_i - x_j||^2 of each vector to all others."""
    distances: List[List[float]] = [[] for _ in vectors]
    for place, vector in enumerate(vectors):
        for other in range(place):
            square = squared_distance_f64(vector, vectors[other])
            distances[place].append(square)
            distances[other].append(square)
    return distances


def _sorted_pieces(vectors: Sequence[np.ndarray]) -> Iterator[Tuple[slice, List[np.ndarray]]]:
    """The values of each coordinate in order, for some coordinates at a time: rows[i] holds the
    i-th smallest of each.

    np.sort along the workers takes six times as long.
    """
    for start in range(0, vectors[0].size, PIECE):
        piece = slice(start, start + PIECE)
        rows = [vector[piece].copy() for vector in vectors]
        spare = np.empty_like(rows[0])
        for low, high in _comparisons(len(rows)):
            np.minimum(rows[low], rows[high], out=spare)
            np.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
        yield piece, rows


@functools.lru_cache(maxsize=16)
def _comparisons(length: int) -> Tuple[Tuple[int, int], ...]:
    """Pairs of places that sort any list of this length when one after the other is put in order:
    odd-even merging (Batcher 1968).
    """
    pairs: List[Tuple[int, int]] = []
    merged = 1
    while merged < length:
        distance = merged
        while distance:
            for first in range(distance % merged, length - distance, 2 * distance):
                for place in range(first, min(first + distance, length - distance)):
                    if place // (2 * merged) == (place + distance) // (2 * merged):
                        pairs.append((place, place + distance))
            distance //= 2
        merged *= 2
    return tuple(pairs)
