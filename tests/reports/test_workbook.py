import re
import threading
from datetime import datetime

import openpyxl
import pytest

from flq.errors import DataError
from flq.reports import excel
from flq.reports.excel import Chart, Column, Curve, Sheet, write_sheets
from flq.reports.workbook import workbook_name, write_workbook
from tests.reports.runs import make_run, round_record, three_rounds, worker_round

DANGEROUS = ["=HYPERLINK(\"http://x\")", "+1+1", "-2", "@SUM(A1)", "\t=1", "\n=1",
             "#N/A", "=", "1e5", "a\x00\x1bb", "a\ud800b\uffff", "数据"]


@pytest.fixture
def book(tmp_path):
    write_workbook(tmp_path / "run.xlsx", three_rounds())
    return openpyxl.load_workbook(tmp_path / "run.xlsx")


def table(sheet):
    """Rows as dicts by header."""
    header, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(header, row)) for row in rows]


def test_sheets_and_headers(book):
    assert book.sheetnames == ["summary", "rounds", "workers", "worker_totals", "configuration"]
    assert [cell.value for cell in book["rounds"][1]] == [
        "round", "accuracy", "loss", "train_loss", "selected_workers", "num_selected", "missing",
        "skipped", "refused", "late", "total_bits_up_nominal", "total_bits_up_payload",
        "total_bits_up_wire", "total_bits_down_nominal", "total_bits_down_payload",
        "total_bits_down_wire", "round_time", "cumulative_bits_up_nominal",
        "cumulative_bits_up_payload", "cumulative_bits_up_wire", "cumulative_bits_down_nominal",
        "cumulative_bits_down_payload", "cumulative_bits_down_wire", "cumulative_time",
        "cumulative_bits_payload", "server_lr", "rho"
    ]


def test_rounds_worked_by_hand(book):
    rows = [row[:25] for row in book["rounds"].iter_rows(min_row=2, values_only=True)]
    assert rows == [(0, 0.75, 2.0, 1.9, "0,1,2", 3, 1, 0, 0, 0, 80, 100, 150, 40, 60, 90, 1.0, 80,
                     100, 150, 40, 60, 90, 1.0, 160),
                    (1, None, None, 1.4, "1", 1, 0, 1, 1, 1, 80, 200, 300, 40, 60, 90, 2.0, 160,
                     300, 450, 80, 120, 180, 3.0, 420),
                    (2, 0.7, 1.0, 0.8999999999999999, "1,2,3", 3, 1, 0, 0, 0, 80, 300, 450, 40, 60,
                     90, 3.0, 240, 600, 900, 120, 180, 270, 6.0, 780), ]


def test_rounds_say_whose_turn_it_was_where_there_are_cohorts(tmp_path):
    run = make_run([round_record(0), round_record(1, cohort=1)], system__cohorts=2)
    write_workbook(tmp_path / "run.xlsx", run)
    rows = table(openpyxl.load_workbook(tmp_path / "run.xlsx")["rounds"])
    assert [(row["round"], row["cohort"]) for row in rows] == [(0, 0), (1, 1)]
    summary = table(openpyxl.load_workbook(tmp_path / "run.xlsx")["summary"])
    assert "cohorts" in [row["key"] for row in summary]


def test_workers_are_those_of_the_run(book):
    assert table(book["workers"]) == three_rounds().worker_rounds


def test_worker_totals_worked_by_hand(book):
    totals = table(book["worker_totals"])
    assert totals[0] == {
        "worker": 0, "rounds": 3, "accepted": 1, "refused": 0, "skipped": 1, "missing": 1,
        "late": 0, "payload_bits": 40, "num_samples": 100
    }
    assert [row["payload_bits"] for row in totals] == [40, 120, 80, 40]
    assert [row["late"] for row in totals] == [0, 0, 0, 1]


def test_devices_have_a_sheet_of_their_own(tmp_path):
    run = three_rounds()
    devices = {
        "0": {"model": "=Nano", "gpus": ["X1", "X2"], "memory_mb": 3956},
        "2": {"model": "PC", "swap_mb": 0}
    }
    write_workbook(tmp_path / "run.xlsx", run._replace(summary=dict(run.summary, devices=devices)))
    book = openpyxl.load_workbook(tmp_path / "run.xlsx")
    assert table(book["devices"]) == [{
        "worker": "0", "model": "=Nano", "gpus": "X1, X2", "memory_mb": 3956, "swap_mb": None
    }, {"worker": "2", "model": "PC", "gpus": None, "memory_mb": None, "swap_mb": 0}]
    assert not any(row["key"].startswith("devices") for row in table(book["summary"]))


def test_every_key_of_the_configuration_is_there(book):
    values = {row["key"]: row["value"] for row in table(book["configuration"])}
    assert values["flq_algorithm.mode"] == "laq"
    assert values["flq_algorithm.entropy_coding"] is True and values[
        "flq_algorithm.scale_by_selected"] is False
    assert values["system.round_deadline_s"] == "null"
    assert values["security.allowed_hosts"] == "[]"
    assert len(values) == sum(len(keys) for keys in three_rounds().config.values())


def test_the_summary_has_values_formats_and_units(book):
    rows = {key.value: (value.value, value.number_format, unit.value)
            for key, value, unit in book["summary"].iter_rows(min_row=2, max_col=3)}
    assert rows["run_id"] == ("digits-1", "@", None)
    assert rows["accuracy"] == (0.7, "0.00%", None)
    assert rows["rounds"] == (3, "#,##0", None)
    assert rows["seconds"] == (6.0, "#,##0.0", "s")
    assert rows["bits.up.payload"] == (600, "#,##0", "bit")
    assert rows["compression.down.payload"] == (20, '0.0"x"', "float32 bits over bits sent")


def test_missing_stands_beside_uploads(book):
    keys = [row["key"] for row in table(book["summary"])]
    assert keys.index("missing") == keys.index("uploads") + 1
    for name, uploads in (("rounds", "num_selected"), ("worker_totals", "accepted")):
        header = [cell.value for cell in book[name][1]]
        assert header.index("missing") == header.index(uploads) + 1


def test_every_sheet_can_be_filtered(book):
    for sheet in book:
        assert sheet.auto_filter.ref == sheet.dimensions


def test_the_first_sheet_has_charts_of_the_rounds(book):
    charts = book.worksheets[0]._charts
    refs = [[(series.xVal.numRef.f, series.yVal.numRef.f) for series in chart.series]
            for chart in charts]
    assert refs == [[("'rounds'!$Y$2:$Y$4", "'rounds'!$B$2:$B$4")],
                    [("'rounds'!$A$2:$A$4", "'rounds'!$B$2:$B$4")],
                    [("'rounds'!$A$2:$A$4", "'rounds'!$L$2:$L$4"),
                     ("'rounds'!$A$2:$A$4", "'rounds'!$O$2:$O$4")]]
    rounds = book["rounds"]
    assert [rounds[cell].value for cell in ("Y1", "B1", "L1", "O1")] == [
        "cumulative_bits_payload", "accuracy", "total_bits_up_payload", "total_bits_down_payload"]
    corners = [(chart.anchor._from.col, chart.anchor._from.row) for chart in charts]
    assert corners == [(4, 1), (4, 19), (4, 37)], "beside the three columns"
    assert [chart.x_axis.delete or chart.y_axis.delete for chart in charts] == 3 * [False]
    # 160 bits are the first: the axis begins with the power of ten below
    assert (charts[0].x_axis.scaling.logBase, charts[0].x_axis.scaling.min) == (10, 100)


def test_a_chart_shows_some_rows_under_any_title(tmp_path):
    sheet = Sheet("n", [Column("x", excel.INTEGER, [1, 2, 3]), Column("y", excel.REAL, [0.1] * 3)],
                  [Chart("c", "x", "y", "0%", [Curve("=<a>\x00\ud800", "n", "x", "y", (1, 3)),
                                               Curve("nothing", "n", "x", "y", (3, 3))])])
    write_sheets(tmp_path / "x.xlsx", [sheet])
    (chart,) = openpyxl.load_workbook(tmp_path / "x.xlsx")["n"]._charts
    (series,) = chart.series
    assert series.yVal.numRef.f == "'n'!$B$3:$B$4" and series.tx.v == "=<a>\ufffd\ufffd"


def test_the_header_stays_in_sight_and_columns_are_wide_enough(book):
    for sheet in book:
        assert sheet.freeze_panes == "A2"
        assert sheet["A1"].font.bold
        for cell in sheet[1]:
            assert len(cell.value) < sheet.column_dimensions[cell.column_letter].width <= 60


def test_number_formats(book):
    row = {
        header.value: cell.number_format
        for header, cell in zip(book["rounds"][1], book["rounds"][2])
    }
    assert row["accuracy"] == "0.00%"
    assert row["total_bits_up_payload"] == row["cumulative_bits_down_wire"] == "#,##0"
    assert row["round_time"] == '#,##0.000" s"'


@pytest.mark.parametrize("text", DANGEROUS)
def test_a_text_stays_a_text(tmp_path, text):
    run = make_run([round_record(0)], [worker_round(0, 0, state=text)], run_id=text,
                   dataset__name=text)
    run.config["dataset"][text] = 0
    write_workbook(
        tmp_path / "run.xlsx",
        run._replace(summary=dict(run.summary, devices={text: {"name": text, text: [text]}})))
    book = openpyxl.load_workbook(tmp_path / "run.xlsx")
    cells = [book["workers"]["C2"], book["summary"]["B2"]
             ] + [book["devices"][place] for place in ("C1", "A2", "B2", "C2")]
    cells += [value for key, value in book["configuration"].rows if key.value == "dataset.name"]
    assert len(cells) == 7
    for cell in cells:
        assert cell.data_type == "s"
        assert cell.value == re.sub("[\x00\x1b\ud800\uffff]", "\ufffd", text)
        assert cell.quotePrefix == (text[0] in "=+-@\t\r\n")
    assert not any(cell.data_type == "f" for sheet in book for row in sheet.rows for cell in row)


@pytest.mark.parametrize("text, kept", [("x" * 32768, "x" * 32767),
                                        ("\U0001f600" * 20000, "\U0001f600" * 16383)])
def test_a_text_beyond_excels_limit_is_cut(tmp_path, text, kept):
    run = make_run([], run_id=text)
    write_workbook(tmp_path / "run.xlsx",
                   run._replace(summary=dict(run.summary, devices={"0": {text: text}})))
    book = openpyxl.load_workbook(tmp_path / "run.xlsx")
    assert [
        cell.value for cell in (book["summary"]["B2"], book["devices"]["B1"], book["devices"]["B2"])
    ] == [kept] * 3


def test_devices_of_any_json_have_a_sheet(tmp_path):
    run = make_run([])
    devices = {
        "0": {
            "deep": {"=x": [1]}, "list": [None, {"a": 1}], "true": True, "null": None,
            "large": 10**400, "nan": float("nan")
        }, "1": {f"n{n}": n for n in range(17000)}
    }
    write_workbook(tmp_path / "run.xlsx", run._replace(summary=dict(run.summary, devices=devices)))
    sheet = openpyxl.load_workbook(tmp_path / "run.xlsx")["devices"]
    first, second = table(sheet)
    assert first["deep"] == '{"=x": [1]}' and first["list"] == "None, {'a': 1}" and first[
        "true"] is True
    assert first["null"] is first["nan"] is None and first["large"] == "1" + 400 * "0"
    assert sheet.max_column == 16384 and second["n16376"] == 16376


def test_a_seed_that_excel_would_round_is_a_text(tmp_path):
    write_workbook(tmp_path / "run.xlsx", make_run([], dataset__seed=2 ** 63 - 1))
    values = {
        row["key"]: row["value"]
        for row in table(openpyxl.load_workbook(tmp_path / "run.xlsx")["configuration"])
    }
    assert values["dataset.seed"] == "9223372036854775807"


def test_what_was_not_measured_is_an_empty_cell(tmp_path):
    run = make_run([round_record(0, loss=float("nan")), round_record(1, wire_bits_up=None)])
    write_workbook(tmp_path / "run.xlsx", run)
    rows = table(openpyxl.load_workbook(tmp_path / "run.xlsx")["rounds"])
    assert rows[0]["loss"] is None
    assert [row["total_bits_up_wire"] for row in rows] == [150, None]
    assert [row["cumulative_bits_up_wire"] for row in rows] == [150, None]
    assert [row["cumulative_bits_down_wire"] for row in rows] == [90, 180]


def test_a_run_without_rounds_has_headers_only(tmp_path):
    write_workbook(tmp_path / "run.xlsx", make_run([]))
    book = openpyxl.load_workbook(tmp_path / "run.xlsx")
    assert [book[name].max_row for name in ("rounds", "workers", "worker_totals")] == [1, 1, 1]


def test_rows_beyond_the_limit_go_to_further_sheets(tmp_path, monkeypatch):
    monkeypatch.setattr(excel, "_MAX_ROWS", 2)
    write_sheets(tmp_path / "x.xlsx", [Sheet("long", [Column("n", excel.INTEGER, [1, 2, 3, 4, 5])]),
                                       Sheet("short", [Column("n", excel.INTEGER, [])])])
    book = openpyxl.load_workbook(tmp_path / "x.xlsx")
    assert book.sheetnames == ["long", "long_2", "long_3", "short"]
    assert [[row[0].value for row in book[name].rows] for name in book.sheetnames] == [["n", 1, 2],
                                                                                       ["n", 3, 4],
                                                                                       ["n", 5],
                                                                                       ["n"]]


def test_two_threads_may_write_at_once(tmp_path):
    threads = [
        threading.Thread(target=write_workbook, args=(tmp_path / f"{n}.xlsx", three_rounds()))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(
        len(openpyxl.load_workbook(tmp_path / name).sheetnames) == 5
        for name in ("0.xlsx", "1.xlsx"))


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "file" / "run.xlsx"))):
        write_workbook(tmp_path / "file" / "run.xlsx", three_rounds())


@pytest.mark.parametrize("dataset, safe", [("digits", "digits"),
                                           ("npz:/home/me/site A.npz", "site_A"),
                                           ("npz:..", "data"), ("npz:数据.npz", "数据"),
                                           ("my.package:load", "my.package_load"),
                                           ("../../etc/passwd", "etc_passwd"), ("=x:*?\"<>|", "x"),
                                           ("d" * 300, "d" * 40), ])
def test_workbook_name_is_safe(dataset, safe):
    run = make_run([], dataset__name=dataset)
    assert workbook_name(run, datetime(2026, 1, 2, 3, 4,
                                       5)) == f"flq_results_{safe}_laq_20260102_030405.xlsx"
    # a run from elsewhere may say anything
    foreign = run._replace(summary=dict(run.summary, mode="../../" + dataset))
    assert re.match(r"flq_results_[\w.-]+\.xlsx$",
                    workbook_name(foreign, datetime(2026, 1, 2, 3, 4, 5)))
