"""fedavg: every finite float32 comes back bit for bit."""

import numpy as np
from hypothesis import given

from flq.compression import QUANTIZERS
from tests.oracles.floats import bits as word
from tests.vectors import no_draw, same_bits, vectors

FEDAVG = QUANTIZERS["fedavg"]


@given(vectors())
def test_levels_are_the_words(d):
    scale, levels = FEDAVG.encode(d, 32, no_draw)
    assert scale is None
    assert levels.dtype == np.uint32 and levels.tolist() == [word(x) for x in d.tolist()]
    assert same_bits(FEDAVG.decode(None, levels, 32), d)
