"""What is begun beside the driver gives its result when it is asked for, and its error then."""

import threading

import pytest

from flq.compression import codec
from flq.master import coder
from tests.system.quadratic import simulate_here


def test_a_result_waits_until_it_is_asked_for():
    go, names = threading.Event(), []

    def work(first, second):
        go.wait(10)
        names.append(threading.current_thread().name)
        return first + second

    result = coder.start(work, 1, 2)
    assert not names
    go.set()
    assert result() == 3 and names[0].startswith("coder")


def test_an_error_is_raised_where_the_result_is_asked_for():
    result = coder.start(int, "no number")
    with pytest.raises(ValueError):
        result()


def test_each_broadcast_of_a_run_is_coded_beside_the_driver(tmp_path, monkeypatch):
    to_body, coded = codec.to_body, []

    def noted(*arguments):
        coded.append(threading.current_thread().name.split("_")[0].split("-")[0])
        return to_body(*arguments)

    monkeypatch.setattr(codec, "to_body", noted)
    rounds, _ = simulate_here(tmp_path / "run", ["total_workers=2", "max_rounds=3", "mode=laq"])
    assert len(rounds) == 3 and coded.count("coder") == 3 and coded.count("worker") == 6
