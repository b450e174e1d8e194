"""The flat model: its layout and its hashes."""

import hashlib
import struct

import numpy as np
import pytest

from flq.errors import DataError
from flq.parameters import Layout, flatten, params_hash, unflatten


def test_tensors_are_flattened_in_order_and_back():
    layout = Layout(((2, 2), (), (0, 3), (1,)))
    assert layout.sizes == (4, 1, 0, 1)
    assert (layout.num_params, layout.num_tensors, layout.num_non_trainable) == (6, 4, 0)
    tensors = [np.array([[1, 2], [3, 4]]), np.array(5), np.zeros((0, 3)), np.array([6])]
    vector = flatten(tensors, layout.shapes)
    assert vector.dtype == np.float32 and vector.tolist() == [1, 2, 3, 4, 5, 6]
    back = unflatten(vector, layout.shapes)
    assert [tensor.shape for tensor in back] == [(2, 2), (), (0, 3), (1,)]
    assert all((tensor == original).all() for tensor, original in zip(back, tensors))


def test_other_shapes_are_refused():
    with pytest.raises(DataError):
        flatten([np.zeros((4, 1))], [(2, 2)])
    with pytest.raises(DataError):
        flatten([np.zeros((2, 2))], [(2, 2), (1,)])
    with pytest.raises(DataError):
        flatten([np.zeros((2, 2)), np.zeros(1)], [(2, 2)])
    with pytest.raises(DataError):
        unflatten(np.zeros(5, np.float32), [(2, 2)])


def test_the_hash_of_a_model_is_of_little_endian_float32():
    params, non_trainable = np.array([1.0, -2.5], np.float32), np.array([0.25], np.float32)
    assert params_hash(params, non_trainable) == hashlib.sha256(struct.pack("<3f", 1.0, -2.5,
                                                                    0.25)).digest()[:8]
    assert params_hash(params.astype(">f4"), non_trainable) == params_hash(params, non_trainable)


def test_the_hash_of_a_layout_knows_shapes_their_order_and_state():
    layouts = [
        Layout(((2, 3), (3,))),
        Layout(((3, 2), (3,))),
        Layout(((3,), (2, 3))),
        Layout(((2, 3),), ((3,),)),
        Layout(((2, 3), (3,)), ((3,),))
    ]
    assert len({layout.hash() for layout in layouts}) == len(layouts)


def test_the_hash_of_a_layout_is_the_same_on_every_python():
    assert Layout(((3, 3, 1, 32), (32,), (10,)), ((32,), (32,))).hash() == "463c0b023bdc58d2"


def test_an_empty_model_is_an_empty_vector():
    assert flatten([], []).shape == (0,) and unflatten(np.zeros(0, np.float32), []) == []
    nothing = np.zeros(0, np.float32)
    assert params_hash(nothing, nothing) == hashlib.sha256(b"").digest()[:8]
