"""The model as one flat float32 vector: its layout, its hashes, and the one sum that decides
things.
"""

import hashlib
import json
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from flq.errors import DataError
from flq.pieces import PIECE, pieces

Shape = Tuple[int, ...]

_ROW = 1024  # columns of the summation, see sum_f64


class Layout(NamedTuple):
    """What the flat vectors of one model hold, by position.

    shapes: of the T trainable tensors, in the model's order. non_trainable_shapes: of the float
    non-trainable tensors that training changes (moving means and the like), whose N values travel
    beside an update. constant_shapes: of the float tensors of frozen layers, which nothing changes.
    Names are left out on purpose: Keras 2 and Keras 3 name the same variable differently.
    """

    shapes: Tuple[Shape, ...]
    non_trainable_shapes: Tuple[Shape, ...] = ()
    constant_shapes: Tuple[Shape, ...] = ()

    @property
    def sizes(self) -> Tuple[int, ...]:
        return tuple(size_of(shape) for shape in self.shapes)

    @property
    def num_params(self) -> int:
        """p, the number of trainable parameters."""
        return sum(self.sizes)

    @property
    def num_tensors(self) -> int:
        """T, the number of trainable tensors."""
        return len(self.shapes)

    @property
    def num_non_trainable(self) -> int:
        """N, the number of float non-trainable values that training changes."""
        return sum(size_of(shape) for shape in self.non_trainable_shapes)

    @property
    def num_constants(self) -> int:
        """The number of float values of frozen layers."""
        return sum(size_of(shape) for shape in self.constant_shapes)

    def hash(self) -> str:
        """16 hex digits that agree when two machines built the same model (shapes and order,
        float32).
        """
        constants = [self.constant_shapes] if self.constant_shapes else []
        text = json.dumps([self.shapes, self.non_trainable_shapes] + constants + ["float32"],
                          separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def size_of(shape: Shape) -> int:
    """How many numbers a tensor of this shape holds."""
    size = 1
    for dim in shape:
        size *= dim
    return size


def flatten(tensors: Sequence[np.ndarray], shapes: Sequence[Shape]) -> np.ndarray:
    """Tensors of the given shapes -> one float32 vector. Raises DataError when a shape differs."""
    for tensor, shape in zip(tensors, shapes):
        if tuple(tensor.shape) != tuple(shape):
            raise DataError("a tensor has another shape than the model", tuple(shape),
                            tuple(tensor.shape))
    if len(tensors) != len(shapes):
        raise DataError("another number of tensors than the model has", len(shapes), len(tensors))
    if not tensors:
        return np.zeros(0, np.float32)
    return np.concatenate([np.asarray(tensor, np.float32).reshape(-1) for tensor in tensors])


def unflatten(vector: np.ndarray, shapes: Sequence[Shape]) -> List[np.ndarray]:
    """One float32 vector -> tensors of the given shapes (views).

    Raises DataError when the length differs.
    """
    length = sum(size_of(shape) for shape in shapes)
    if vector.shape != (length,):
        raise DataError("the vector has another length than the model", length, vector.shape)
    tensors, start = [], 0
    for shape in shapes:
        stop = start + size_of(shape)
        tensors.append(vector[start:stop].reshape(shape))
        start = stop
    return tensors


def params_hash(params: np.ndarray, non_trainable: np.ndarray) -> bytes:
    """First 8 bytes of SHA-256 over the little-endian float32 of the model and its non-trainable
    values.
    """
    digest = hashlib.sha256(np.ascontiguousarray(params, "<f4"))
    digest.update(np.ascontiguousarray(non_trainable, "<f4"))
    return digest.digest()[:8]


def constants_hash(data: bytes) -> str:
    """16 hex digits over the values of frozen layers, little-endian float32."""
    return hashlib.sha256(data).hexdigest()[:16]


def sum_f64(values: np.ndarray) -> float:
    """Sum of a vector in float64, the same bits on every machine.

    The vector is read as rows of 1024 (the last one padded with zeros), rows are added in order,
    and the 1024 partial sums are folded by halves. Every addition is elementwise, so neither
    NumPy's pairwise blocks nor a BLAS decide the order (algorithm.md 7).
    """
    full = values.size // _ROW * _ROW
    partial = np.add.reduce(values[:full].reshape(-1, _ROW), axis=0, dtype=np.float64)
    tail = values[full:]
    partial[:tail.size] += tail
    return _folded(partial)


def _folded(partial: np.ndarray) -> float:
    width = _ROW
    while width > 1:
        width //= 2
        partial = partial[:width] + partial[width:]
    return float(partial[0])


def row_sums_f64(rows: np.ndarray) -> np.ndarray:
    """sum_f64 of each row of rows[B, n], float64[B], in a few passes over all of them."""
    width = 1
    while width < min(rows.shape[1], _ROW):
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
        self._partial = np.zeros(_ROW)

    def add(self, piece: np.ndarray) -> None:
        """The next piece, which is overwritten. All but the last are PIECE long."""
        full = piece.size // _ROW * _ROW
        if full:
            rows = piece[:full].reshape(-1, _ROW)
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
    """||x||^2 in float64, the same bits on every machine."""
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
