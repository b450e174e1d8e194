"""The passes over long vectors, with NumPy: what they compute, and how they do it where there are
no compiled ones (compiled.py, which gives the same bits).

A sum that decides something runs in float64 and in one order (algorithm.md 7). All else is
elementwise. Vectors are read in pieces, so that what is made of a piece stays in the cache.
"""

from typing import Any, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.pieces import PIECE, pieces

WIDTH = 1024
"""Columns of a sum, and numbers of a sketch."""


class Turns(NamedTuple):
    """What a sketch of vectors of one length is drawn from (flq/algorithm/sketch.py). signs: of the
    entries, as `signs` made them. first, second: by how much each row is turned, uint32.
    """

    signs: np.ndarray
    first: np.ndarray
    second: np.ndarray


def sum_f64(values: np.ndarray) -> float:
    """Sum of a vector in float64, the same bits on every machine.

    The vector is read as rows of 1024 (the last one padded with zeros), rows are added in order,
    and the 1024 partial sums are folded by halves. Every addition is elementwise, so neither
    NumPy's pairwise blocks nor a BLAS decide the order (algorithm.md 7).
    """
    full = values.size // WIDTH * WIDTH
    partial = np.add.reduce(values[:full].reshape(-1, WIDTH), axis=0, dtype=np.float64)
    tail = values[full:]
    partial[:tail.size] += tail
    return _folded(partial)


def _folded(partial: np.ndarray) -> float:
    width = WIDTH
    while width > 1:
        width //= 2
        partial = partial[:width] + partial[width:]
    return float(partial[0])


def row_sums_f64(rows: np.ndarray) -> np.ndarray:
    """sum_f64 of each row of rows[B, n], float64[B], in a few passes over all of them."""
    width = 1
    while width < min(rows.shape[1], WIDTH):
        width *= 2
    partial = np.zeros((len(rows), width))
    for start in range(0, rows.shape[1], width):
        piece = rows[:, start:start + width]
        partial[:, :piece.shape[1]] += piece
    while width > 1:
        width //= 2
        partial = partial[:, :width] + partial[:, width:]
    return partial[:, 0]


class PieceSum(object):
    """sum_f64 of a float64 vector whose pieces come one after another."""

    def __init__(self) -> None:
        self._partial = np.zeros(WIDTH)

    def add(self, piece: np.ndarray) -> None:
        """The next piece, which is overwritten. All but the last are PIECE long."""
        full = piece.size // WIDTH * WIDTH
        if full:
            rows = piece[:full].reshape(-1, WIDTH)
            rows[0] += self._partial  # the sum goes on where it was: one row after another
            np.add.reduce(rows, axis=0, out=self._partial)
        tail = piece[full:]
        self._partial[:tail.size] += tail

    def result(self) -> float:
        return _folded(self._partial)


class SumOfSquares(PieceSum):
    """The same of its squares."""

    def add(self, piece: np.ndarray) -> None:
        piece *= piece
        super().add(piece)


def squared_norm(vector: np.ndarray) -> float:
    """||x||^2 in float64, the same bits on every machine; finite where all of a float32 x is."""
    squares, buffer = SumOfSquares(), np.empty(min(vector.size, PIECE))
    for part in pieces(0, vector.size):
        piece = buffer[:part.stop - part.start]
        piece[...] = vector[part]
        squares.add(piece)
    return squares.result()


def squared_distance(vector: np.ndarray, other: np.ndarray) -> float:
    """||x - y||^2 of two float32 vectors: squared_norm of their difference in float32."""
    squares, length = SumOfSquares(), min(vector.size, PIECE)
    difference, buffer = np.empty(length, np.float32), np.empty(length)
    for part in pieces(0, vector.size):
        piece = buffer[:part.stop - part.start]
        piece[...] = np.subtract(vector[part], other[part], out=difference[:piece.size])
        squares.add(piece)
    return squares.result()


def squared_distance_f64(vector: np.ndarray, other: np.ndarray) -> float:
    """||x - y||^2 of two float32 vectors, their difference in float64."""
    return squared_norm(np.subtract(vector, other, dtype=np.float64))


def sum_of_magnitudes(vector: np.ndarray) -> float:
    """The sum of |x|, as sum_f64."""
    return sum_f64(np.abs(vector))


def largest_magnitude(vector: np.ndarray) -> float:
    """max |x|, 0 of nothing; not finite where a value is not."""
    if not vector.size:
        return 0.0
    return float(np.maximum(vector.max(), -vector.min())) + 0.0  # never -0.0


def near_levels(values: np.ndarray, slope: float, low: float,
                high: float) -> Tuple[np.ndarray, np.ndarray]:
    """floor(slope x + high) computed in float32, uint8[n], and the places where floor(slope x +
    low) is another number. All are between 0 and 255.
    """
    levels, length = np.empty(values.size, np.uint8), min(values.size, PIECE)
    scaled, moved = np.empty(length, np.float32), np.empty(length, np.float32)
    least, unsure = np.empty(length, np.uint8), []
    for part in pieces(0, values.size):
        found = levels[part]
        near, below, lower = scaled[:found.size], moved[:found.size], least[:found.size]
        np.multiply(values[part], np.float32(slope), out=near)
        np.add(near, np.float32(low), out=below)
        lower[...] = below
        near += np.float32(high)
        found[...] = near
        unsure.append(np.flatnonzero(lower != found) + part.start)
    return levels, np.concatenate(unsure) if unsure else np.zeros(0, np.int64)


def on_grid(levels: np.ndarray, times: int, middle: int, step: Any, bits: int,
            base: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
    """(times level - middle) step in float32, of the levels' shape: exact but for the product.

    times: 1 or 2; middle: below 2^bits; levels: below 2^bits. step: float32, one or an array. base:
    float32, added in float32. out: where the values are to be, float32.
    """
    values = np.empty(levels.shape, np.float32) if out is None else out
    if np.ndim(step):
        np.multiply(_around(levels, times, middle, bits), step, out=values)
    else:
        flat, target = levels.reshape(-1), values.reshape(-1)
        for part in pieces(0, flat.size):
            np.multiply(_around(flat[part], times, middle, bits), np.float32(step),
                        out=target[part])
    if base is not None:
        values += base
    return values


def _around(levels: np.ndarray, times: int, middle: int, bits: int) -> np.ndarray:
    if bits < 8 and levels.dtype == np.uint8:
        # It fits into a signed byte, and a pass over bytes costs a fraction.
        small = levels + levels if times == 2 else levels
        return (small - np.uint8(middle)).view(np.int8).astype(np.float32)
    values = levels.astype(np.float32)
    values *= np.float32(times)
    values -= np.float32(middle)
    return values


def products_with_levels(values: np.ndarray, levels: np.ndarray,
                         middle: int) -> Tuple[float, float]:
    """<x, level - middle> and ||level - middle||^2, as sum_f64."""
    products, squares, length = PieceSum(), SumOfSquares(), min(values.size, PIECE)
    exact, steps = np.empty(length), np.empty(length)
    for part in pieces(0, values.size):
        near, out = exact[:part.stop - part.start], steps[:part.stop - part.start]
        near[...] = values[part]
        out[...] = levels[part]
        out -= middle
        near *= out
        products.add(near)
        squares.add(out)
    return products.result(), squares.result()


def from_reference(rate: float, update: np.ndarray, g: np.ndarray) -> Tuple[np.ndarray, float]:
    """d = u - a g in float64, rounded to float32 once, and squared_norm(d)."""
    # At rate 1 NumPy does it piece by piece, without a vector of float64.
    h = g if rate == 1 else rate * g
    difference = np.subtract(update, h, out=np.empty_like(update), dtype=np.float64)
    return difference, squared_norm(difference)


def to_reference(rate: float, limit: float, g: np.ndarray,
                 c: np.ndarray) -> Tuple[np.ndarray, bool]:
    """g + c, of the dtype of g, and whether -limit <= a (g + c) <= limit everywhere."""
    after = g + c
    return after, all(rate * after[part].max() <= limit and rate * after[part].min() >= -limit
                      for part in pieces(0, after.size))


def weighted_sum(vectors: Sequence[np.ndarray], weights: Sequence[float],
                 part: slice) -> np.ndarray:
    """A piece of sum w x in float64, in the order given. vectors: float32."""
    total, term = np.zeros(part.stop - part.start), np.empty(part.stop - part.start)
    for vector, weight in zip(vectors, weights):
        term[...] = vector[part]
        term *= weight
        total += term
    return total


def around_reference(reference_sum: np.ndarray, rate: float, weighted: np.ndarray, rho: float,
                     total_weight: float, out: np.ndarray) -> None:
    """(a A + rho D) / N in float64, rounded to float32 once, in `out`."""
    mean = rho * weighted
    mean += reference_sum if rate == 1 else rate * reference_sum
    mean /= total_weight
    out[...] = mean


def signs(bits: np.ndarray) -> np.ndarray:
    """Bits, uint8[n], as the signs of Turns: 1 stands for -1."""
    return np.float32(1) - np.float32(2) * bits.astype(np.float32)


def sketch(vector: np.ndarray, turns: Turns) -> Tuple[float, np.ndarray]:
    """squared_norm of a float32 vector, and its sketch, float64[WIDTH], in one pass.

    Rows of PIECE, with their signs, are turned and added, and so are the rows of WIDTH of their
    sum.
    """
    squares, total = SumOfSquares(), np.zeros(PIECE)
    signed, buffer = np.empty(PIECE, np.float32), np.empty(PIECE)
    for part, turn in zip(pieces(0, vector.size), turns.first.tolist()):
        piece = buffer[:part.stop - part.start]
        piece[...] = np.multiply(vector[part], turns.signs[part], out=signed[:piece.size])
        _add_turned(total, piece, turn)
        squares.add(piece)
    sketched = np.zeros(WIDTH)
    for row, turn in zip(total.reshape(-1, WIDTH), turns.second.tolist()):
        _add_turned(sketched, row, turn)
    return squares.result(), sketched


def _add_turned(total: np.ndarray, row: np.ndarray, turn: int) -> None:
    """Add entry i of a row to entry (i + turn) mod the size of the total. row: not longer."""
    head = row[:total.size - turn]
    total[turn:turn + head.size] += head
    tail = row[head.size:]
    total[:tail.size] += tail


def moved(x: np.ndarray, to: np.ndarray, weight: np.float32) -> np.ndarray:
    """x + (to - x) weight, in float32."""
    new, weight = np.empty_like(x), np.float32(weight)
    for part in pieces(0, x.size):
        np.subtract(to[part], x[part], out=new[part])
        new[part] *= weight
        new[part] += x[part]
    return new


def stepped(x: np.ndarray, rate: np.float32, step: np.ndarray) -> np.ndarray:
    """x - rate step, in float32."""
    new, rate = np.empty_like(x), np.float32(rate)
    for part in pieces(0, x.size):
        np.multiply(rate, step[part], out=new[part])
        np.subtract(x[part], new[part], out=new[part])
    return new
