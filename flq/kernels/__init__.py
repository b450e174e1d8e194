"""The passes over long vectors that a round is made of: plain.py says what they compute.

Where the library of the C files here was built on this machine (build.py) they come from there
(compiled.py): the same bits in a third of the time, while other threads of Python go on.
"""

from flq.kernels import library
from flq.kernels.plain import WIDTH, Turns, row_sums_f64, sum_f64

if library.LOADED is None:
    from flq.kernels.plain import (
        around_reference,
        deflate_literals,
        from_reference,
        inflate_literals,
        largest_magnitude,
        moved,
        near_levels,
        on_grid,
        products_with_levels,
        signs,
        sketch,
        squared_distance,
        squared_norm,
        stepped,
        sum_of_magnitudes,
        to_reference,
        weighted_sum,
    )
else:
    from flq.kernels.compiled import (
        around_reference,
        deflate_literals,
        from_reference,
        inflate_literals,
        largest_magnitude,
        moved,
        near_levels,
        on_grid,
        products_with_levels,
        signs,
        sketch,
        squared_distance,
        squared_norm,
        stepped,
        sum_of_magnitudes,
        to_reference,
        weighted_sum,
    )

__all__ = [
    "Turns", "WIDTH", "around_reference", "deflate_literals", "from_reference",
    "inflate_literals", "largest_magnitude", "moved", "near_levels", "on_grid",
    "products_with_levels", "row_sums_f64", "signs", "sketch", "squared_distance",
    "squared_norm", "stepped", "sum_f64", "sum_of_magnitudes", "to_reference", "weighted_sum"
]
