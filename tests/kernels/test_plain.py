"""The passes over long vectors with NumPy, bit for bit against slow ones on Python's floats."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.kernels import plain
from flq.pieces import PIECE
from tests.oracles import passes as oracle
from tests.oracles.floats import add
from tests.oracles.sums import fixed_order_sum
from tests.oracles.sums import squared_norm as nearest_squared_norm
from tests.vectors import same_bits, vectors

LENGTHS = [0, 1, 2, 255, 257, 1023, 1024, 1025, PIECE - 1, PIECE, PIECE + 1, 70000]
every_length = pytest.mark.parametrize("length", LENGTHS)

# float64 of many magnitudes, so that any other order of additions shows in the last bits.
_WIDE = st.lists(st.floats(-1e18, 1e18), max_size=40)


def wide(length, stream, dtype=np.float32):
    """Numbers of many magnitudes."""
    return ((rng.Stream(stream, rng.INIT).uniform(length) - 0.5) *
            10.0**(np.arange(length) % 23 - 8)).astype(dtype)


def some_levels(length, bits=8):
    return (rng.Stream(9, rng.INIT).uniform(length) * 2**bits).astype(np.uint8)


# --- sums


@pytest.mark.parametrize("length", [0, 1, 2, 511, 1023, 1024, 1025, 2047, 2048, 2049, 10000, 30720])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sum_is_the_oracles_bit_for_bit(length, dtype):
    values = wide(length, 1, dtype)
    assert plain.sum_f64(values) == fixed_order_sum(values.tolist())
    assert math.isclose(plain.sum_f64(values), math.fsum(values.tolist()), rel_tol=1e-9,
                        abs_tol=1e-3)


@given(_WIDE)
def test_the_sum_of_any_short_vector_is_the_oracles(values):
    assert plain.sum_f64(np.array(values, np.float64)) == fixed_order_sum(values)


def test_the_sum_of_a_strided_vector_is_that_of_its_copy():
    values = rng.Stream(1, rng.INIT).uniform(9000)
    assert plain.sum_f64(values[::2]) == plain.sum_f64(values[::2].copy()) == fixed_order_sum(
        values[::2].tolist())


@pytest.mark.parametrize("width", [1, 2, 3, 7, 16, 33, 1000, 1024, 1025, 2048, 3000, 4096])
def test_the_sums_of_rows_are_the_oracles(width):
    rows = wide(3 * width, 2).reshape(3, width)
    assert plain.row_sums_f64(rows).tolist() == [fixed_order_sum(row) for row in rows.tolist()]


@given(vectors(max_size=30))
def test_squared_norms_do_not_overflow_and_are_summed_in_that_order(vector):
    norm2 = plain.squared_norm(vector)
    assert norm2 == oracle.squared_norm(vector.tolist())
    assert math.isclose(norm2, nearest_squared_norm(vector.tolist()), rel_tol=1e-12)


@every_length
def test_squared_norms_and_distances_of_pieces(length):
    first, second = wide(length, 1), wide(length, 2)
    norm2 = oracle.squared_norm(first.tolist())
    assert plain.squared_norm(first) == plain.squared_norm(first.astype(np.float64)) == norm2
    lists = first.tolist(), second.tolist()
    assert plain.squared_distance(first, second) == oracle.squared_distance(*lists)
    assert plain.squared_distance_f64(first, second) == oracle.squared_distance_f64(*lists)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE + 3])
def test_norms_and_magnitudes_are_finite_where_all_of_the_vector_is(value, place):
    vector = np.full(PIECE + 4, np.finfo(np.float32).max, np.float32)
    passes = (plain.squared_norm, plain.sum_of_magnitudes, plain.largest_magnitude)
    assert all(math.isfinite(measure(vector)) for measure in passes)
    vector[place] = value
    assert not any(math.isfinite(measure(vector)) for measure in passes)


@every_length
def test_magnitudes(length):
    vector = wide(length, 1)
    assert plain.sum_of_magnitudes(vector) == oracle.sum_of_magnitudes(vector.tolist())
    assert plain.largest_magnitude(vector) == oracle.largest_magnitude(vector.tolist())


@pytest.mark.parametrize("values", [[-0.0], [0.0], [-0.0] * 40, [0.0, -0.0] * 40])
def test_the_largest_magnitude_of_zeros_has_no_sign(values):
    assert math.copysign(1, plain.largest_magnitude(np.array(values, np.float32))) == 1


# --- quantising


@every_length
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_levels_that_float32_finds_and_where_it_is_not_sure(length, bits):
    values = (2 * rng.Stream(3, rng.INIT).uniform(length) - 1).astype(np.float32)
    half, margin = 2.0**(bits - 1) - 0.5, 2.0**(bits - 9)  # wide: many places are not sure
    slope, low, high = half, half + 0.5 - margin / 4, half + 0.5 + margin / 4
    levels, unsure = plain.near_levels(values, slope, low, high)
    assert levels.dtype == np.uint8
    assert (levels.tolist(), unsure.tolist()) == oracle.near_levels(values.tolist(), slope, low,
                                                                    high)


@every_length
@pytest.mark.parametrize("bits, times, middle", [(1, 2, 1), (2, 2, 3), (4, 1, 7), (7, 2, 127),
                                                 (8, 1, 127), (8, 2, 255)])
def test_what_levels_stand_for(length, bits, times, middle):
    levels, step, base = some_levels(length, bits), np.float32(0.1), wide(length, 2)
    expected, out = oracle.on_grid(levels.tolist(), times, middle, float(step)), np.empty_like(base)
    assert same_bits(plain.on_grid(levels, times, middle, step, bits), expected)
    assert plain.on_grid(levels, times, middle, step, bits, out=out) is out
    assert same_bits(out, expected)
    assert same_bits(plain.on_grid(levels, times, middle, step, bits, base),
                     add(base.tolist(), expected))


@pytest.mark.parametrize("dtype, bits", [(np.uint8, 4), (np.uint8, 8), (np.uint16, 12)])
def test_what_levels_stand_for_with_a_step_for_each_row(dtype, bits):
    levels = (some_levels(600, 4).reshape(3, 200)).astype(dtype)
    steps = np.array([[0.1], [3e-39], [1e30]], np.float32)
    found = plain.on_grid(levels, 2, 15, steps, bits)
    for row, step, values in zip(levels, steps.ravel(), found):
        assert same_bits(values, oracle.on_grid(row.tolist(), 2, 15, float(step)))


@every_length
def test_products_with_levels(length):
    values, levels = wide(length, 4), some_levels(length)
    assert plain.products_with_levels(values, levels, 127) == oracle.products_with_levels(
        values.tolist(), levels.tolist(), 127)


# --- references, and what the master sums


@every_length
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_a_difference_from_a_reference_is_rounded_once_and_measured(length, rate):
    update, g = wide(length, 5), wide(length, 6, np.float64) / 3
    difference, norm2 = plain.from_reference(rate, update, g)
    expected = oracle.from_reference(rate, update.tolist(), g.tolist())
    assert same_bits(difference, expected) and norm2 == oracle.squared_norm(expected)


@every_length
def test_what_is_committed_is_added_to_a_reference_and_within_a_limit_or_not(length):
    g, c = wide(length, 6, np.float64) / 3, wide(length, 7)
    expected = oracle.to_reference(g.tolist(), c.tolist())
    largest = 0.3 * oracle.largest_magnitude(expected)
    for limit in (largest, float(np.nextafter(largest, 0)), 0.0, math.inf):
        after, fits = plain.to_reference(0.3, limit, g, c)
        assert same_bits(after, expected, np.float64)
        assert fits is oracle.is_within(expected, 0.3, limit)
    for place in {0, length - 1} if length else ():
        bad = c.copy()
        bad[place] = np.nan
        assert plain.to_reference(0.3, math.inf, g, bad)[1] is False


@every_length
def test_a_weighted_sum_adds_in_the_order_given(length):
    given_, weights = [wide(length, stream) for stream in (1, 2, 3)], [17.0, 0.3, 1e9]
    lists = [vector.tolist() for vector in given_]
    for start, stop in ((0, length), (length // 3, length), (length // 2, length // 2)):
        found = plain.weighted_sum(given_, weights, slice(start, stop))
        assert same_bits(found, oracle.weighted_sum(lists, weights, start, stop), np.float64)
    assert same_bits(plain.weighted_sum([], [], slice(0, length)), np.zeros(length), np.float64)


@every_length
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_a_direction_around_references_is_rounded_once(length, rate):
    reference_sum, weighted = (wide(length, stream, np.float64) / 3 for stream in (6, 7))
    direction = np.empty(length, np.float32)
    plain.around_reference(reference_sum, rate, weighted, 1.25, 330.0, direction)
    assert same_bits(direction, oracle.around_reference(reference_sum.tolist(), rate,
                                                        weighted.tolist(), 1.25, 330.0))


@every_length
def test_a_sketch_is_turned_and_added_in_that_order(length):
    vector, bits = wide(length, 8), some_levels(length, 1)
    first, second = ((rng.Stream(stream, rng.INIT).uniform(32) * most).astype(np.uint32)
                     for stream, most in ((1, PIECE), (2, plain.WIDTH)))
    first = first[:-(-length // PIECE)]
    norm2, sketched = plain.sketch(vector, plain.Turns(plain.signs(bits), first, second))
    assert norm2 == oracle.squared_norm(vector.tolist())
    assert same_bits(sketched, oracle.sketch(vector.tolist(), bits.tolist(), first.tolist(),
                                             second.tolist()), np.float64)


@every_length
@pytest.mark.parametrize("kind", [np.float32, np.float64, float])
def test_steps_and_averages_are_float32_at_each_operation(length, kind):
    """Whatever the rate is given as: NumPy 1 and 2 would compute with it differently."""
    x, other, rate = wide(length, 1), wide(length, 2), np.float32(0.3)
    given_ = kind(0.3)
    assert same_bits(plain.moved(x, other, given_),
                     oracle.moved(x.tolist(), other.tolist(), float(rate)))
    assert same_bits(plain.stepped(x, given_, other),
                     oracle.stepped(x.tolist(), float(rate), other.tolist()))


@given(vectors(min_size=4, max_size=40), st.floats(-10, 10, width=32))
def test_any_float32_is_added_and_rounded_as_on_paper(values, rate):
    """Denormals, numbers whose products are beyond float32, and zeros of both signs."""
    x, y = np.array_split(values[:values.size // 2 * 2], 2)
    lists, g = (x.tolist(), y.tolist()), y.astype(np.float64) * 1e-3
    direction = np.empty_like(x)
    with np.errstate(over="ignore", invalid="ignore"):
        plain.around_reference(g, rate, g[::-1].copy(), 3.0, 0.25, direction)
        found = [plain.moved(x, y, np.float32(rate)), plain.stepped(x, np.float32(rate), y),
                 plain.from_reference(rate, x, g)[0], direction]
    g = g.tolist()
    expected = [oracle.moved(*lists, rate), oracle.stepped(lists[0], rate, lists[1]),
                oracle.from_reference(rate, lists[0], g),
                oracle.around_reference(g, rate, g[::-1], 3.0, 0.25)]
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, np.array(other, np.float32))
        assert same_bits(np.isnan(one) | np.signbit(one), np.isnan(other) | np.signbit(other), bool)
    assert plain.sum_of_magnitudes(x) == oracle.sum_of_magnitudes(lists[0])
    assert plain.largest_magnitude(x) == oracle.largest_magnitude(lists[0])
    assert plain.squared_distance(x, x) == 0.0
