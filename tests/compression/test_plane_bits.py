"""What is counted is what is written, and the same everywhere."""

import math

import numpy as np
import pytest

from flq.compression import contexts, plane_bits


def test_logarithms_are_exact_to_their_last_digit():
    found = plane_bits._logarithms()
    for number in (1, 2, 3, 5, 777, 32767, 32768, 32769, 65535, 65536):
        exact = -math.log2(number / 65536) * 65536
        assert exact - 1e-6 <= found[number] < exact + 1, number
    assert found.dtype == np.int64 and (np.diff(found[1:]) <= 0).all()


@pytest.mark.parametrize("bits, top, width", [(8, 254, 0.3), (8, 254, 3.0), (3, 6, 1.0),
                                              (16, 65534, 2.0)])
@pytest.mark.parametrize("count, near", [(5000, 0.06), (100000, 0.01)])
def test_a_count_is_what_the_coder_takes(bits, top, width, count, near):
    draw = np.random.RandomState(0)
    spread = width * np.exp(draw.standard_normal(count)) / 2
    activity = contexts.initial_activity(count)
    for _ in range(5):
        steps = np.rint(draw.laplace(size=count) * spread)
        levels = (np.clip(steps, -(top // 2), top // 2) + top // 2).astype(
            np.uint8 if bits <= 8 else np.uint16)
        distances, total = plane_bits.clipped(levels, top)
        assert total == np.abs(levels.astype(np.int64) - top // 2).sum()
        reached = plane_bits.reaching(distances, plane_bits.classes_of(activity))
        assert reached[:, 0].sum() == count
        stream = contexts.compress(levels, bits, top, activity)
        assert plane_bits.coded_bits(reached, bits) == pytest.approx(8 * len(stream), rel=near)
        activity = contexts.next_activity(activity, levels, top)
