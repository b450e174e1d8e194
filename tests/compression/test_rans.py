"""The coder of bytes of unequal bits: what it writes is what its description says, and all of it is
checked.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.compression import rans
from flq.errors import FrameError
from tests.oracles import rans as oracle

SHARES = (0.001, 0.02, 0.2, 0.5, 0.77, 0.998)


def _drawn(count, shares=SHARES, seed=0):
    """Bytes of those sources in turn, the source of each, and the table."""
    random = np.random.RandomState(seed)
    rows = np.sort(random.randint(0, len(shares), count))
    bits = random.random_sample((count, 8)) < np.array(shares)[rows][:, None]
    return np.packbits(bits), rows, _table(shares)


def _table(shares):
    ones = np.array([int(round(share * 10 ** 6)) for share in shares])
    return rans.sources(ones, np.full(len(shares), 10 ** 6))


@pytest.mark.parametrize("length", [2, 8, 9, 1000, 2 ** 40])
def test_frequencies_are_those_of_the_description(length):
    ones = sorted({1, 2, length // 9 + 1, length // 3 + 1, length // 2, length - 1} - {length})
    table = rans.sources(np.array(ones), np.full(len(ones), length))
    for row, number in enumerate(ones):
        for byte, frequency, start in oracle.frequencies(number, length):
            assert frequency >= 1
            assert table.frequencies[256 * row + byte] == frequency
            assert table.starts[256 * row + byte] == start


def test_every_chance_gives_every_byte_a_place():
    chances = np.arange(1, 65536)
    frequencies = rans.sources(chances, np.full(chances.size, 65536)).frequencies.reshape(-1, 256)
    assert frequencies.min() >= 1 and (frequencies.sum(axis=1) == 32768).all()


@pytest.mark.parametrize("count", [1, 2, 399, 400, 401, 1234])
def test_it_writes_what_the_description_reads(count):
    values, rows, table = _drawn(count)
    seeds = np.random.RandomState(1).bytes(3 * rans.num_lanes(count))
    stream = rans.encode(values, rows, table, seeds)
    tables = [oracle.frequencies(int(round(share * 10 ** 6)), 10 ** 6) for share in SHARES]
    assert oracle.decode(stream, rows.tolist(), tables) == (values.tolist(), seeds)
    back, seeds_back = rans.decode(stream, rows, table)
    assert back.dtype == np.uint8 and back.tolist() == values.tolist() and seeds_back == seeds


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 255)), max_size=60), st.binary(
    min_size=3, max_size=3))
def test_any_bytes_come_back(pairs, seed):
    rows = np.array([row for row, _ in pairs], np.int64)
    values = np.array([value for _, value in pairs], np.uint8)
    seeds = seed * rans.num_lanes(len(pairs))
    stream = rans.encode(values, rows, _table(SHARES), seeds)
    back, seeds_back = rans.decode(stream, rows, _table(SHARES))
    assert back.tolist() == values.tolist() and seeds_back == seeds


def test_nothing_is_nothing():
    values, rows, table = _drawn(0)
    assert rans.encode(values, rows, table, b"") == b""
    assert rans.decode(b"", rows, table)[0].size == 0
    with pytest.raises(FrameError, match="bad_coding"):
        rans.decode(b"\0", rows, table)


@pytest.mark.parametrize("share", [0.003, 0.05, 0.2, 0.5])
def test_it_takes_little_more_than_the_entropy(share):
    values, rows, table = _drawn(40000, (share,))
    seeds = bytes(3 * rans.num_lanes(values.size))
    size = len(rans.encode(values, rows, table, seeds)) - len(seeds)
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * values.size
    ones = np.unpackbits(values).mean()  # what was drawn is not exactly the share
    drawn = -(ones * np.log2(share) + (1 - ones) * np.log2(1 - share)) * values.size
    assert abs(drawn - entropy) < 0.2 * entropy and size < 1.01 * drawn + 250


def test_damaged_streams_are_refused():
    values, rows, table = _drawn(900)
    stream = rans.encode(values, rows, table, bytes(9))
    damaged = [stream[:end] for end in range(0, len(stream), 7)]
    damaged += [stream + b"\0", stream + b"\0\0", b"\0" * 5 + stream[5:]]
    for data in damaged:
        with pytest.raises(FrameError) as refusal:
            rans.decode(data, rows, table)
        assert refusal.value.reason == "bad_coding"
