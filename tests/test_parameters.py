"""The flat model: its layout, and the one sum that decides things against the slow loop."""

import hashlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.errors import DataError
from flq.kernels import row_sums_f64, squared_distance, squared_norm, sum_f64
from flq.parameters import Layout, flatten, params_hash, unflatten
from flq.pieces import PIECE
from tests.oracles import sums as oracle
from tests.vectors import vectors

# float64 of many magnitudes, so that any other order of additions shows in the last bits.
_WIDE = st.lists(st.floats(-1e18, 1e18), max_size=40)


@pytest.mark.parametrize("length", [0, 1, 2, 511, 1023, 1024, 1025, 2047, 2048, 2049, 10000, 30720])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sum_is_the_oracles_bit_for_bit(length, dtype):
    values = ((rng.Stream(1, rng.INIT).uniform(length) - 0.5) *
              10.0**(np.arange(length) % 23 - 8)).astype(dtype)
    assert sum_f64(values) == oracle.fixed_order_sum(values.tolist())
    assert math.isclose(sum_f64(values), math.fsum(values.tolist()), rel_tol=1e-9, abs_tol=1e-3)


@given(_WIDE)
def test_the_sum_of_any_short_vector_is_the_oracles(values):
    assert sum_f64(np.array(values, np.float64)) == oracle.fixed_order_sum(values)


def test_the_sum_of_a_strided_vector_is_that_of_its_copy():
    values = rng.Stream(1, rng.INIT).uniform(9000)
    assert sum_f64(values[::2]) == sum_f64(values[::2].copy()) == oracle.fixed_order_sum(
        values[::2].tolist())


@pytest.mark.parametrize("width", [1, 2, 3, 7, 16, 33, 1000, 1024, 1025, 2048, 3000, 4096])
def test_the_sums_of_rows_are_the_oracles(width):
    rows = ((rng.Stream(2, rng.INIT).uniform(3 * width) - 0.5) *
            10.0**(np.arange(3 * width) % 23 - 8)).astype(np.float32).reshape(3, width)
    assert row_sums_f64(rows).tolist() == [oracle.fixed_order_sum(row) for row in rows.tolist()]


@given(vectors(max_size=30))
def test_squared_norms_do_not_overflow_and_are_summed_in_that_order(vector):
    norm2 = squared_norm(vector)
    assert norm2 == oracle.fixed_order_sum([x * x for x in vector.tolist()])
    assert math.isclose(norm2, oracle.squared_norm(vector.tolist()), rel_tol=1e-12)


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, PIECE - 1, PIECE, PIECE + 1, 70000])
def test_squared_norms_and_distances_of_pieces_are_the_oracles_bit_for_bit(length):
    first, second = (((rng.Stream(seed, rng.INIT).uniform(length) - 0.5) *
                      10.0**(np.arange(length) % 23 - 8)).astype(np.float32) for seed in (1, 2))
    assert squared_norm(first) == oracle.fixed_order_sum([x * x for x in first.tolist()])
    assert squared_norm(first.astype(np.float64)) == squared_norm(first)
    assert squared_distance(first, second) == oracle.fixed_order_sum(
        [x * x for x in (first - second).tolist()])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE + 3])
def test_a_squared_norm_is_finite_where_all_of_the_vector_is(value, place):
    vector = np.full(PIECE + 4, np.finfo(np.float32).max, np.float32)
    assert math.isfinite(squared_norm(vector))
    vector[place] = value
    assert not math.isfinite(squared_norm(vector))


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
    assert sum_f64(np.zeros(0)) == 0.0 and params_hash(np.zeros(
        0, np.float32), np.zeros(0, np.float32)) == hashlib.sha256(b"").digest()[:8]
