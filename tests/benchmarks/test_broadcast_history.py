"""The benchmark of broadcasts and uploads beside their history, in small."""

import numpy as np
import pytest

from benchmarks import broadcast_history as benchmark
from flq import config
from tests.system.quadratic import Quadratic


@pytest.mark.parametrize("uploads", [False, True])
def test_a_run_is_measured_round_by_round(capsys, uploads):
    settings = config.load(None, [*benchmark.TASK, "total_workers=3", "max_rounds=4",
                                  "downlink=rd"]).config
    measured = benchmark.train(settings, Quadratic(settings), 2, uploads)
    assert [row["round"] for row in measured] == [1, 2, 3, 4]
    assert [row["accuracy"] is not None for row in measured] == [False, True, False, True]
    for row in measured:
        assert 0 < row["history"] < row["true"]  # 40 weights: a zlib stream is long
        assert row["sent"] == row["history"]
        assert row["order 0"] == row["classes"]  # that are one class
    capsys.readouterr()
    benchmark.table([{"settings": ["downlink=rd"], "measured": measured}], 2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[2].startswith("| `downlink=rd` | 1 to 2 | ")


def test_entropies_are_those_of_the_counts():
    levels = np.repeat([0, 1, 2, 3], 256).astype(np.uint8)
    assert benchmark.order_0(levels) == pytest.approx(2048)
    assert benchmark.of_classes(levels, levels) == pytest.approx(1024), "two classes of two levels"
