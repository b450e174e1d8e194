"""Sketches against the vectors themselves, and against the definition written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.algorithm import sketch
from flq.kernels import squared_norm
from flq.pieces import PIECE

KEY, OLD_KEY = bytes(range(16)), bytes(range(8))
every_key = pytest.mark.parametrize("key", [KEY, OLD_KEY])


@every_key
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 5000))
def test_a_sketch_is_about_as_long_as_its_vector_and_adds_up(key, seed, length):
    dice = np.random.RandomState(seed)
    first, second = (dice.standard_normal(length).astype(np.float32) for _ in range(2))
    sketched = sketch.sketch(key, first)
    assert sketched.shape == (sketch.WIDTH,) and sketched.dtype == np.float64
    assert sketch.length(sketched) == pytest.approx(np.linalg.norm(first), rel=0.25)
    np.testing.assert_allclose(sketched + sketch.sketch(key, second),
                               sketch.sketch(key, first.astype(float) + second), atol=1e-6)


@every_key
def test_it_is_measured_with_the_one_norm(key):
    vector = rng.Stream(1, rng.INIT).uniform(2 * PIECE + 700).astype(np.float32)
    norm2, sketched = sketch.measured(key, vector)
    assert norm2 == squared_norm(vector)
    np.testing.assert_array_equal(sketched, sketch.sketch(key, vector))


@every_key
def test_another_key_draws_another_sketch(key):
    vector = np.ones(100, np.float32)
    assert (sketch.sketch(key, vector) != sketch.sketch(bytes(len(key)), vector)).any()
    assert (sketch.sketch(key, vector) != sketch.sketch(key[:-1] + b"x", vector)).any()


def test_each_entry_is_in_one_bucket_with_one_sign_whatever_lies_beside_it():
    length = PIECE + 3000
    whole = np.arange(1, length + 1, dtype=np.float32)
    added = np.zeros(sketch.WIDTH)
    found = {}
    for place in [0, 1, 1023, 1024, PIECE - 1, PIECE, PIECE + 1024, length - 1]:
        alone = np.zeros(length, np.float32)
        alone[place] = whole[place]
        sketched = sketch.sketch(KEY, alone)
        bucket, = np.flatnonzero(sketched)
        assert abs(sketched[bucket]) == whole[place]
        found[place] = bucket
        added += sketched
    few = np.zeros(length, np.float32)
    few[list(found)] = whole[list(found)]
    np.testing.assert_array_equal(sketch.sketch(KEY, few), added)
    assert (found[1] - found[0]) % sketch.WIDTH == 1, "entries of a row stay side by side"


def patterns():
    """Vectors whose entries lie as a liar without the key could lay them."""
    length, dice = 4 * PIECE, np.random.RandomState(0)
    yield "noise", dice.standard_normal(length)
    yield "equal", np.ones(length)
    for step in (1023, sketch.WIDTH, 2 * sketch.WIDTH, PIECE - 1):
        yield f"every {step}th", (np.arange(length) % step == 5).astype(float)
    yield "one row of two", (np.arange(length) % PIECE < sketch.WIDTH).astype(float)


@pytest.mark.parametrize("name, vector", list(patterns()))
def test_its_error_is_that_of_independent_buckets_however_the_entries_lie(name, vector):
    """Over keys: the mean of ||s||^2 is ||x||^2 and its variance at most 2 ||x||^4 / 992."""
    vector, keys = vector.astype(np.float32), 100
    lengths = [sketch.length(sketch.sketch(number.to_bytes(16, "little"), vector))
               for number in range(keys)]
    ratios = np.square(lengths) / squared_norm(vector)
    deviation = math.sqrt(2 / 992)
    assert abs(ratios.mean() - 1) < 4 * deviation / math.sqrt(keys)
    assert ratios.std() < 1.5 * deviation


def test_the_sketches_of_a_run_that_an_older_version_began_stay_what_they_were():
    vector = rng.Stream(3, rng.INIT).uniform(2000).astype(np.float32)
    words = rng.Stream(int.from_bytes(OLD_KEY, "little"), rng.SKETCH).raw(2000).tolist()
    expected = np.zeros(1024)
    for word, value in zip(words, vector.tolist()):
        expected[word % 1024] += -value if word >> 63 else value
    np.testing.assert_array_equal(sketch.sketch(OLD_KEY, vector), expected)


def test_a_sketch_of_a_short_row_meets_the_definition():
    """Written out: turn each row, add them, turn each part of the sum, add those."""
    length = 2 * PIECE + 1500
    vector = rng.Stream(5, rng.INIT).uniform(length).astype(np.float32)
    stream = rng.Stream(int.from_bytes(KEY[:8], "little"), rng.SKETCH,
                        int.from_bytes(KEY[8:], "little"))
    first = [word % PIECE for word in stream.raw(3).tolist()]
    second = [word % 1024 for word in stream.raw(PIECE // 1024).tolist()]
    words = stream.raw(-(-length // 64)).astype("<u8").tobytes()
    expected = [0.0] * 1024
    for place, value in enumerate(vector.tolist()):
        row, column = divmod(place, PIECE)
        part, column = divmod((column + first[row]) % PIECE, 1024)
        negative = words[place // 8] >> (7 - place % 8) & 1
        expected[(column + second[part]) % 1024] += -value if negative else value
    np.testing.assert_allclose(sketch.sketch(KEY, vector), expected, rtol=1e-12, atol=1e-12)
