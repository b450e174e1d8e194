import subprocess
import sys

import matplotlib.image
import openpyxl

from flq.reports.compare import comparison_table, summary_table, write_comparison
from tests.reports.runs import make_run, round_record, three_rounds


def simulated():
    return make_run([
        round_record(k, wire_bits_up=None, wire_bits_down=None, payload_bits_up=800)
        for k in range(2)
    ], run_id="digits-2", flq_algorithm__mode="fedavg")


def test_summary_table():
    assert summary_table(three_rounds()) == """\
digits-1: FINISHED after 3 rounds (digits, cnn_small, mode laq, 4 workers)
accuracy 70.00 % (best 75.00 %), loss 1.0000
2.00 s a round, 6.00 s together
7 uploads, 1 skipped, 1 refused, 2 missing, 1 late
           payload  in bytes  on the wire    float32  compression  with headers
bits up    600 bit      75 B      900 bit  2.40 kbit         4.0x          2.7x
bits down  180 bit      22 B      270 bit  3.60 kbit        20.0x         13.3x"""


def test_summary_table_without_rounds():
    assert summary_table(make_run([], phase="WAITING")).splitlines()[1:3] == [
        "accuracy - (best -), loss -", "- a round, 0.00 s together"
    ]


def test_summary_table_says_how_many_cohorts_took_turns():
    run = make_run([round_record(0), round_record(1, cohort=1)], system__cohorts=2)
    first, *_ = summary_table(run).splitlines()
    assert first.endswith("(digits, cnn_small, mode laq, 4 workers in 2 cohorts)")


def test_comparison_table():
    assert (comparison_table([three_rounds(), simulated()]) == """\
run         mode  rounds  accuracy  up payload  up wire  up compr.  down payload  down wire  down compr.  skipped  refused  per round
digits-1     laq       3   70.00 %     600 bit  900 bit       4.0x       180 bit    270 bit        20.0x        1        1     2.00 s
digits-2  fedavg       2   60.00 %   1.60 kbit        -       1.0x       120 bit          -        20.0x        0        0     1.50 s"""
            )


def test_no_text_of_a_foreign_run_commands_the_terminal():
    hostile = "a\x1b]0;title\x07\r\n\u202e"
    run = make_run([round_record(0)], run_id=hostile, phase=hostile, dataset__name=hostile,
                   model__name=hostile)
    run.summary["mode"] = hostile
    first, *_ = summary_table(run).split("\n")
    shown = "a ]0;title"
    assert first == f"{shown}: {shown} after 1 rounds ({shown}, {shown}, mode {shown}, 4 workers)"
    assert comparison_table([run]).split("\n")[1].startswith(f"{shown}  {shown} ")


def test_comparison_files(tmp_path):
    picture, workbook = write_comparison(
        tmp_path / "comparison",
        [three_rounds(), simulated(), make_run([], run_id="empty")])
    assert matplotlib.image.imread(str(picture)).min() < 0.5
    header, *rows = openpyxl.load_workbook(workbook)["comparison"].iter_rows(values_only=True)
    first, second, empty = (dict(zip(header, row)) for row in rows)
    assert (first["run_id"], first["accuracy"], first["bits_up_payload"],
            first["compression_down_payload"]) == ("digits-1", 0.7, 600, 20)
    assert (second["mode"], second["bits_up_wire"], second["compression_up_payload"]) == ("fedavg",
                                                                                          None, 1)
    assert second["seconds_per_round"] == 1.5
    assert (empty["rounds"], empty["accuracy"]) == (0, None)


def test_tables_need_the_standard_library_only():
    code = ("import sys, flq.reports.compare, flq.reports.run_files, flq.reports.progress; "
            "sys.exit(bool({'matplotlib', 'openpyxl', 'pandas'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
