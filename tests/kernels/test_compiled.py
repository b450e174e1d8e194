"""The compiled passes over long vectors against those of NumPy, bit for bit."""

import concurrent.futures
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.pieces import PIECE
from tests.kernels import calls
from tests.kernels.calls import PLAIN

every_length = pytest.mark.parametrize("length", calls.LENGTHS)
CANARY, ZONE = 0xA5, 256


def test_every_pass_is_called_here():
    assert {name for name, _ in calls.calls(5)} == calls.PASSES


@every_length
def test_whatever_vectors_they_are_given_they_do_what_numpy_does(compiled, length):
    assert not sorted(set(calls.differences(compiled, [length])))


@pytest.mark.parametrize("name", sorted({name for name, _ in calls.of_floats(5)}
                                        - {calls.BOUNDED, "order_of_bytes"}))
@given(seed=st.integers(0, 2**32 - 1), length=st.one_of(st.integers(0, 3000), st.sampled_from(
    [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 255])))
def test_vectors_of_any_bits(compiled, name, seed, length):
    """Every exponent, denormals, infinities and all kinds of NaN."""
    dice = np.random.RandomState(seed)

    def drawn(vector):
        return np.frombuffer(bytearray(dice.bytes(vector.nbytes)), vector.dtype) if (
            vector.dtype.kind == "f") else vector

    for known, arguments in calls.of_floats(length):
        if known == name:
            others = tuple(calls.changed(argument, drawn) for argument in arguments)
            assert calls.outcome(compiled, name, others) == calls.outcome(PLAIN, name, others)


@given(values=st.lists(st.floats(-1, 1, width=32), max_size=600), bits=st.integers(1, 8),
       margin=st.floats(0, 0.49))
def test_levels_of_any_vector_within_the_grid(compiled, values, bits, margin):
    half = 2.0**(bits - 1) - 0.5
    arguments = (np.array(values, np.float32), half, half + 0.5 - margin, half + 0.5 + margin)
    assert calls.outcome(compiled, "near_levels", arguments) == calls.outcome(
        PLAIN, "near_levels", arguments)


@pytest.mark.parametrize("name", sorted(calls.PASSES))
def test_arguments_stay_as_they_are(compiled, name):
    for known, arguments in calls.calls(PIECE + 1):
        if known == name:
            read_only = tuple(
                item if place == calls.WRITTEN.get(name) else calls.changed(
                    item, calls.WAYS["read-only"]) for place, item in enumerate(arguments))
            expected = calls.outcome(PLAIN, name, arguments)
            assert calls.outcome(compiled, name, read_only) == expected
            for before, after in zip(arguments, read_only):
                np.testing.assert_array_equal(before, after)


def test_threads_that_compute_at_the_same_time_disturb_nobody(compiled):
    work = [(name, arguments) for length in (1025, PIECE + 1)
            for name, arguments in calls.calls(length)]
    expected = [calls.outcome(PLAIN, *call) for call in work]

    def in_some_order(seed):
        order = random.Random(seed).sample(range(len(work)), len(work))
        return all(calls.outcome(compiled, *own(*work[place])) == expected[place]
                   for place in order)

    def own(name, arguments):
        """With a vector of its own for what is written."""
        return name, tuple(item.copy() if place == calls.WRITTEN.get(name) else item
                           for place, item in enumerate(arguments))

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(in_some_order, range(24)))


class Guarded:
    """NumPy, whose new arrays lie between zones that nobody may write to."""

    def __init__(self):
        self.zones = []

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype=np.float64):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.full(size + 2 * ZONE, CANARY, np.uint8)
        self.zones.append((memory[:ZONE], memory[ZONE + size:]))
        return memory[ZONE:ZONE + size].view(dtype).reshape(shape)

    def zeros(self, shape, dtype=np.float64):
        made = self.empty(shape, dtype)
        made[...] = 0
        return made

    def empty_like(self, other):
        return self.empty(other.shape, other.dtype)


@every_length
def test_nothing_is_written_beside_what_they_give(compiled, monkeypatch, length):
    guarded = Guarded()
    monkeypatch.setattr(compiled, "np", guarded)
    writers = set()
    for name, arguments in calls.calls(length):
        before = len(guarded.zones)
        assert calls.outcome(compiled, name, arguments) == calls.outcome(PLAIN, name, arguments)
        if len(guarded.zones) > before:
            writers.add(name)
    assert all((zone == CANARY).all() for zones in guarded.zones for zone in zones)
    assert writers == calls.PASSES - {
        "squared_norm", "squared_distance", "squared_distance_f64", "sum_of_magnitudes",
        "largest_magnitude", "around_reference", "after_steps"}


@pytest.mark.parametrize("name", ["on_grid", "around_reference"])
def test_a_given_place_must_be_as_long_as_what_is_put_there(compiled, name):
    levels, g = np.arange(9, dtype=np.uint8), np.arange(9.0)

    def put(module, out):
        if name == "on_grid":
            return module.on_grid(levels, 2, 3, np.float32(0.1), 4, None, out)
        return module.around_reference(g, 0.4, g, 1.25, 3.0, out)

    memory, expected = np.full(30, np.float32(7)), np.empty(9, np.float32)
    put(compiled, memory[8:17])
    put(PLAIN, expected)
    np.testing.assert_array_equal(memory[8:17], expected)
    assert (memory[:8] == 7).all() and (memory[17:] == 7).all()
    for module in (compiled, PLAIN):
        with pytest.raises(ValueError):
            put(module, np.zeros(8, np.float32))
        with pytest.raises(ValueError, match="read-only"):
            put(module, calls.WAYS["read-only"](memory[:9]))


@pytest.mark.parametrize("turn", [1024, 2**32 - 1])
def test_turns_that_nobody_draws_write_nothing_elsewhere(compiled, monkeypatch, turn):
    guarded = Guarded()
    monkeypatch.setattr(compiled, "np", guarded)
    turns = PLAIN.Turns(compiled.signs(np.zeros(5, np.uint8)), np.full(1, turn, np.uint32),
                        np.full(32, turn, np.uint32))
    compiled.sketch(np.ones(5, np.float32), turns)
    assert all((zone == CANARY).all() for zones in guarded.zones for zone in zones)
