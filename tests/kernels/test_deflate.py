"""Streams of literals by the compiled passes, against zlib."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import streams
from tests.kernels.calls import WAYS


@pytest.mark.parametrize("length", streams.LENGTHS)
def test_streams_are_written_and_read_as_zlib_does_or_left_to_it(compiled, length):
    assert not list(streams.wrong(compiled, [length], times=12))


def test_levels_like_noise_are_not_left_to_zlib(compiled):
    noise = np.clip(128 + 20 * np.random.RandomState(0).standard_normal(100000), 0, 255)
    plain = noise.astype(np.uint8)
    stream = compiled.deflate_literals(plain)
    assert stream == streams.deflated(plain)
    np.testing.assert_array_equal(compiled.inflate_literals(stream, plain.size), plain)


@given(data=st.binary(max_size=300), more=st.binary(max_size=12), length=st.integers(0, 400))
def test_any_bytes_are_read_as_zlib_does_or_left_to_it(compiled, data, more, length):
    plain = np.frombuffer(bytearray(data), np.uint8)
    for stream in (data, b"\x78\x01" + data, streams.deflated(plain) + more):
        assert streams.read_like_zlib(compiled, stream, length)


@pytest.mark.parametrize("way", ["strided", "backwards"])
def test_levels_that_lie_otherwise_are_left_to_zlib(compiled, way):
    assert compiled.deflate_literals(WAYS[way](np.zeros(1000, np.uint8))) is None


def test_many_small_blocks_are_left_to_zlib(compiled):
    """Each asks for a table: a hostile stream of them took 500 times as long as with zlib."""
    plain = np.arange(5000, dtype=np.uint8) % 20
    coder = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    stream = b"".join(coder.compress(plain[place:place + 5].tobytes()) + coder.flush(
        zlib.Z_PARTIAL_FLUSH) for place in range(0, plain.size, 5)) + coder.flush()
    assert streams.inflated(stream, plain.size) == plain.tobytes()
    assert compiled.inflate_literals(stream, plain.size) is None
    assert compiled.inflate_literals(streams.deflated(plain), plain.size) is not None
