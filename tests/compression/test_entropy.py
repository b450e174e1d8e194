"""Entropy coding: what zlib is given, and what is refused when it comes back."""

import zlib

import numpy as np
import pytest

from flq.compression import QUANTIZERS, entropy
from flq.errors import FrameError
from tests.oracles import base_n

GRIDS = [(name, bits) for name in ("laq", "bbit", "bin") for bits in range(1, 17)
         if QUANTIZERS[name].min_bits <= bits <= QUANTIZERS[name].max_bits]


def _dtype(bits):
    return np.uint8 if bits <= 8 else np.uint16


def _refusal(stream, count, bits, top):
    with pytest.raises(FrameError) as refusal:
        entropy.decompress(stream, count, bits, top)
    return refusal.value.reason


def test_digits_by_hand():
    # 2^8, 3^5, 4^4, 6^3, 7^2, 16^2 fit into a byte; 17^2 does not.
    assert [entropy.digits_per_byte(n)
            for n in (2, 3, 4, 6, 7, 16, 17, 256, 257)] == [8, 5, 4, 3, 2, 2, 1, 1, 0]
    # Levels 1, 2, 0, 1 | 2 in base 3: 1 + 2*3 + 0 + 1*27 + 2*81 = 196.
    assert zlib.decompress(entropy.compress(np.array([1, 2, 0, 1, 2], np.uint8), 2)) == bytes([196])


@pytest.mark.parametrize("name, bits", GRIDS)
def test_the_coder_is_given_the_oracles_bytes_and_gives_the_levels_back(name, bits):
    top = QUANTIZERS[name].max_level(bits)
    rng = np.random.RandomState(bits)
    assert entropy.digits_per_byte(top + 1) == base_n.digits_per_byte(top + 1)
    for count in (1, 2, 7, 8, 9, 100):
        levels = rng.randint(0, top + 1, count).astype(_dtype(bits))
        coded = entropy.compress(levels, top)
        plain = base_n.plain_bytes(levels.tolist(), top + 1)
        assert zlib.decompress(coded) == plain
        assert entropy.plain_length(count, top + 1) == len(plain)
        back = entropy.decompress(coded, count, bits, top)
        assert back.dtype == levels.dtype and back.tolist() == levels.tolist()


def test_damaged_streams_are_refused():
    levels = np.arange(200, dtype=np.uint8) % 15
    coded = entropy.compress(levels, 14)
    for end in range(len(coded)):
        assert _refusal(coded[:end], 200, 4, 14) == "bad_coding"
    assert _refusal(coded + b"\0", 200, 4, 14) == "bad_coding"
    assert _refusal(coded, 198, 4, 14) == "bad_coding"
    assert _refusal(coded, 202, 4, 14) == "bad_coding"
    assert _refusal(b"\xff" + coded[1:], 200, 4, 14) == "bad_coding"
    broken = coded[:-1] + bytes([coded[-1] ^ 1])  # the checksum
    assert _refusal(broken, 200, 4, 14) == "bad_coding"


def test_a_bomb_is_refused_before_it_is_inflated(monkeypatch):
    bomb = zlib.compress(bytes(10 ** 7), 9)
    assert len(bomb) < 10 ** 4
    inflated = []
    real = zlib.decompressobj

    class Watched(object):
        def __init__(self):
            self.inner = real()

        def decompress(self, *arguments):
            plain = self.inner.decompress(*arguments)
            inflated.append(len(plain))
            return plain

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr(entropy.zlib, "decompressobj", Watched)
    assert _refusal(bomb, 100, 4, 14) == "bad_coding"
    assert sum(inflated) <= 51


def test_dirty_digits_behind_the_last_level_are_refused():
    plain = bytes([1 + 15 * 1])  # two levels of base 15 where one was announced
    assert _refusal(zlib.compress(plain), 1, 4, 14) == "dirty_padding"


def test_runs_of_one_level_cost_next_to_nothing():
    """Half of the levels are noise and half lie in runs: a Huffman code alone would pay at least
    one bit a byte for the runs.
    """
    levels = np.full(200000, 7, np.uint8)
    for start in range(0, 200000, 4000):
        levels[start:start + 2000] = np.random.RandomState(start).randint(0, 15, 2000)
    coded = entropy.compress(levels, 14)
    noise = 100000 * np.log2(15) / 8
    assert len(coded) < 1.05 * noise
    assert entropy.decompress(coded, 200000, 4, 14).tolist() == levels.tolist()


@pytest.mark.parametrize("share", [0.0, 0.005, 0.012, 0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("run", [6, 30, 400])
def test_what_is_not_tried_would_save_less_than_a_hundredth(share, run):
    """share: of the levels that lie in runs, so many levels each."""
    dice = np.random.RandomState(7)
    levels = np.clip(np.round(dice.standard_normal(300000) * 3 + 7.5), 0, 15).astype(np.uint8)
    for start in dice.randint(0, levels.size - run, int(share * levels.size / run)):
        levels[start:start + run] = 8
    plain = np.frombuffer(entropy.to_bytes(levels, 16), np.uint8)
    best = min(len(entropy.to_stream(plain, strategy)) for strategy in entropy.STRATEGIES)
    assert len(entropy.compress(levels, 15)) <= 1.01 * best


@pytest.mark.parametrize("size", [0, 1, 32768, 32769, 100000])
def test_a_sample_comes_from_the_whole_vector_and_is_short(size):
    values = np.arange(size)
    few = entropy.sample(values)
    assert few.size == min(size, 32768) and len(set(few.tolist())) == few.size
    assert size == 0 or (few[0], few[-1]) == (0, size - 1)
