"""The coder for levels around a middle one: what it writes, and what is refused when it comes back.
"""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.compression import entropy, escape
from flq.errors import FrameError
from tests.oracles import base_n


def _dtype(bits):
    return np.uint8 if bits <= 8 else np.uint16


def _top(bits):
    return 2 ** bits - 2


def _plain(signed, cut, half):
    """The bytes before zlib, from the description of the format."""
    inner = [max(-cut, min(cut, value)) + min(cut, half) for value in signed]
    excess = [abs(value) - cut for value in signed if abs(value) >= cut]
    plain = base_n.plain_bytes(inner, 2 * min(cut, half) + 1)
    return plain + base_n.plain_bytes(excess, half - cut + 1) if half > cut else plain


def _refusal(stream, count, bits):
    with pytest.raises(FrameError) as refusal:
        escape.decompress(stream, count, bits, _top(bits))
    return refusal.value.reason


@pytest.mark.parametrize("bits", range(2, 17))
@given(st.data())
def test_it_writes_the_described_bytes_and_reads_them_back(bits, data):
    half = _top(bits) // 2
    near = st.integers(-min(half, 3), min(half, 3))
    signed = data.draw(st.lists(st.one_of(near, st.integers(-half, half)), min_size=1, max_size=40))
    levels = np.array(signed, np.int32)
    levels = (levels + half).astype(_dtype(bits))
    coded = escape.compress(levels, _top(bits))
    assert coded[0] in escape.CUTS
    assert zlib.decompress(coded[1:]) == _plain(signed, coded[0], half)
    back = escape.decompress(coded, len(signed), bits, _top(bits))
    assert back.dtype == levels.dtype and back.tolist() == levels.tolist()


@pytest.mark.parametrize("cut", escape.CUTS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 9, 16])
def test_every_cut_is_read(cut, bits):
    half = _top(bits) // 2
    signed = [0, half, -half, 1, -1, 0, 0]
    stream = bytes([cut]) + zlib.compress(_plain(signed, cut, half))
    assert [int(level) - half for level in escape.decompress(stream, 7, bits, _top(bits))] == signed


def test_one_far_entry_does_not_cost_the_others_their_places():
    levels = np.full(8000, 127, np.uint8)
    levels[::50] += 1
    without = len(escape.compress(levels, 254))
    levels[17] = 254
    assert len(escape.compress(levels, 254)) <= without + 80


def test_damaged_streams_are_refused():
    coded = bytes([7]) + zlib.compress(_plain([0, 0, -7, 7, 1, -1] * 30, 7, 7))
    for end in range(len(coded)):
        assert _refusal(coded[:end], 180, 4) == "bad_coding"
    assert _refusal(coded + b"\0", 180, 4) == "bad_coding"
    assert _refusal(coded, 170, 4) == "bad_coding"
    assert _refusal(coded, 190, 4) == "bad_coding"
    assert _refusal(b"\x05" + coded[1:], 180, 4) == "bad_coding"
    assert _refusal(b"", 180, 4) == "bad_coding"
    assert _refusal(coded[:-1] + bytes([coded[-1] ^ 1]), 180, 4) == "bad_coding"


def test_levels_above_the_grid_are_refused():
    assert _refusal(bytes([7]) + zlib.compress(bytes([15 * 15 - 1, 121])), 1, 8) == "dirty_padding"
    assert _refusal(bytes([7]) + zlib.compress(bytes([14, 121])), 1, 8) == "bad_level"
    assert _refusal(bytes([127]) + zlib.compress(bytes([255])), 1, 9) == "bad_level"
    assert _refusal(bytes([1]) + zlib.compress(bytes([255])), 1, 2) == "bad_level"


def test_a_bomb_is_refused_without_inflating_it():
    bomb = bytes([7]) + zlib.compress(bytes(10 ** 7), 9)
    assert _refusal(bomb, 100, 8) == "bad_coding"


@pytest.mark.parametrize("spread, cuts", [(0.1, (1,)), (0.5, (1, 2, 7)), (30.0, (127,))])
def test_the_cut_fits_the_levels(spread, cuts):
    levels = np.clip(
        np.round(spread * np.random.RandomState(0).standard_normal(100000)) + 127, 0,
        254).astype(np.uint8)
    coded = escape.compress(levels, 254)
    shortest = min(
        len(escape._stream(levels, 254, cut, strategy)) for cut in escape.CUTS
        for strategy in entropy.STRATEGIES)
    assert coded[0] in cuts and len(coded) <= 1.02 * (1 + shortest)
