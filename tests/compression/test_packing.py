"""One bit stream, least significant bit first, padded once with zeros."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.compression import packing
from flq.errors import FrameError
from tests.oracles import bit_stream

WIDTHS = tuple(range(1, 17)) + (32,)


def _dtype(bits):
    return np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32


def test_a_stream_written_out_by_hand():
    # Levels 5, 2, 7 of three bits: 101, 010, 111 from the least significant bit: 101 010 111 ->
    # bits 1,0,1,0,1,0,1,1 | 1.
    assert packing.pack(np.array([5, 2, 7], np.uint8), 3) == bytes([0b11010101, 0b00000001])
    # Twelve bits: 0xabc, 0x123 -> bc, 3a, 12.
    assert packing.pack(np.array([0xabc, 0x123], np.uint16), 12) == bytes([0xbc, 0x3a, 0x12])


@pytest.mark.parametrize("bits", WIDTHS)
def test_pack_and_unpack_agree_with_the_oracle_for_every_length(bits):
    rng = np.random.RandomState(bits)
    for count in list(range(1, 35)) + [1000, 1023]:
        levels = rng.randint(0, 2 ** bits, count, dtype=np.uint64).astype(_dtype(bits))
        packed = packing.pack(levels, bits)
        assert packed == bit_stream.pack([int(level) for level in levels], bits)
        assert len(packed) == packing.packed_length(count, bits) == -(-count * bits // 8)
        unpacked = packing.unpack(packed, count, bits)
        assert unpacked.dtype == _dtype(bits)
        assert unpacked.tolist() == levels.tolist() == bit_stream.unpack(packed, count, bits)


@pytest.mark.parametrize("bits", WIDTHS)
def test_extreme_levels_do_not_reach_their_neighbours(bits):
    for fill, value in ((0, 2 ** bits - 1), (2 ** bits - 1, 0)):
        for place in range(17):
            levels = np.full(17, fill, _dtype(bits))
            levels[place] = value
            packed = packing.pack(levels, bits)
            assert packed == bit_stream.pack(levels.tolist(), bits)
            assert packing.unpack(packed, 17, bits).tolist() == levels.tolist()


@given(st.integers(1, 16), st.data())
def test_unpack_reads_every_clean_stream_and_refuses_every_dirty_one(bits, data):
    count = data.draw(st.integers(1, 24))
    stream = data.draw(
        st.binary(min_size=packing.packed_length(count, bits),
                  max_size=packing.packed_length(count, bits)))
    levels = bit_stream.unpack(stream, count, bits)
    if bit_stream.pack(levels, bits) == stream:
        assert packing.unpack(stream, count, bits).tolist() == levels
    else:
        with pytest.raises(FrameError) as refusal:
            packing.unpack(stream, count, bits)
        assert refusal.value.reason == "dirty_padding"


@pytest.mark.parametrize("bits", [bits for bits in WIDTHS if 3 * bits % 8])
def test_every_single_padding_bit_is_checked(bits):
    packed = bytearray(packing.pack(np.zeros(3, _dtype(bits)), bits))
    for bit in range(3 * bits % 8, 8):
        dirty = bytearray(packed)
        dirty[-1] |= 1 << bit
        with pytest.raises(FrameError) as refusal:
            packing.unpack(bytes(dirty), 3, bits)
        assert refusal.value.reason == "dirty_padding"
