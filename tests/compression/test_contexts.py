"""Coding beside a history: the described bytes, the levels that come back, and what is refused."""

import json
import os
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flq.compression import contexts
from flq.errors import FrameError
from flq.pieces import PIECE
from tests.oracles import context_stream as oracle

WIDTHS = [(bits, top) for bits in (2, 3, 4, 8, 12, 16) for top in (2 ** bits - 2, 2 ** bits - 1)]


with open(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden",
                       "contexts.json")) as _file:
    GOLDEN = json.load(_file)["streams"]


def _dtype(bits):
    return np.uint8 if bits <= 8 else np.uint16


def _spread(count, seed=0):
    """How far each weight moves: some much, most little."""
    return np.exp(np.random.RandomState(seed).standard_normal(count)) / 4


def _levels(spread, bits, top, seed=0):
    steps = np.random.RandomState(seed).laplace(size=spread.size) * spread
    return np.clip(np.floor(steps + top / 2 + 0.5), 0, top).astype(_dtype(bits))


def _history(spread, bits, top, rounds=6):
    activity = contexts.initial_activity(spread.size)
    for round_ in range(rounds):
        activity = contexts.next_activity(activity, _levels(spread, bits, top, round_ + 1), top)
    return activity


def _coded(levels, bits, top, activity):
    """A stream of levels that are near enough to the middle."""
    stream = contexts.compress(levels, bits, top, activity)
    assert stream is not None
    return stream


def _refusal(stream, bits, top, activity):
    with pytest.raises(FrameError) as refusal:
        contexts.decompress(stream, bits, top, activity)
    return refusal.value.reason


@pytest.mark.parametrize("bits, top", WIDTHS)
@pytest.mark.parametrize("count", [1, 7, 300, 3000])
def test_it_writes_what_the_description_reads(bits, top, count):
    spread = _spread(count)
    activity = _history(spread, bits, top)
    levels = _levels(spread, bits, top)
    levels[::97] = np.random.RandomState(0).choice([0, top], levels[::97].size)
    stream = contexts.compress(levels, bits, top, activity)
    if stream is None:  # one level that is far out is all of a short vector
        assert sum(oracle.distance(int(level), top) for level in levels) > 4 * count
        return
    assert oracle.decode(stream, activity.tolist(), bits, top) == levels.tolist()
    back = contexts.decompress(stream, bits, top, activity)
    assert back.dtype == levels.dtype and back.tolist() == levels.tolist()


@pytest.mark.parametrize("bits, top", WIDTHS)
@given(st.data())
@settings(max_examples=20)
def test_any_levels_come_back(bits, top, data):
    middle = -(-top // 2)
    near = st.integers(max(0, middle - 2), min(top, middle + 1))
    levels = np.array(data.draw(st.lists(st.one_of(near, near, st.integers(0, top)), max_size=50)),
                      _dtype(bits))
    activity = np.array(data.draw(st.lists(st.integers(0, 255), min_size=levels.size,
                                           max_size=levels.size)), np.uint8)
    stream = contexts.compress(levels, bits, top, activity)
    far = sum(oracle.distance(int(level), top) for level in levels)
    assert (stream is None) == (far > 4 * levels.size)
    if stream is not None:
        assert contexts.decompress(stream, bits, top, activity).tolist() == levels.tolist()


@pytest.mark.parametrize("bits, top", WIDTHS)
def test_the_activity_is_that_of_the_description(bits, top):
    random = np.random.RandomState(0)
    activity = np.arange(256).repeat(3).astype(np.uint8)
    for _ in range(3):
        levels = random.randint(0, top + 1, activity.size).astype(_dtype(bits))
        after = contexts.next_activity(activity, levels, top)
        assert after.dtype == np.uint8
        assert after.tolist() == oracle.next_activity(activity.tolist(), levels.tolist(), top)
        activity = after


def test_a_weight_that_rests_is_forgotten():
    activity = np.full(1, 255, np.uint8)
    for _ in range(250):
        activity = contexts.next_activity(activity, np.full(1, 3, np.uint8), 6)
    assert activity.tolist() == contexts.initial_activity(1).tolist() == [0]


@pytest.mark.parametrize("bits, top, moves", [(3, 6, 0.7), (3, 6, 3.0), (8, 254, 0.4),
                                              (4, 15, 2.0)])
def test_it_takes_at_most_two_percent_more_than_the_entropy_of_the_classes(bits, top, moves):
    spread = _spread(200000) * moves
    activity = _history(spread, bits, top)
    levels = _levels(spread, bits, top)
    in_order, start, entropy = levels[np.argsort(activity, kind="stable")], 0, 0.0
    for index in range(16):
        part = in_order[start:levels.size * (index + 1) // 16]
        start += part.size
        counts = np.unique(part, return_counts=True)[1]
        entropy -= float((counts * np.log2(counts / part.size)).sum())
    numbers = 16 * 3 * 15  # at most three bytes for each plane of each class
    assert 8 * len(_coded(levels, bits, top, activity)) < 1.02 * entropy + 8 * numbers


def test_a_history_saves_bits():
    spread = _spread(50000)
    levels = _levels(spread, 3, 6)
    without = len(_coded(levels, 3, 6, contexts.initial_activity(spread.size)))
    assert len(_coded(levels, 3, 6, _history(spread, 3, 6))) < 0.9 * without


def test_another_history_is_refused_by_name():
    spread = _spread(2000)
    activity = _history(spread, 3, 6)
    stream = _coded(_levels(spread, 3, 6), 3, 6, activity)
    other = activity.copy()
    other[1234] ^= 1
    for held in (other, activity[:-1], contexts.initial_activity(2000)):
        assert _refusal(stream, 3, 6, held) == "other_history"
    assert _refusal(stream[:3], 3, 6, activity) == "other_history"
    assert _refusal(b"", 3, 6, activity) == "other_history"


@pytest.mark.parametrize("bits, top", [(3, 6), (4, 15), (8, 254)])
def test_a_stream_that_ends_elsewhere_is_refused(bits, top):
    spread = _spread(1500)
    activity = _history(spread, bits, top)
    levels = _levels(spread, bits, top)
    levels[:3] = top
    stream = _coded(levels, bits, top, activity)
    for end in range(4, len(stream)):
        assert _refusal(stream[:end], bits, top, activity) in ("bad_coding", "dirty_padding",
                                                               "bad_level")
    for tail in (b"\0", b"\0\0", b"\1\2\3\4"):
        assert _refusal(stream + tail, bits, top, activity) in ("bad_coding", "dirty_padding",
                                                                "bad_level")


@pytest.mark.parametrize("bits, top", [(2, 2), (3, 6), (4, 15), (8, 254), (16, 65535)])
@given(st.data())
@settings(max_examples=60)
def test_whatever_comes_is_refused_or_is_levels_of_the_grid(bits, top, data):
    """Mutations of a good stream: a flipped bit, a cut, bytes in between, other numbers."""
    spread = _spread(600, data.draw(st.integers(0, 3)))
    activity = _history(spread, bits, top, 2)
    good = bytearray(_coded(np.clip(_levels(spread, bits, top), -(-top // 2) - 2 if top > 4 else 0,
                                    top), bits, top, activity))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(4, len(good) - 1))
        how = data.draw(st.integers(0, 3))
        if how == 0:
            good[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == 1:
            good[place:place] = data.draw(st.binary(max_size=9))
        elif how == 2 and len(good) > 8:
            del good[place]
        else:
            good[4:4 + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=12))
        if len(good) < 6:
            break
    try:
        levels = contexts.decompress(bytes(good), bits, top, activity)
    except FrameError as refusal:
        assert refusal.reason in ("bad_coding", "bad_level", "dirty_padding")
    else:
        assert levels.dtype == _dtype(bits) and levels.shape == (600,)
        assert int(levels.max()) <= top


@given(st.binary(max_size=200))
def test_noise_behind_the_right_history_is_refused_or_is_levels(noise):
    activity = contexts.initial_activity(40)
    stream = zlib.crc32(activity).to_bytes(4, "little") + noise
    try:
        assert int(contexts.decompress(stream, 3, 6, activity).max()) <= 6
    except FrameError as refusal:
        assert refusal.reason in ("bad_coding", "bad_level", "dirty_padding")


def test_numbers_of_ones_that_cannot_be_are_refused():
    activity = contexts.initial_activity(40)
    check = zlib.crc32(activity).to_bytes(4, "little")
    assert _refusal(check, 3, 6, activity) == "bad_coding"
    assert _refusal(check + b"\x29", 3, 6, activity) == "bad_coding"  # 41 of 40
    assert _refusal(check + b"\x05\x06", 3, 6, activity) == "bad_coding"  # 6 of the 5
    assert _refusal(check + b"\x80\x00", 3, 6, activity) == "bad_coding"  # a longer 0
    assert _refusal(check + b"\xff" * 30, 3, 6, activity) == "bad_coding"
    # all 40 weights are five steps out: no sender codes that, and nobody can be made to read it
    assert _refusal(check + b"\x28" * 5, 4, 14, activity) == "bad_coding"


@pytest.mark.parametrize("record", GOLDEN, ids=lambda record: str(record["bits"]))
def test_golden_streams_are_written_and_read(record):
    bits, top = record["bits"], record["max_level"]
    activity = np.frombuffer(bytes.fromhex(record["activity"]), np.uint8)
    levels = np.frombuffer(bytes.fromhex(record["levels"]), "<u2").astype(_dtype(bits))
    stream = bytes.fromhex(record["stream"])
    assert contexts.compress(levels, bits, top, activity) == stream
    assert contexts.decompress(stream, bits, top, activity).tolist() == levels.tolist()
    assert oracle.decode(stream, activity.tolist(), bits, top) == levels.tolist()


@pytest.mark.parametrize("size", [0, 1, 17, 5000])
def test_an_activity_travels(size):
    for activity in (np.zeros(size, np.uint8), np.random.RandomState(0).randint(
            0, 256, size).astype(np.uint8)):
        data = contexts.activity_to_bytes(activity)
        assert 1 <= len(data) <= contexts.longest_activity(size)
        assert contexts.activity_from_bytes(data, size).tolist() == activity.tolist()
        for other in (data[:-1], data + b"\0", b""):
            with pytest.raises(FrameError, match="bad_coding"):
                contexts.activity_from_bytes(other, size)


@pytest.mark.parametrize("max_level", [254, 7, 65534])
def test_the_activity_of_a_long_vector_is_that_of_its_entries(max_level):
    random = np.random.RandomState(4)
    length, dtype = 2 * PIECE + 77, np.uint8 if max_level < 256 else np.uint16
    activity = random.randint(0, 256, length).astype(np.uint8)
    levels = random.randint(0, max_level + 1, length).astype(dtype)
    after = contexts.next_activity(activity, levels, max_level)
    assert after.dtype == np.uint8
    for first in (0, 3):
        every = slice(first, None, 7)
        np.testing.assert_array_equal(
            contexts.next_activity(activity[every], levels[every], max_level), after[every])
