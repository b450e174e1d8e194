import json
import math
import os

import pytest

from flq.errors import ConfigError, DataError
from flq.reports.run_files import (
    cumulative,
    is_written,
    load_run,
    need_run,
    replacing,
    summarize,
    write_run,
)
from tests.reports.runs import make_run, round_record, three_rounds, worker_round


def test_summary_of_three_rounds_worked_by_hand():
    summary = three_rounds().summary
    assert summary == {
        "run_id": "digits-1", "dataset": "digits", "model": "cnn_small", "mode": "laq",
        "workers": 4, "rounds": 3, "phase": "FINISHED", "accuracy": 0.7, "loss": 1.0,
        "best_accuracy": 0.75, "seconds": 6.0, "seconds_per_round": 2.0, "bits": {
            "up": {"nominal": 240, "payload": 600, "wire": 900, "float32": 2400},
            "down": {"nominal": 120, "payload": 180, "wire": 270, "float32": 3600}
        }, "compression": {
            "up": {"payload": 4.0, "wire": 2400 / 900},
            "down": {"payload": 20.0, "wire": 3600 / 270}
        }, "skipped": 1, "refused": 1, "missing": 2, "late": 1, "uploads": 7,
        "model_hash": "0000000000000002",
    }


def test_summary_of_two_cohorts_counts_for_each():
    records = [round_record(0, selected=(0, 2)),
               round_record(1, selected=(3,), missing=(1,), late=(1,), cohort=1),
               round_record(2, selected=(2,), skipped=(0,))]
    summary = make_run(records, system__cohorts=2).summary
    names = ("cohort", "rounds", "uploads", "skipped", "refused", "missing", "late",
             "payload_bits_up")
    assert summary["cohorts"] == [dict(zip(names, (0, 2, 3, 1, 0, 0, 0, 400))),
                                  dict(zip(names, (1, 1, 1, 0, 0, 1, 1, 200)))]
    assert "cohorts" not in make_run(records[:1]).summary


def test_accuracy_and_loss_are_those_of_the_last_tested_round():
    summary = make_run(
        [round_record(0),
         round_record(1),
         round_record(2, accuracy=None, loss=None)]).summary
    assert (summary["accuracy"], summary["loss"]) == (0.6, 1.5)


def test_summary_without_rounds():
    summary = make_run([], phase="WAITING").summary
    assert summary["rounds"] == summary["uploads"] == 0
    for name in ("accuracy", "loss", "best_accuracy", "seconds_per_round", "model_hash"):
        assert summary[name] is None
    assert summary["bits"]["up"] == {"nominal": 0, "payload": 0, "wire": None, "float32": 0}
    assert summary["compression"]["up"] == {"payload": None, "wire": None}


def test_wire_bits_are_none_unless_every_round_measured_them():
    bits = make_run([round_record(0), round_record(1, wire_bits_up=None)]).summary["bits"]
    assert bits["up"]["wire"] is None
    assert bits["down"]["wire"] == 180


def test_cumulative_is_unknown_from_the_first_unknown_value_on():
    assert cumulative([1, 2, 3]) == [1, 3, 6]
    assert cumulative([1, None, 3]) == [1, None, None]
    assert cumulative([None, 2]) == [None, None]
    assert cumulative([]) == []


@pytest.mark.parametrize("run", [three_rounds(), make_run([])], ids=["three rounds", "no rounds"])
def test_round_trip(tmp_path, run):
    write_run(tmp_path / "deep" / "folder", run)
    assert load_run(tmp_path / "deep" / "folder") == run


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write_run(
        tmp_path,
        make_run([round_record(0, loss=math.nan, train_loss=math.inf)],
                 [worker_round(0, 0, loss=-math.inf)]))
    run = load_run(tmp_path)
    assert run.rounds[0]["loss"] is run.rounds[0]["train_loss"] is run.worker_rounds[0][
        "loss"] is run.summary["loss"] is None
    assert "NaN" not in (tmp_path / "history.json").read_text()


def test_the_summary_follows_the_history_and_keeps_further_keys(tmp_path):
    run = three_rounds()
    write_run(tmp_path, run._replace(summary=dict(run.summary, accuracy=0.99, note="kept")))
    assert load_run(tmp_path).summary == dict(run.summary, note="kept")


def test_a_run_in_cohorts_is_written_again_byte_for_byte(tmp_path):
    run = make_run([round_record(0), round_record(1, cohort=1)], system__cohorts=2)
    write_run(tmp_path / "first", run._replace(summary=dict(run.summary, devices={})))
    write_run(tmp_path / "again", load_run(tmp_path / "first"))
    assert (tmp_path / "again" / "summary.json").read_bytes() == (
        tmp_path / "first" / "summary.json").read_bytes()


def test_cohorts_of_a_foreign_summary_count_for_nothing(tmp_path):
    run = three_rounds()
    write_run(tmp_path, run._replace(summary=dict(run.summary, cohorts=7)))
    assert load_run(tmp_path).summary == run.summary


def test_bits_that_no_round_holds_count_and_survive(tmp_path):
    run = three_rounds()
    bits = {
        direction: dict(kinds, wire=kinds["wire"] + 300)
        for direction, kinds in run.summary["bits"].items()
    }
    summary = summarize(run.run_id, run.config, run.rounds, run.worker_rounds, "FINISHED", bits)
    assert summary["bits"] == bits
    assert summary["compression"]["up"] == {"payload": 4.0, "wire": 2.0}
    write_run(tmp_path, run._replace(summary=summary))
    assert load_run(tmp_path).summary == summary


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    run = three_rounds()
    write_run(tmp_path, run)
    (tmp_path / "history.json.new").mkdir()    # the sibling cannot be written
    with pytest.raises(DataError) as caught:
        write_run(tmp_path, make_run([]))
    assert str(tmp_path / "history.json") in str(caught.value)
    assert load_run(tmp_path) == run
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "history.json", "history.json.new", "summary.json"
    ]


def test_of_a_write_that_fails_half_a_file_is_not_left(tmp_path):
    (tmp_path / "plot.png").mkdir()  # no file can take its place
    with pytest.raises(DataError), replacing(tmp_path / "plot.png") as file:
        file.write(b"half")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_the_summary_comes_after_the_reports(tmp_path):
    def refuse(directory, run):
        raise DataError("no room")

    run = three_rounds()
    with pytest.raises(DataError):
        write_run(tmp_path, run, refuse)
    assert not is_written(tmp_path, run) and (tmp_path / "history.json").exists()
    assert write_run(tmp_path, run, lambda directory, run: [directory / "plot.png"]) == [
        tmp_path / "summary.json", tmp_path / "plot.png"
    ]
    assert is_written(tmp_path, run)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as caught:
        write_run(tmp_path / "file", three_rounds())
    assert str(tmp_path / "file") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "history.json", "summary.json"])
@pytest.mark.parametrize("text", [None, "", "[1]", "{\"a\": ", "{}", "\udcff\udcfe", "[" * 100000])
def test_a_missing_or_damaged_file_is_one_line_with_its_path(tmp_path, name, text):
    write_run(tmp_path, three_rounds())
    path = tmp_path / name
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        load_run(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_told_with_the_newest_run_near_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, got in (("empty", "a folder without it"), ("file", "a file"), ("nope",
                                                                             "no such folder")):
        for read in (load_run, need_run):
            with pytest.raises(ConfigError) as refused:
                read(name)
            assert str(refused.value) == (
                f"there is no run in {name}; expected a folder with run.db; got {got}; runs are in "
                "results/<run_id>, "
                "or where logging.result_dir was")
    for age, name in enumerate(["b", "a", "c"]):
        store = tmp_path / "results" / name / "run.db"
        store.parent.mkdir(parents=True)
        store.write_text("")
        os.utime(str(store), (1000 - age, 1000 - age))
    for name in ("empty", "results", os.path.join("results", "nope"), "nope"):
        with pytest.raises(ConfigError) as refused:
            need_run(name)
        assert str(
            refused.value).endswith("the newest near there is " + os.path.join("results", "b"))
    need_run(os.path.join("results", "a"))


@pytest.mark.parametrize("name, place, value, words", [
    ("config.json", ["dataset"], 3, "a section dataset; got 3"),
    ("config.json", ["system", "total_workers"
                     ], "4", "system.total_workers of type int; got \"4\""),
    *(("config.json", ["system", "cohorts"], value,
       f"system.cohorts as an integer from 1 to 65535; got {json.dumps(value)}")
      for value in ("2", None, 0, True, 2.0, 10**12, [2])),
    ("history.json", ["rounds"], {}, "a list rounds; got dict"),
    ("history.json", ["rounds", 1], 7, "rounds[1] is damaged; expected a JSON object; got int"),
    ("history.json", ["rounds", 1, "accuracy"], "0.9",
     "rounds[1] is damaged; expected accuracy of type int or float or NoneType; got"),
    ("history.json", ["rounds", 2, "round_time_s"], None,
     "rounds[2] is damaged; expected round_time_s of type int or float; got null"),
    ("history.json", ["rounds", 2, "payload_bits_up"], 1.5, "payload_bits_up of type int; got 1.5"),
    ("history.json", ["rounds", 2, "members"], True, "members of type int; got true"),
    ("history.json", ["rounds", 0, "selected"], [0, "1"
                                                 ], "selected of type integers; got [0, \"1\"]"),
    ("history.json", ["workers", 3, "state"
                      ], None, "workers[3] is damaged; expected state of type str; got null"),
    ("history.json", ["rounds", 0, "closed_at"], 1e18, "closed_at as a Unix time; got 1e+18"),
    ("history.json", ["rounds", 0, "closed_at"], -1, "closed_at as a Unix time; got -1"),
    ("history.json", ["rounds", 0, "payload_bits_up"], 2**63,
     "payload_bits_up within 64 bits; got 9223372036854775808"),
    ("history.json", ["workers", 0, "num_samples"], -10**30,
     "workers[0] is damaged; expected num_samples within 64 bits; got -1"),
    ("history.json", ["rounds", 0, "late"], [10**30], "late within 64 bits; got [1"),
    ("summary.json", ["bits", "up", "wire"], 10**30, "bits.up.wire within 64 bits; got 1"),
    ("history.json", ["rounds", 0, "loss"], float("inf"), "got the number Infinity"),
    ("history.json", ["rounds", 0, "loss"], float("nan"), "got the number NaN"),
    ("config.json", ["more"], [1], "more as a section of keys; got [1]"),
    ("summary.json", ["phase"], 1, "a text phase; got 1"),
    ("summary.json", ["devices"], [], "devices as an object of objects; got []"),
    ("summary.json", ["devices"], {"0": 1}, "devices as an object of objects; got {\"0\": 1}"),
    ("summary.json", ["bits"], None, "a value bits.up.nominal; got none"),
    ("summary.json", ["bits", "down"], {"nominal": 1}, "a value bits.down.payload; got none"),
    ("summary.json", ["bits", "up", "float32"], None, "bits.up.float32 of type int; got null"),
])
def test_a_foreign_value_is_named(tmp_path, name, place, value, words):
    write_run(tmp_path, three_rounds())
    document = json.loads((tmp_path / name).read_text())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / name).write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        load_run(tmp_path)
    assert words in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    run = three_rounds()
    del run.rounds[1]["rho"]
    write_run(tmp_path, run)
    with pytest.raises(DataError, match=r"rounds\[1\] is damaged; expected a value rho"):
        load_run(tmp_path)


def test_a_run_of_before_a_field_is_read_with_its_default(tmp_path):
    run = three_rounds()
    write_run(tmp_path, run)
    document = json.loads((tmp_path / "history.json").read_text())
    for row in document["workers"]:
        del row["staleness"], row["residual_norm"]
    (tmp_path / "history.json").write_text(json.dumps(document))
    assert load_run(tmp_path).worker_rounds == [
        dict(row, staleness=0, residual_norm=None) for row in run.worker_rounds
    ]


def test_summarize_reads_records_before_json_made_lists_of_their_tuples():
    run = three_rounds()
    tuples = [{
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    } for record in run.rounds]
    assert summarize(run.run_id, run.config, tuples, run.worker_rounds, "FINISHED") == run.summary
