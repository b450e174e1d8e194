"""How long DEFLATE's output is, without writing it: by hand, and beside zlib's own."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.compression import entropy
from flq.compression.code_length import deflated

HEAD = 120


@pytest.mark.parametrize("data, runs, bits", [
    (b"", False, HEAD),
    # Two symbols, the byte and the end: a bit each.
    (b"aaaaaaaaaa", False, HEAD + 3.5 + 11),
    # a, then a match of 9, which is a symbol without further bits, and its distance; the end. Three
    # symbols: 1 + 2 + 2.
    (b"aaaaaaaaaa", True, HEAD + 3.5 + 5 + 1),
    # a and a match of 258: the last symbol. Three of 258 and one of 20, symbol 269 with 2 further
    # bits.
    (b"a" * 259, True, HEAD + 3.5 + 5 + 1),
    (b"a" * (1 + 3 * 258 + 20), True, HEAD + 3.5 + (3 * 1 + 3 * 2 + 2) + 4 + 2),
    # Runs of two and three bytes are literals: four of a, four of b, three of c.
    (b"aabbaabbccc", True, HEAD + 3 * 3.5 + 24),
])
def test_by_hand(data, runs, bits):
    assert deflated(data, runs) == bits


def _bytes(seed, zeros, run):
    """Bytes of which many are 0, in runs of about that length."""
    draw = np.random.RandomState(seed)
    values = np.minimum(255, draw.geometric(0.05, 40000))
    values[np.repeat(draw.random_sample(40000 // run + 1) < zeros, run)[:40000]] = 0
    return values.astype(np.uint8).tobytes()


@pytest.mark.parametrize("zeros, run", [(0.0, 1), (0.5, 1), (0.9, 1), (0.5, 40), (0.9, 300),
                                        (0.5, 2000)])
@pytest.mark.parametrize("runs", [False, True])
def test_it_is_zlibs_length_to_a_fiftieth(zeros, run, runs):
    data = _bytes(7, zeros, run)
    coder = entropy.zlib_coder(zlib.Z_RLE if runs else zlib.Z_HUFFMAN_ONLY)
    written = 8 * len(coder.compress(data) + coder.flush())
    assert deflated(data, runs) == pytest.approx(written, rel=0.02)


@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_have_a_length(data, runs):
    assert HEAD <= deflated(data, runs) <= HEAD + 3.5 * 256 + 20 * (len(data) + 1)
