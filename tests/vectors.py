"""float32 vectors for property tests: any finite float32, from 1e-45 to 3.4e38, and vectors of one
magnitude.
"""

import hypothesis.strategies as st
import numpy as np

# One magnitude: what updates look like. Any float32: where arithmetic breaks.
_NORMAL = st.floats(-1.0, 1.0, width=32)
_ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


def vectors(min_size=1, max_size=20):
    """float32[n] with min_size <= n <= max_size, all finite."""
    lists = st.one_of(st.lists(_NORMAL, min_size=min_size, max_size=max_size),
                      st.lists(_ANY, min_size=min_size, max_size=max_size))
    return lists.map(lambda values: np.array(values, np.float32))


def same_bits(left, right, dtype=np.float32):
    """Whether two vectors of floats are equal bit for bit (-0.0 is not 0.0)."""
    left, right = np.asarray(left, dtype), np.asarray(right, dtype)
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def no_draw(n):
    """The uniforms of a quantiser that draws nothing."""
    raise AssertionError(f"a deterministic quantiser drew {n} numbers")


def beside(thresholds, radius):
    """float32: the nine numbers around each threshold, among many others of -radius .. radius, and
    these two.
    """
    dice, up, down = np.random.RandomState(1), np.float32(np.inf), np.float32(-np.inf)
    rows = [np.array(thresholds, np.float32)]
    for _ in range(4):
        rows = [np.nextafter(rows[0], down), *rows, np.nextafter(rows[-1], up)]
    others = np.clip(dice.standard_normal(40000), -1, 1) * radius
    near_zero = radius * 10.0 ** -np.arange(1, 12)
    values = np.concatenate([*rows, others, near_zero, -near_zero, [0.0, -0.0, radius, -radius]])
    values = values.astype(np.float32)
    dice.shuffle(values)
    return values[np.abs(values.astype(np.float64)) <= radius]
