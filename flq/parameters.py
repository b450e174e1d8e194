"""The model as one flat float32 vector: its layout and its hashes."""

import hashlib
import json
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from flq.errors import DataError

Shape = Tuple[int, ...]


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
