import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib.image
import numpy as np
import pytest

from flq.errors import DataError
from flq.reports.plots import write_plots
from tests.reports.runs import make_run, round_record, three_rounds

NAMES = ["accuracy_loss_by_round.png", "accuracy_loss_by_bits.png", "selected_skipped_by_round.png"]
# payload and selected; wire and refused; missing
BLUE, ORANGE, RED = (0, 114, 178), (230, 159, 0), (213, 94, 0)


def area(path, colour):
    """Pixels of exactly one colour."""
    pixels = np.rint(matplotlib.image.imread(str(path))[:, :, :3] * 255).astype(int)
    return int((pixels == colour).all(axis=2).sum())


def test_three_pictures_decode_and_show_curves(tmp_path):
    paths = write_plots(tmp_path / "plots", three_rounds())
    assert [path.name for path in paths] == NAMES
    for path in paths:
        height, width, _ = matplotlib.image.imread(str(path)).shape
        assert width == 1300 and height > 400
        assert area(path, BLUE) > 500
        assert area(path, ORANGE) > 100


def test_the_areas_of_the_bars_are_the_counts(tmp_path):
    path = write_plots(
        tmp_path,
        make_run([round_record(0, skipped=(3, 4)),
                  round_record(1, selected=(0,), missing=(1, 2))]))[2]
    # four answers and two; the legend has patches too
    assert area(path, BLUE) == pytest.approx(2 * area(path, RED), rel=0.05)
    assert area(path, RED) > 1000


def test_where_all_are_selected_the_bits_of_each_round_are_drawn(tmp_path):
    first = write_plots(tmp_path, make_run([round_record(0, skipped=(3,))]))[2]
    paths = write_plots(tmp_path, make_run([round_record(k) for k in range(3)]))
    assert [path.name for path in paths] == NAMES[:2] + ["bits_by_round.png"]
    assert not first.exists(), "an older picture of the same run says something else"
    assert area(paths[2], BLUE) > 300 and area(paths[2], ORANGE) > 300  # up and down
    write_plots(tmp_path, make_run([round_record(0, skipped=(3,))]))
    assert first.exists() and not paths[2].exists()


def test_without_a_wire_only_payload_is_drawn(tmp_path):
    path = write_plots(
        tmp_path,
        make_run([round_record(k, wire_bits_up=None, wire_bits_down=None) for k in range(3)]))[1]
    assert area(path, BLUE) > 500
    assert area(path, ORANGE) == 0


@pytest.mark.parametrize(
    "run", [
        make_run([]),
        make_run([round_record(0)]),
        make_run([round_record(0, accuracy=None, loss=None)]),
        make_run([
            round_record(0, accuracy=None, loss=None, train_loss=None, selected=(),
                         payload_bits_up=0, payload_bits_down=0)
        ]),
        make_run([round_record(k, accuracy=0.5, loss=float("nan")) for k in range(3)]),
        make_run([
            round_record(k, accuracy=None if k % 10 else 0.9, payload_bits_up=10**9)
            for k in range(500)
        ]),
        make_run([round_record(0)], dataset__name="npz:数据$x$\\frac{.npz", run_id="_"),
        make_run([round_record(0)], dataset__name="npz:" + 300 * "x\x00\x1b"),
    ],
    ids=["no rounds", "one round", "not tested", "nothing sent", "constant", "long", "odd names",
         "long name"])
def test_no_run_is_too_odd(tmp_path, run):
    for path in write_plots(tmp_path, run):
        assert matplotlib.image.imread(str(path)).min() < 0.5


def test_threads_draw_the_same_pictures(tmp_path):
    alone = [path.read_bytes() for path in write_plots(tmp_path / "alone", three_rounds())]
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda name: write_plots(tmp_path / name, three_rounds()), "abc"))
    assert all([path.read_bytes() for path in paths] == alone for paths in drawn)


def test_pyplot_is_never_imported():
    code = "import sys, flq.reports.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write .*file"):
        write_plots(tmp_path / "file", three_rounds())
