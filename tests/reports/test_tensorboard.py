"""Event files, read by TensorBoard's own reader."""

import re

import pytest

pytest.importorskip("tensorboardX", reason="event files need it: pip install tensorboardX")
pytest.importorskip("tensorboard", reason="it reads the files: pip install tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # noqa: E402

from flq.errors import DataError  # noqa: E402
from flq.reports import tensorboard  # noqa: E402
from flq.reports.tensorboard import BY_BITS, METRICS, EventFile, write_events  # noqa: E402
from tests.reports.runs import make_run, round_record, three_rounds  # noqa: E402


def read(folder):
    """tag -> [(step, value)], and the reader."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(event.step, pytest.approx(event.value)) for event in reader.Scalars(tag)]
            for tag in reader.Tags()["scalars"]}, reader


def event_files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_scalars_are_those_of_the_rounds(tmp_path):
    path = write_events(tmp_path, three_rounds())
    assert event_files(tmp_path) == [path.name]
    scalars, reader = read(tmp_path)
    assert scalars["test/accuracy"] == [(0, 0.75), (2, 0.7)]
    assert scalars["test/loss"] == [(0, 2.0), (2, 1.0)]
    assert scalars["train/loss"] == [(0, 1.9), (1, 1.4), (2, 0.9)]
    assert scalars["bits/up_payload"] == [(0, 100), (1, 200), (2, 300)]
    assert scalars["bits_total/up_payload"] == [(0, 100), (1, 300), (2, 600)]
    assert scalars["bits_total/down_wire"] == [(0, 90), (1, 180), (2, 270)]
    assert scalars["time/round_s"] == [(0, 1), (1, 2), (2, 3)]
    assert {name: [value for _, value in scalars["workers/" + name]] for name in (
        "selected", "missing", "skipped", "refused", "late")} == {
            "selected": [3, 1, 3], "missing": [1, 0, 1], "skipped": [0, 1, 0],
            "refused": [0, 1, 0], "late": [0, 1, 0]}
    assert [event.wall_time for event in reader.Scalars("train/loss")] == [
        1700000000.0, 1700000001.0, 1700000002.0]


def test_accuracy_by_bits_has_the_kbit_as_its_step(tmp_path):
    """Both directions: 100 k up and 60 down a round. Where no kbit passed, the first test counts.
    """
    write_events(tmp_path, make_run([
        round_record(k, payload_bits_up=sent, payload_bits_down=0)
        for k, sent in enumerate((2500, 3500, 10, 4000))]))
    assert read(tmp_path)[0][BY_BITS] == [(2, 0.5), (6, 0.6), (10, 0.8)]


def test_what_was_not_measured_is_left_out(tmp_path):
    write_events(tmp_path, make_run([round_record(0), round_record(1, wire_bits_up=None,
                                                                   train_loss=None),
                                     round_record(2)]))
    scalars, _ = read(tmp_path)
    assert scalars["bits/up_wire"] == [(0, 150), (2, 450)]
    assert scalars["bits_total/up_wire"] == [(0, 150)]
    assert len(scalars["train/loss"]) == 2 and len(scalars["bits_total/down_wire"]) == 3


def hparams(reader):
    tags = reader.PluginTagToContent("hparams")
    return {tag: HParamsPluginData.FromString(content) for tag, content in tags.items()}


def test_the_configuration_is_there_as_hparams(tmp_path):
    write_events(tmp_path, make_run([round_record(0)], model__local_lr=0.25,
                                    dataset__seed=2**63 - 1))
    found = hparams(read(tmp_path)[1])
    assert set(found) == {"_hparams_/experiment", "_hparams_/session_start_info",
                          "_hparams_/session_end_info"}
    values = found["_hparams_/session_start_info"].session_start_info.hparams
    assert values["flq_algorithm.mode"].string_value == "laq"
    assert values["model.local_lr"].number_value == 0.25
    assert values["flq_algorithm.entropy_coding"].bool_value is True
    assert values["system.round_deadline_s"].string_value == "null"
    assert values["dataset.seed"].string_value == str(2**63 - 1), "float64 would round it"
    assert "logging.log_dir" not in values, "a machine's own key"
    infos = found["_hparams_/experiment"].experiment.metric_infos
    assert [info.name.tag for info in infos] == list(METRICS)
    assert set(METRICS) <= set(read(tmp_path)[0])


def test_a_run_that_is_not_over_has_no_end(tmp_path):
    write_events(tmp_path, make_run([round_record(0)], phase="UNFINISHED"))
    assert "_hparams_/session_end_info" not in hparams(read(tmp_path)[1])


def test_written_again_no_step_is_there_twice(tmp_path, monkeypatch):
    older = write_events(tmp_path, make_run([round_record(k) for k in range(2)]))
    monkeypatch.setattr(tensorboard.time, "time", lambda: 1.9e9)
    newer = write_events(tmp_path, make_run([round_record(k) for k in range(4)]))
    assert newer != older and event_files(tmp_path) == [newer.name]
    assert [step for step, _ in read(tmp_path)[0]["test/accuracy"]] == [0, 1, 2, 3]


def test_an_open_tensorboard_forgets_the_file_of_before(tmp_path, monkeypatch):
    write_events(tmp_path, make_run([round_record(k, accuracy=0.1) for k in range(3)]))
    _, reader = read(tmp_path)
    monkeypatch.setattr(tensorboard.time, "time", lambda: 1.9e9)
    write_events(tmp_path, make_run([round_record(k, accuracy=0.2) for k in range(4)]))
    reader.Reload()
    assert [(event.step, round(event.value, 3)) for event in reader.Scalars("test/accuracy")] == [
        (0, 0.2), (1, 0.2), (2, 0.2), (3, 0.2)]


def test_a_file_grows_and_a_late_test_is_added_once(tmp_path):
    rounds = make_run([round_record(k, accuracy=None if k == 1 else 0.5) for k in range(3)]).rounds
    tested = [dict(rounds[1], accuracy=0.75)]
    with EventFile(tmp_path, make_run([round_record(0)])) as file:
        assert event_files(tmp_path) == ["events.new.flq"], "TensorBoard shows none without rounds"
        file.add(rounds[:2])
        assert [step for step, _ in read(tmp_path)[0]["train/loss"]] == [0, 1]
        file.add_tests(tested)
        file.add_tests(tested)
        file.add(rounds[2:])
    assert read(tmp_path)[0]["test/accuracy"] == [(0, 0.5), (1, 0.75), (2, 0.5)]


def test_a_killed_writer_leaves_whole_records_that_the_next_one_replaces(tmp_path, monkeypatch):
    path = write_events(tmp_path, make_run([round_record(k) for k in range(3)]))
    path.write_bytes(path.read_bytes()[:-7])
    (tmp_path / "events.new.flq").write_bytes(b"half")
    assert [step for step, _ in read(tmp_path)[0]["test/accuracy"]] == [0, 1, 2]
    monkeypatch.setattr(tensorboard.time, "time", lambda: 1.9e9)
    newer = write_events(tmp_path, make_run([round_record(k) for k in range(4)]))
    assert event_files(tmp_path) == [newer.name]


def test_other_peoples_event_files_stay(tmp_path):
    theirs = tmp_path / "events.out.tfevents.1.host"
    theirs.write_bytes(b"")
    write_events(tmp_path, three_rounds())
    assert theirs.exists()


def test_texts_of_a_foreign_run_are_texts(tmp_path):
    run = make_run([round_record(0)])
    run.config["model"]["na\x00me\ud800"] = "\ud800\x1b[2J" * 100
    run.config["dataset"]["seed"] = 10**400
    write_events(tmp_path, run)
    values = hparams(read(tmp_path)[1])["_hparams_/session_start_info"].session_start_info.hparams
    assert values["model.na me"].string_value.isprintable()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot write .*nowhere.*tfevents") as refusal:
        write_events(tmp_path / "nowhere", three_rounds())
    assert re.search("got No such file", str(refusal.value))
