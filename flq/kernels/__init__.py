"""The passes over long vectors that a round is made of: plain.py and plain_coding.py say what they
compute.

Where the library of the C files here was built on this machine (build.py) they come from there
(compiled.py): the same bits in less time, while other threads of Python go on.
"""

from flq.kernels import library
from flq.kernels.plain import WIDTH, Turns, row_sums_f64, sum_f64
from flq.kernels.plain_coding import RANS_LOW, RANS_PRECISION

if library.LOADED is None:
    from flq.kernels.plain import (
        around_reference,
        from_reference,
        largest_magnitude,
        moved,
        near_levels,
        on_grid,
        products_with_levels,
        signs,
        sketch,
        squared_distance,
        squared_distance_f64,
        squared_norm,
        stepped,
        sum_of_magnitudes,
        to_reference,
        weighted_sum,
    )
    from flq.kernels.plain_coding import (
        after_steps,
        deflate_literals,
        inflate_literals,
        order_of_bytes,
        rans_read,
        rans_write,
    )
else:
    from flq.kernels.compiled import (
        after_steps,
        around_reference,
        deflate_literals,
        from_reference,
        inflate_literals,
        largest_magnitude,
        moved,
        near_levels,
        on_grid,
        order_of_bytes,
        products_with_levels,
        rans_read,
        rans_write,
        signs,
        sketch,
        squared_distance,
        squared_distance_f64,
        squared_norm,
        stepped,
        sum_of_magnitudes,
        to_reference,
        weighted_sum,
    )

__all__ = [
    "RANS_LOW", "RANS_PRECISION", "Turns", "WIDTH", "after_steps", "around_reference",
    "deflate_literals", "from_reference", "inflate_literals", "largest_magnitude", "moved",
    "near_levels", "on_grid", "order_of_bytes", "products_with_levels", "rans_read",
    "rans_write", "row_sums_f64", "signs", "sketch", "squared_distance", "squared_distance_f64",
    "squared_norm", "stepped", "sum_f64", "sum_of_magnitudes", "to_reference", "weighted_sum"
]
