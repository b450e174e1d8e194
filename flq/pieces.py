"""Long vectors in pieces, so that what is made of a piece stays in the processor's cache.

A pass over 32,768 numbers that lie there takes a fraction of what a pass over memory takes, and
nothing as long as the vector is made on the way.
"""

from typing import Iterator

PIECE = 1 << 15
"""Numbers: 256 KiB of float64. A multiple of the rows of kernels.sum_f64."""


def pieces(start: int, stop: int) -> Iterator[slice]:
    """The slices that cut start .. stop into pieces; only the last one may be shorter."""
    for begin in range(start, stop, PIECE):
        yield slice(begin, min(stop, begin + PIECE))
