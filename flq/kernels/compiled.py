"""The functions of plain.py and plain_coding.py, with the same bits, from the library of the C
files here.

A vector that lies in another way than the library reads, has another dtype, or is not as long as
those beside it goes there: the library itself would read past its end.
"""

import ctypes
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from flq.kernels import library, plain, plain_coding
from flq.kernels.plain import WIDTH, Turns
from flq.pieces import PIECE

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double


def _function(name: str, result: Any, *arguments: Any) -> Any:
    assert library.LOADED is not None, "who imports this asks before"
    function = getattr(library.LOADED, name)
    function.restype, function.argtypes = result, arguments
    return function


def _lies(size: int, dtype: Any, *vectors: np.ndarray) -> bool:
    """Whether the library can read that many numbers of each of them."""
    return all(vector.dtype == dtype and vector.shape == (size,) and vector.flags.c_contiguous
               and vector.flags.aligned for vector in vectors)


def _are_places(numbers: np.ndarray, size: int) -> bool:
    """Whether each number is a place in a vector of that size."""
    return not numbers.size or bool(numbers.min() >= 0 and numbers.max() < size)


_squared_norm = _function("flq_squared_norm", _DOUBLE, _POINTER, _SIZE)


def squared_norm(vector: np.ndarray) -> float:
    if not _lies(vector.size, np.float32, vector):
        return plain.squared_norm(vector)
    return _squared_norm(vector.ctypes.data, vector.size)


_squared_distance = _function("flq_squared_distance", _DOUBLE, _POINTER, _POINTER, _SIZE)


def squared_distance(vector: np.ndarray, other: np.ndarray) -> float:
    if not _lies(vector.size, np.float32, vector, other):
        return plain.squared_distance(vector, other)
    return _squared_distance(vector.ctypes.data, other.ctypes.data, vector.size)


_squared_distance_f64 = _function("flq_squared_distance_f64", _DOUBLE, _POINTER, _POINTER, _SIZE)


def squared_distance_f64(vector: np.ndarray, other: np.ndarray) -> float:
    if not _lies(vector.size, np.float32, vector, other):
        return plain.squared_distance_f64(vector, other)
    return _squared_distance_f64(vector.ctypes.data, other.ctypes.data, vector.size)


_sum_of_magnitudes = _function("flq_sum_of_magnitudes", _DOUBLE, _POINTER, _SIZE)


def sum_of_magnitudes(vector: np.ndarray) -> float:
    if not _lies(vector.size, np.float32, vector):
        return plain.sum_of_magnitudes(vector)
    return _sum_of_magnitudes(vector.ctypes.data, vector.size)


_largest_magnitude = _function("flq_largest_magnitude", _FLOAT, _POINTER, _SIZE)


def largest_magnitude(vector: np.ndarray) -> float:
    if not _lies(vector.size, np.float32, vector):
        return plain.largest_magnitude(vector)
    return _largest_magnitude(vector.ctypes.data, vector.size)


_near_levels = _function("flq_near_levels", _SIZE, _POINTER, _SIZE, _FLOAT, _FLOAT, _FLOAT,
                         _POINTER, _POINTER)


def near_levels(values: np.ndarray, slope: float, low: float,
                high: float) -> Tuple[np.ndarray, np.ndarray]:
    if not _lies(values.size, np.float32, values):
        return plain.near_levels(values, slope, low, high)
    levels, unsure = np.empty(values.size, np.uint8), np.empty(values.size, np.int64)
    count = _near_levels(values.ctypes.data, values.size, slope, low, high, levels.ctypes.data,
                         unsure.ctypes.data)
    return levels, unsure[:count]


_on_grid = _function("flq_on_grid", None, _POINTER, _SIZE, _INT, _INT, _FLOAT, _POINTER)
_on_grid_from = _function("flq_on_grid_from", None, _POINTER, _POINTER, _SIZE, _INT, _INT, _FLOAT,
                          _POINTER)


def on_grid(levels: np.ndarray, times: int, middle: int, step: Any, bits: int,
            base: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
    values = np.empty(levels.shape, np.float32) if out is None else out
    others = (values,) if base is None else (values, base)
    if np.ndim(step) or not (_lies(levels.size, np.uint8, levels) and _lies(
            levels.size, np.float32, *others) and values.flags.writeable):
        return plain.on_grid(levels, times, middle, step, bits, base, values)
    if base is None:
        _on_grid(levels.ctypes.data, levels.size, times, middle, step, values.ctypes.data)
    else:
        _on_grid_from(levels.ctypes.data, base.ctypes.data, levels.size, times, middle, step,
                      values.ctypes.data)
    return values


_products_with_levels = _function("flq_products_with_levels", None, _POINTER, _POINTER, _INT, _SIZE,
                                  _POINTER)


def products_with_levels(values: np.ndarray, levels: np.ndarray,
                         middle: int) -> Tuple[float, float]:
    if not (_lies(values.size, np.float32, values) and _lies(values.size, np.uint8, levels)):
        return plain.products_with_levels(values, levels, middle)
    sums = np.empty(2)
    _products_with_levels(values.ctypes.data, levels.ctypes.data, middle, values.size,
                          sums.ctypes.data)
    return float(sums[0]), float(sums[1])


_from_reference = _function("flq_from_reference", _DOUBLE, _POINTER, _POINTER, _DOUBLE, _SIZE,
                            _POINTER)


def from_reference(rate: float, update: np.ndarray, g: np.ndarray) -> Tuple[np.ndarray, float]:
    if not (_lies(update.size, np.float32, update) and _lies(update.size, np.float64, g)):
        return plain.from_reference(rate, update, g)
    difference = np.empty_like(update)
    norm2 = _from_reference(update.ctypes.data, g.ctypes.data, rate, update.size,
                            difference.ctypes.data)
    return difference, norm2


_to_reference = _function("flq_to_reference", _INT, _POINTER, _POINTER, _DOUBLE, _DOUBLE, _SIZE,
                          _POINTER)


def to_reference(rate: float, limit: float, g: np.ndarray,
                 c: np.ndarray) -> Tuple[np.ndarray, bool]:
    if not (_lies(g.size, np.float64, g) and _lies(g.size, np.float32, c)):
        return plain.to_reference(rate, limit, g, c)
    after = np.empty_like(g)
    fits = _to_reference(g.ctypes.data, c.ctypes.data, rate, limit, g.size, after.ctypes.data)
    return after, bool(fits)


_weighted_sum = _function("flq_weighted_sum", None, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE,
                          _POINTER)


def weighted_sum(vectors: Sequence[np.ndarray], weights: Sequence[float],
                 part: slice) -> np.ndarray:
    within = part.step is None and all(0 <= part.start <= part.stop <= vector.size
                                       for vector in vectors)
    if not (within and len(vectors) == len(weights) and all(
            _lies(vector.size, np.float32, vector) for vector in vectors)):
        return plain.weighted_sum(vectors, weights, part)
    total, factors = np.empty(part.stop - part.start), np.array(weights, np.float64)
    places = np.array([vector.ctypes.data for vector in vectors], np.uintp)
    _weighted_sum(places.ctypes.data, factors.ctypes.data, len(vectors), part.start, total.size,
                  total.ctypes.data)
    return total


_around_reference = _function("flq_around_reference", None, _POINTER, _DOUBLE, _POINTER, _DOUBLE,
                              _DOUBLE, _SIZE, _POINTER)


def around_reference(reference_sum: np.ndarray, rate: float, weighted: np.ndarray, rho: float,
                     total_weight: float, out: np.ndarray) -> None:
    size = weighted.size
    if (_lies(size, np.float64, reference_sum, weighted) and _lies(size, np.float32, out)
            and out.flags.writeable):
        _around_reference(reference_sum.ctypes.data, rate, weighted.ctypes.data, rho, total_weight,
                          weighted.size, out.ctypes.data)
    else:
        plain.around_reference(reference_sum, rate, weighted, rho, total_weight, out)


def signs(bits: np.ndarray) -> np.ndarray:
    return bits << 7  # where the sign of a float is


_sketch = _function("flq_sketch", _DOUBLE, _POINTER, _SIZE, _POINTER, _POINTER, _POINTER, _POINTER,
                    _POINTER)


def sketch(vector: np.ndarray, turns: Turns) -> Tuple[float, np.ndarray]:
    rows = -(-vector.size // PIECE)
    if not (_lies(vector.size, np.float32, vector) and _lies(vector.size, np.uint8, turns.signs)
            and _lies(rows, np.uint32, turns.first)
            and _lies(PIECE // WIDTH, np.uint32, turns.second)):
        return plain.sketch(vector, turns._replace(signs=plain.signs(turns.signs >> 7)))
    total, sketched = np.zeros(PIECE), np.zeros(WIDTH)
    norm2 = _sketch(vector.ctypes.data, vector.size, turns.signs.ctypes.data,
                    turns.first.ctypes.data, turns.second.ctypes.data, total.ctypes.data,
                    sketched.ctypes.data)
    return norm2, sketched


_deflate_literals = _function("flq_deflate_literals", _SIZE, _POINTER, _SIZE, _POINTER, _SIZE)


def deflate_literals(plain: np.ndarray) -> Optional[bytes]:
    if not _lies(plain.size, np.uint8, plain):
        return None
    stream = np.empty(plain.size + plain.size // 8 + 1024, np.uint8)
    length = _deflate_literals(plain.ctypes.data, plain.size, stream.ctypes.data, stream.size)
    return stream[:length].tobytes() if length else None


_inflate_literals = _function("flq_inflate_literals", _INT, _POINTER, _SIZE, _POINTER, _SIZE)


def inflate_literals(stream: bytes, length: int) -> Optional[np.ndarray]:
    data, plain = np.frombuffer(stream, np.uint8), np.empty(length, np.uint8)
    whole = _inflate_literals(data.ctypes.data, data.size, plain.ctypes.data, length)
    return plain if whole else None


_order_of_bytes = _function("flq_order_of_bytes", None, _POINTER, _SIZE, _POINTER)


def order_of_bytes(values: np.ndarray) -> np.ndarray:
    if not _lies(values.size, np.uint8, values):
        return plain_coding.order_of_bytes(values)
    order = np.empty(values.size, np.int64)
    _order_of_bytes(values.ctypes.data, values.size, order.ctypes.data)
    return order


_after_steps = _function("flq_after_steps", None, _POINTER, _POINTER, _POINTER, _SIZE, _POINTER)


def after_steps(table: np.ndarray, codes: np.ndarray, steps: np.ndarray,
                out: np.ndarray) -> None:
    size = codes.size
    if (_lies(1 << 15, np.uint8, table) and _lies(size, np.uint8, codes, out)
            and _lies(size, np.int16, steps) and out.flags.writeable):
        _after_steps(table.ctypes.data, codes.ctypes.data, steps.ctypes.data, codes.size,
                     out.ctypes.data)
    else:
        plain_coding.after_steps(table, codes, steps, out)


_rans_write = _function("flq_rans_write", _SIZE, _POINTER, _SIZE, _POINTER, _POINTER, _POINTER,
                        _SIZE, _POINTER)


def rans_write(symbols: np.ndarray, frequencies: np.ndarray, starts: np.ndarray,
               states: np.ndarray) -> np.ndarray:
    if not (_lies(symbols.size, np.int64, symbols) and _lies(states.size, np.int64, states)
            and _lies(frequencies.size, np.int64, frequencies, starts)
            and _are_places(symbols, frequencies.size) and (frequencies > 0).all() and states.size
            and states.flags.writeable):
        return plain_coding.rans_write(symbols, frequencies, starts, states)
    words = np.empty(symbols.size, np.uint16)
    count = _rans_write(symbols.ctypes.data, symbols.size, frequencies.ctypes.data,
                        starts.ctypes.data, states.ctypes.data, states.size, words.ctypes.data)
    return words[words.size - count:]


_rans_read = _function("flq_rans_read", _SIZE, _POINTER, _SIZE, _POINTER, _POINTER, _POINTER,
                       _POINTER, _SIZE, _POINTER, _SIZE, _POINTER)


def rans_read(rows: np.ndarray, found: np.ndarray, frequencies: np.ndarray, starts: np.ndarray,
              states: np.ndarray, words: np.ndarray) -> Tuple[np.ndarray, int]:
    sources = frequencies.size >> 8
    if not (_lies(rows.size, np.int64, rows) and _lies(states.size, np.int64, states)
            and _lies(sources << 8, np.int64, frequencies, starts)
            and _lies(sources << plain_coding.RANS_PRECISION, np.uint8, found) and _are_places(
                rows, sources) and _lies(words.size, np.uint16, words) and states.size
            and states.flags.writeable):
        return plain_coding.rans_read(rows, found, frequencies, starts, states, words)
    values = np.empty(rows.size, np.uint8)
    used = _rans_read(rows.ctypes.data, rows.size, found.ctypes.data, frequencies.ctypes.data,
                      starts.ctypes.data, states.ctypes.data, states.size, words.ctypes.data,
                      words.size, values.ctypes.data)
    return values, used


_moved = _function("flq_moved", None, _POINTER, _POINTER, _FLOAT, _SIZE, _POINTER)


def moved(x: np.ndarray, to: np.ndarray, weight: np.float32) -> np.ndarray:
    if not _lies(x.size, np.float32, x, to):
        return plain.moved(x, to, weight)
    new = np.empty_like(x)
    _moved(x.ctypes.data, to.ctypes.data, weight, x.size, new.ctypes.data)
    return new


_stepped = _function("flq_stepped", None, _POINTER, _FLOAT, _POINTER, _SIZE, _POINTER)


def stepped(x: np.ndarray, rate: np.float32, step: np.ndarray) -> np.ndarray:
    if not _lies(x.size, np.float32, x, step):
        return plain.stepped(x, rate, step)
    new = np.empty_like(x)
    _stepped(x.ctypes.data, rate, step.ctypes.data, x.size, new.ctypes.data)
    return new
