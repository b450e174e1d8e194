import matplotlib.image
import openpyxl
import pytest

from flq.errors import DataError
from flq.reports import plots
from flq.reports.comparison import compare_runs
from flq.reports.comparison_files import comparison_figure, write_comparison
from tests.reports.runs import in_folders, make_run, round_record, three_rounds


def seeds(*accuracies, **config):
    return {
        f"seed{seed}": make_run([round_record(k, accuracy=accuracy + 0.1 * k) for k in range(3)],
                                dataset__seed=seed, flq_algorithm__mode="rd", **config)
        for seed, accuracy in enumerate(accuracies)
    }


@pytest.fixture
def comparison():
    return compare_runs(in_folders(laq=three_rounds(), **seeds(0.4, 0.6),
                                   empty=make_run([], flq_algorithm__mode="bin")), [0.65])


def test_png_svg_and_workbook(tmp_path, comparison):
    png, svg, workbook = write_comparison(tmp_path / "folder", comparison)
    assert [path.name for path in (png, svg, workbook)] == [
        "comparison.png", "comparison.svg", "comparison.xlsx"]
    assert matplotlib.image.imread(str(png)).min() < 0.5
    assert svg.read_bytes().startswith(b"<?xml") and b"</svg>" in svg.read_bytes()


def test_a_band_goes_from_the_lowest_to_the_highest_seed(comparison):
    by_round, by_bits, by_time = comparison_figure(comparison).axes
    for ax in (by_round, by_bits, by_time):
        (area,) = ax.collections
        (path,) = area.get_paths()
        assert (path.vertices[:, 1].min(), path.vertices[:, 1].max()) == (0.4, pytest.approx(0.8))
        laq, mean, nothing = ax.lines
        assert mean.get_ydata().tolist() == pytest.approx([0.5, 0.6, 0.7])
        assert laq.get_ydata().tolist() == [0.75, 0.7] and len(nothing.get_ydata()) == 0
    assert mean.get_xdata().tolist() == [1, 3, 6]
    assert by_bits.lines[1].get_xdata().tolist() == [160, 420, 780]
    assert [text.get_text() for text in by_round.get_legend().get_texts()] == [
        "laq", "rd, 2 runs", "bin"]
    assert (by_bits.get_xscale(), by_time.get_xlabel()) == ("log", "seconds")


@pytest.mark.parametrize("seconds, unit", [(179, "seconds"), (180, "minutes"), (10799, "minutes"),
                                           (10800, "hours")])
def test_long_runs_are_drawn_in_minutes_or_hours(seconds, unit):
    assert plots.time_unit(seconds)[0] == unit
    run = make_run([round_record(0, round_time_s=float(seconds))])
    ax = comparison_figure(compare_runs(in_folders(a=run))).axes[2]
    assert ax.get_xlabel() == unit
    scale = {"seconds": 1, "minutes": 60, "hours": 3600}[unit]
    assert ax.lines[0].get_xdata()[0] * scale == seconds


def sheet_rows(book, name):
    header, *rows = book[name].iter_rows(values_only=True)
    return [dict(zip(header, row)) for row in rows]


def test_the_workbook_has_a_row_for_each_group_and_its_runs(tmp_path, comparison):
    book = openpyxl.load_workbook(write_comparison(tmp_path, comparison)[2])
    assert book.sheetnames == ["comparison", "targets", "runs", "curves"]
    laq, rd, empty = sheet_rows(book, "comparison")
    assert (laq["label"], laq["accuracy"], laq["missing"], laq["runs"]) == ("laq", 0.7, 2, 1)
    assert (rd["runs"], rd["seeds"], rd["cohorts"]) == (2, "0, 1", 1)
    assert [rd[name] for name in ("accuracy", "accuracy_lowest", "accuracy_highest")] == [
        pytest.approx(value) for value in (0.7, 0.6, 0.8)]
    assert (empty["rounds"], empty["accuracy"]) == (0, None)
    assert [(row["label"], row["folder"]) for row in sheet_rows(book, "runs")] == [
        ("laq", "laq"), ("rd", "seed0"), ("rd", "seed1"), ("bin", "empty")]
    assert [(row["label"], row["tests"], row["reached"], row["payload_bits"])
            for row in sheet_rows(book, "targets")] == [
                ("laq", 1, 1, 160), ("laq", 3, 0, None), ("rd", 1, 1, None), ("rd", 3, 1, None),
                ("bin", 1, 0, None), ("bin", 3, 0, None)]
    header = book["comparison"][1]
    formats = {cell.value: book["comparison"][2][cell.column - 1].number_format for cell in header}
    assert (formats["accuracy"], formats["bits_up_payload"], formats["seconds"]) == (
        "0.00%", "#,##0", '#,##0.000" s"')


def test_the_charts_of_the_workbook_show_the_mean_of_each_group(tmp_path, comparison):
    book = openpyxl.load_workbook(write_comparison(tmp_path, comparison)[2])
    charts = book["comparison"]._charts
    assert [(chart.anchor._from.col, chart.anchor._from.row) for chart in charts] == [
        (0, 5), (0, 23), (0, 41)], "below the three rows"
    for chart, axis in zip(charts, ("bits", "round", "seconds")):
        assert [series.tx.v for series in chart.series] == ["laq", "rd"], "nothing of the empty one"
        for series in chart.series:
            rows = [[cell.value for cell, in book["curves"][ref.numRef.f.split("!")[1]]]
                    for ref in (series.xVal, series.yVal)]
            assert None not in rows[0] and len(rows[0]) == len(rows[1]) > 1
        header = book["curves"][charts[0].series[0].yVal.numRef.f[10:11] + "1"].value
        assert header == "mean"
        assert (chart.x_axis.scaling.logBase == 10) == (axis == "bits")


def test_warnings_stand_in_the_workbook(tmp_path):
    comparison = compare_runs(in_folders(
        a=three_rounds(), b=make_run([round_record(0)], dataset__name="fmnist")))
    book = openpyxl.load_workbook(write_comparison(tmp_path, comparison)[2])
    assert book.sheetnames[1] == "warnings" and "fmnist" in book["warnings"]["A2"].value


def test_a_path_that_cannot_be_written_is_one_line(tmp_path, comparison):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write .*file"):
        write_comparison(tmp_path / "file", comparison)
