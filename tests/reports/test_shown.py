"""What a command shows while it works, by stream and by option."""

import argparse
import io
import logging
import os
import pty
import threading

import pytest

from flq import run_commands
from flq.host import log
from flq.reports import shown as shown_
from flq.reports.progress import ProgressBar, StepBar, _Rarely
from tests.reports.test_progress import Terminal, status


def arguments(*given):
    parser = argparse.ArgumentParser()
    run_commands.add_output_options(parser, "it")
    return parser.parse_args(given)


@pytest.fixture
def logger(tmp_path, loggers):
    """Start a log as a command does; its terminal gets what `shown` lets through."""
    return lambda shown: log.start("test", str(tmp_path), "INFO", shown.handler)


def say_three_things():
    logging.getLogger("flq.learning").info("reading the data set")
    logging.getLogger("flq.master").info("round 3: 2 selected")
    logging.getLogger("flq.simulate").warning("model.l2_biases true has no effect")


def test_a_person_sees_warnings_and_what_takes_long_and_the_file_has_all(logger):
    stream = io.StringIO()
    with shown_.Shown(arguments(), stream) as shown:
        path = logger(shown)
        say_three_things()
    assert stream.getvalue() == (
        "reading the data set\nwarning: model.l2_biases true has no effect\n")
    with open(path, encoding="utf-8") as file:
        assert len(file.read().splitlines()) == 3


@pytest.mark.parametrize("option, lines", [("--verbose", 3), ("--quiet", 1), ("--json", 2)])
def test_more_and_less(logger, option, lines):
    stream = io.StringIO()
    with shown_.Shown(arguments(option), stream) as shown:
        logger(shown)
        say_three_things()
    assert len(stream.getvalue().splitlines()) == lines


def test_verbose_and_quiet_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        arguments("--verbose", "--quiet")
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("option, shows", [(None, True), ("--verbose", False), ("--quiet", False)])
def test_a_run_is_followed_until_its_last_status(option, shows):
    stream, current = Terminal(), [status(3)]
    with shown_.Shown(arguments(*filter(None, [option])), stream) as shown:
        shown.follow(lambda: current[0])
        current[0] = status(30, phase="FINISHED")
    assert ("round 30/30" in stream.text() and stream.text().endswith("\n")) == shows
    assert [thread for thread in threading.enumerate() if thread.name == "progress"] == []


def test_an_end_by_an_exception_leaves_the_cursor_on_a_line_of_its_own():
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), shown_.Shown(arguments(), stream) as shown:
        shown.follow(lambda: status(3))
        raise KeyboardInterrupt
    assert stream.text().endswith("\n")


def test_a_warning_goes_above_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    bar = StepBar(stream, "round")
    bar.update(1, 4)
    bar.say("warning: slow")
    bar.update(2, 4)
    bar.close()
    first, second = (f"round {done}/4 [{'#' * part}{'-' * (21 - part)}] {25 * done:3}%"
                     for done, part in ((1, 5), (2, 10)))
    assert stream.text() == ("\r" + first + "\r" + " " * len(first) + "\rwarning: slow\n\r" + second
                             + "\n")


def test_elsewhere_and_on_a_dumb_terminal_there_are_some_ten_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    for stream in (io.StringIO(), Terminal()):
        for bar in (StepBar(stream, "round"), ProgressBar(stream, 793)):
            for done in range(1, 794):
                if isinstance(bar, StepBar):
                    bar.update(done, 793)
                else:
                    bar.update(status(done, max_rounds=793))
            bar.close()
        text = stream.getvalue() if isinstance(stream, io.StringIO) else stream.text()
        assert 20 <= len(text.splitlines()) <= 22 and "\r" not in text
        assert "round 1/793\n" in text and "round 793/793\n" in text


def test_each_round_where_that_is_asked_for():
    stream = io.StringIO()
    bar = ProgressBar(stream, 30, every_round=True)
    for round_ in range(1, 31):
        bar.update(status(round_))
    assert len(stream.getvalue().splitlines()) == 30


def test_what_takes_long_says_so_each_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("flq.reports.progress.time.monotonic", lambda: now[0])
    rarely, told = _Rarely(), []
    for done in range(1, 8):  # 25 s each
        now[0] += 25.0
        told.append(rarely.is_due(done, 1000))
    assert told == [True, False, False, True, False, False, True]


def test_a_loss_that_exploded_stays_short():
    stream = io.StringIO()
    ProgressBar(stream, 30).update(status(1, loss=41234567890123.0))
    assert "loss 4.12e+13" in stream.getvalue()


def test_what_keras_prints_while_it_downloads_never_meets_the_json(capsys):
    with shown_.Shown(arguments("--json"), io.StringIO()) as shown, shown.loading():
        print("Downloading data")
    with shown_.Shown(arguments("--quiet")) as shown, shown.loading():
        print("Downloading data")
    shown.result("the table")
    assert capsys.readouterr() == ("", "")


def test_a_download_draws_a_bar_on_a_terminal_only(capsys, monkeypatch):
    from flq.learning.datasets import files
    with files._bar_on_a_terminal():
        print("1/2 [===>....]")
    assert capsys.readouterr().out == ""
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        with files._bar_on_a_terminal():
            print("1/2 [===>....]", flush=True)
        assert os.read(reader, 100).startswith(b"1/2 [")
    os.close(reader)
