"""The bytes behind a frame's header: what is put in comes out, and is as long as it says."""

import numpy as np
import pytest

from flq.compression import QUANTIZERS, payload
from tests.oracles import quantisers as oracle
from tests.vectors import same_bits


@pytest.mark.parametrize("values", [[], [0.25, -3.5, 1e-45]])
@pytest.mark.parametrize("body", [b"", b"scales and levels"])
def test_what_is_packed_comes_out(body, values):
    values = np.array(values, np.float32)
    packed = payload.pack(body, values)
    assert len(packed) == payload.num_bytes(len(body), values.size)
    assert payload.num_bits(len(body), values.size) == 8 * len(packed)
    again, read = payload.unpack(packed, values.size)
    assert again == body and same_bits(read, values)


def test_values_are_little_endian_behind_the_body():
    assert payload.pack(b"ab", np.array([1.0], np.float32)) == b"ab\0\0\x80\x3f"


def test_the_papers_count_has_32_bits_for_each_value():
    assert payload.nominal_bits(QUANTIZERS["laq"], 4, (5, 7),
                                3) == oracle.nominal_bits("laq", 2, 12, 4) + 3 * 32
