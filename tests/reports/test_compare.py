import subprocess
import sys

from flq.reports.compare import comparison_tables, summary_table
from flq.reports.comparison import compare_runs
from tests.reports.runs import in_folders, make_run, round_record, three_rounds


def simulated(**config):
    return make_run([
        round_record(k, wire_bits_up=None, wire_bits_down=None, payload_bits_up=800)
        for k in range(2)
    ], run_id="digits-2", flq_algorithm__mode="fedavg", **config)


def test_summary_table():
    assert summary_table(three_rounds()) == """\
digits-1: FINISHED after 3 rounds (digits, cnn_small, mode laq, 4 workers)
accuracy 70.00 % (best 75.00 %), loss 1.0000
2.00 s a round, 6.00 s together
7 uploads, 2 missing, 1 skipped, 1 refused, 1 late
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


def test_comparison_tables():
    """Two seeds of fedavg are one row, whose numbers are means."""
    better = make_run([round_record(k, accuracy=0.7) for k in range(2)], run_id="digits-3",
                      flq_algorithm__mode="fedavg", dataset__seed=1)
    comparison = compare_runs(in_folders(a=three_rounds(), b=simulated(), c=better), [0.65])
    assert comparison_tables(comparison) == """\
        data set      model    mode  workers  cohorts  runs  rounds                  accuracy  uploads  missing  skipped  refused  per round
laq       digits  cnn_small     laq        4        1     1       3                   70.00 %        7        2        1        1     2.00 s
fedavg    digits  cnn_small  fedavg        4        1     2       2  65.00 % (60.00 to 70.00)        0        0        0        0     1.50 s

        up payload  up wire  up compr.  down payload  down wire  down compr.
laq        600 bit  900 bit       4.0x       180 bit    270 bit        20.0x
fedavg     950 bit        -       3.2x       120 bit          -        20.0x

        to reach  rounds  payload    time  rounds (mean of 3)  payload (mean of 3)  time (mean of 3)
laq      65.00 %       1  160 bit  1.00 s                   -                    -                 -
fedavg   65.00 %  1 of 2        -       -              0 of 2                    -                 -"""


def test_keys_that_differ_beyond_the_label_and_warnings_end_the_tables():
    run = simulated(model__lr=0.5, model__local_lr=0.2, dataset__name="fmnist")
    text = comparison_tables(compare_runs(in_folders(a=three_rounds(), b=run)))
    assert text.split("\n\n")[-2:] == [
        "also different: dataset.name, model.lr, model.local_lr; --json shows the values",
        "warning: the runs have different data sets (digits, fmnist): their accuracies cannot be "
        "compared"
    ]


def test_no_text_of_a_foreign_run_commands_the_terminal():
    hostile = "a\x1b]0;title\x07\r\n\u202e"
    run = make_run([round_record(0)], run_id=hostile, phase=hostile, dataset__name=hostile,
                   model__name=hostile)
    run.summary["mode"] = run.config["flq_algorithm"]["mode"] = hostile
    run.config["system"]["max_rounds"] = hostile
    run.config["model"][hostile] = hostile
    first, *_ = summary_table(run).split("\n")
    shown = "a ]0;title"
    assert first == f"{shown}: {shown} after 1 rounds ({shown}, {shown}, mode {shown}, 4 workers)"
    text = comparison_tables(compare_runs(in_folders(a=three_rounds(), **{hostile: run})))
    assert text.replace("\n", "").isprintable() and shown in text


def test_tables_need_the_standard_library_only():
    code = ("import sys, flq.reports.compare, flq.reports.run_files, flq.reports.progress; "
            "sys.exit(bool({'matplotlib', 'openpyxl', 'pandas', 'jinja2'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
