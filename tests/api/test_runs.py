"""flq.simulate, flq.load_run and flq.Result: whole runs, small ones, with the real learner."""

import doctest
import logging
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest

import flq
import flq.api.runs
from flq.errors import ConfigError, DataError, FlqError

pytestmark = pytest.mark.skipif(sys.version_info < (3, 9), reason="a master needs Python 3.9")

SMALL = {"mode": "bin", "max_rounds": 3, "total_workers": 2, "model.name": "softmax"}
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def small():
    return flq.simulate(SMALL)


def same(left, right):
    return len(left) == len(right) and all(
        np.array_equal(one, other) for one, other in zip(left, right))


def hashes(result):
    return result.rounds.params_hash.tolist()


def test_its_examples():
    results = doctest.testmod(flq.api.runs, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0 and results.attempted > 8


# --- what it gives


def test_a_result_has_tables_weights_and_a_model(small):
    assert len(small.rounds) == 3 and len(
        small.workers) == 6 and small.rounds.accuracy.dtype == np.float64
    assert small.rounds.wire_bits_up.isna().all() and small.rounds.selected.tolist() == [(0, 1)] * 3
    assert small.summary["rounds"] == 3 and small.summary["phase"] == "FINISHED"
    assert small.summary["accuracy"] == small.rounds.accuracy.iloc[-1]
    assert [weights.shape for weights in small.weights] == [(64, 10), (10,)]
    assert same(small.model.get_weights(), small.weights) and small.model is small.model
    assert small.config == flq.Config(
        SMALL,
        quorum="all") and small.config.explicit == flq.Config(SMALL).explicit | {"system.quorum"}
    assert repr(small).startswith("Result(mode bin, 3 rounds, accuracy ") and "\n" not in repr(
        small)


def test_the_model_is_the_one_that_was_tested(small):
    from flq.learning.datasets import load_dataset
    data = load_dataset("digits")
    logits = small.model(data.x_test.astype(np.float32) / data.scale).numpy()
    assert (logits.argmax(1) == data.y_test).mean() == pytest.approx(small.summary["accuracy"])


def test_it_is_the_run_of_the_command_line(small, tmp_path):
    command = [
        sys.executable, "-m", "flq", "simulate", "--run_dir",
        str(tmp_path / "run"), "--set", "log_dir=" + str(tmp_path)
    ]
    for key, value in SMALL.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    cli = flq.load_run(tmp_path / "run")
    assert hashes(cli) == hashes(small) and same(cli.weights, small.weights)
    assert flq.Config(cli.config, log_dir=small.config.logging.log_dir) == small.config


def test_save_writes_the_files_of_a_run(small, tmp_path):
    written = small.save(tmp_path / "saved")
    assert {path.suffix
            for path in written} == {".json", ".xlsx", ".png"} and all(path.stat().st_size
                                                                       for path in written)
    again = flq.load_run(tmp_path / "saved")
    assert again.summary == small.summary and again.rounds.equals(
        small.rounds) and again.workers.equals(small.workers)
    assert again.config == small.config
    for look in (lambda: again.weights, lambda: again.model):
        with pytest.raises(DataError) as refusal:
            look()
        assert (
            str(refusal.value) ==
            f"the weights of the run in {tmp_path / 'saved'} were not kept; expected a folder with "
            "run.db; got the files for people only"
        )


def test_frozen_layers_that_each_process_draws_anew_are_those_of_the_run(tmp_path):
    done = flq.simulate({"model.name": "tests.learning.frozen_models:build"}, total_workers=1,
                        max_rounds=1, local_steps=1, run_dir=tmp_path / "run", save_results=False)
    assert same(flq.load_run(tmp_path / "run").weights, done.weights)


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        flq.load_run(tmp_path)
    assert str(refusal.value).startswith("there is no run in ")


# --- what it leaves alone


def test_nothing_is_written_without_a_run_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    flq.simulate(SMALL, max_rounds=1)
    assert list(tmp_path.iterdir()) == []


def test_a_run_dir_holds_what_the_command_line_would_write(tmp_path):
    flq.simulate(SMALL, max_rounds=1, run_dir=tmp_path / "run")
    assert {"run.db", "config.json", "history.json",
            "summary.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert list((tmp_path / "run").glob("*.xlsx")) and list((tmp_path / "run").glob("*.png"))
    with pytest.raises(FlqError) as refusal:
        flq.simulate(SMALL, run_dir=str(tmp_path / "run"))
    assert "exists already" in str(refusal.value)


def test_signal_handlers_and_loggers_stay_as_they_are():
    mine = lambda number, frame: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, mine), signal.getsignal(signal.SIGINT)
    loggers = [(logger.handlers[:], logger.level)
               for logger in map(logging.getLogger, ("", "flq", "flq.master", "flq.worker"))]
    try:
        flq.simulate(SMALL, max_rounds=1)
        assert signal.getsignal(signal.SIGTERM) is mine and signal.getsignal(
            signal.SIGINT) is before[1]
        after = [(logger.handlers, logger.level)
                 for logger in map(logging.getLogger, ("", "flq", "flq.master", "flq.worker"))]
        assert after == loggers
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_a_key_without_effect_is_a_warning_of_the_logger(caplog):
    flq.simulate(SMALL, max_rounds=1, min_workers=1)
    assert [record.getMessage() for record in caplog.records if record.name == "flq.simulate"] == [
        "system.min_workers 1 has no effect: system.quorum is all"]


# --- round by round


def test_on_round_sees_every_round_complete_in_the_callers_thread(small):
    from flq.reports.tables import rounds_table
    for run in (flq.simulate, lambda *arguments, **keywords: in_a_thread(lambda: flq.simulate(
            *arguments, **keywords))):
        records, threads = [], set()

        def see(record, records=records, threads=threads):
            records.append(record)
            threads.add(threading.current_thread().name)

        result = run(SMALL, on_round=see)
        assert rounds_table([record.to_json() for record in records]).equals(result.rounds)
        assert hashes(result) == hashes(small) and len(threads) == 1
        assert threads == ({threading.current_thread().name} if run is flq.simulate else {"caller"})


def in_a_thread(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), name="caller")
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize(
    "settings", [{}, {"sel_clients": 1}, {"thr_scale": 1e9, "C": 2}, {"quorum": "deadline"}],
    ids=str)
@pytest.mark.parametrize("no", [False, np.bool_(False)], ids=repr)
def test_false_ends_the_run_with_that_round(settings, no):
    result = flq.simulate(SMALL, on_round=lambda record: no
                          if record.round == 1 else None, max_rounds=1000, **settings)
    assert len(result.rounds) == 2 and result.summary["phase"] == "STOPPED" and len(
        result.weights) == 2


def test_the_rounds_of_a_run_that_was_ended_are_those_of_a_whole_one(small):
    ended = flq.simulate(SMALL, on_round=lambda record: record.round < 1)
    assert hashes(ended) == hashes(small)[:2] and ended.rounds.payload_bits_down.tolist(
    ) == small.rounds.payload_bits_down.tolist()[:2]


class Odd(Exception):
    pass


def test_a_run_in_cohorts_is_read_back_as_it_was(tmp_path):
    """Ended early, with a history for each cohort: what the folder gives is what was returned."""
    turns = []

    def two(record):
        turns.append((record.cohort, record.selected))
        return record.round < 2

    result = flq.simulate(SMALL, on_round=two, run_dir=tmp_path / "run", cohorts=2, max_rounds=9,
                          total_workers=3, downlink="rd", entropy_coding_down="context")
    assert turns == [(0, (0, 2)), (1, (1,)), (0, (0, 2))]
    assert result.rounds.cohort.tolist() == [0, 1, 0]
    assert [row["uploads"] for row in result.summary["cohorts"]] == [4, 1]
    found = flq.load_run(tmp_path / "run")
    assert found.summary == result.summary and found.config == result.config
    assert same(found.weights, result.weights)


@pytest.mark.parametrize("error", [Odd, KeyboardInterrupt])
def test_what_on_round_raises_ends_the_run_and_reaches_the_caller(tmp_path, error):
    def on_round(record):
        raise error

    with pytest.raises(error):
        flq.simulate(SMALL, on_round=on_round, run_dir=tmp_path / "run")
    assert not [
        thread for thread in threading.enumerate()
        if thread.name.startswith(("worker-", "driver", "evaluator", "heartbeats"))
    ]
    assert flq.load_run(tmp_path / "run").summary["phase"] == "UNFINISHED"
    assert len(flq.load_run(tmp_path / "run").rounds) == 1


def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path):
    script = (
        "import flq, sys\n"
        "try:\n"
        "    flq.simulate(total_workers=2, max_rounds=1000000, on_round=lambda record: "
        "print(record.round, flush=True))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n")
    environment = dict(os.environ, TMPDIR=str(tmp_path), TF_CPP_MIN_LOG_LEVEL="3")
    # A shell starts what it runs in the background with SIGINT ignored, and so it would be here.
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        try:
            assert process.stdout.readline() == "0\n"
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0 and output.splitlines(
    )[-1] == "interrupted" and "Traceback" not in errors
    assert list(pathlib.Path(tmp_path).iterdir()) == []


def test_a_worker_that_fails_is_an_error(monkeypatch, caplog):
    import flq.learning.learner

    def fail(self, params, non_trainable, worker, round_):
        if round_ == 1:
            raise DataError("no room for the batch")
        return update(self, params, non_trainable, worker, round_)

    update = flq.learning.learner.TensorFlowLearner.local_update
    monkeypatch.setattr(flq.learning.learner.TensorFlowLearner, "local_update", fail)
    for on_round in (None, lambda record: None):
        with pytest.raises(FlqError) as error:
            flq.simulate(SMALL, on_round=on_round)
        assert "the simulation ended early" in str(
            error.value) and "no room for the batch" in caplog.text
