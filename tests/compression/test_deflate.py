"""zlib-ng beside zlib: the same bytes, and the same answer to every stream, or a run that one of
them played could not be replayed with the other.
"""

import zlib

import numpy as np
import pytest

from flq.compression import deflate, entropy, escape

zlib_ng = pytest.importorskip("zlib_ng.zlib_ng", reason="zlib-ng is not installed")
STRATEGIES = pytest.mark.parametrize("strategy", entropy.STRATEGIES)


def levels(seed, top, size, run):
    """Noise around the middle, with one level in runs."""
    dice = np.random.RandomState(seed)
    found = np.clip(np.round(dice.standard_normal(size) * dice.choice([0.3, 1.0, 3.0]) + top / 2),
                    0, top).astype(np.uint8)
    for start in dice.randint(0, size, size // 2000):
        found[start:start + run] = top // 2
    return found


def compressed(module, data, strategy):
    coder = module.compressobj(9, module.DEFLATED, 15, 9, strategy)
    return coder.compress(data) + coder.flush()


def answer(module, stream, most):
    """What a reader of at most so many bytes gets, None for an error."""
    decoder = module.decompressobj()
    try:
        first = decoder.decompress(stream, most)
        return (first, decoder.decompress(decoder.unconsumed_tail, 1), decoder.eof,
                decoder.unused_data)
    except module.error:
        return None


def with_right_sum(stream, most):
    """The stream with the Adler-32 of what it stands for, so that its damage is not found by it."""
    decoder = zlib.decompressobj(-15)
    try:
        plain = decoder.decompress(stream[2:], most)
    except zlib.error:
        return stream
    end = len(stream) - len(decoder.unused_data)
    return stream[:end] + zlib.adler32(plain).to_bytes(4, "big")


def damaged(dice, stream):
    """One to three bits or bytes of it are others; mostly near its front, where the codes are."""
    data = bytearray(stream)
    for _ in range(dice.randint(1, 4)):
        place = dice.randint(min(len(data), dice.choice([4, 40, 100, 10**6])))
        if dice.rand() < 0.6:
            data[place] ^= 1 << dice.randint(8)
        elif dice.rand() < 0.5:
            data[place] = dice.randint(256)
        else:
            del data[place]
    return bytes(data)


def test_it_is_what_flq_uses_where_it_is_installed():
    assert deflate.zlib is zlib_ng and entropy.zlib is escape.zlib is zlib_ng


@STRATEGIES
@pytest.mark.parametrize("top, size, run", [(1, 50000, 40), (7, 100, 3), (14, 300000, 500),
                                            (15, 70000, 1), (255, 20000, 9000)])
def test_both_write_the_same_bytes(top, size, run, strategy):
    for seed in range(3):
        data = levels(seed, top, size, run).tobytes()
        assert compressed(zlib_ng, data, strategy) == compressed(zlib, data, strategy)


@STRATEGIES
def test_both_give_the_same_answer_to_damaged_streams(strategy):
    dice, taken, refused = np.random.RandomState(5), 0, 0
    for seed in range(40):
        data = levels(seed, int(dice.choice([1, 7, 15, 255])), 400, 30).tobytes()
        stream = compressed(zlib, data, strategy)
        for _ in range(100):
            found = damaged(dice, stream)
            if dice.rand() < 0.5:
                found = with_right_sum(found, 2 * len(data))
            ours = answer(zlib, found, len(data))
            assert answer(zlib_ng, found, len(data)) == ours
            taken, refused = taken + (ours is not None), refused + (ours is None)
    assert taken > 500 and refused > 500
