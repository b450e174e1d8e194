"""The runs of a sweep as processes: a signal at any moment, and what is said of one that failed."""

import collections
import multiprocessing
import signal
import time
import types

import pytest

from flq.sweep import processes
from flq.sweep.plan import Planned

PATIENCE_S = 30.0


def planned(name):
    return Planned(name, None, frozenset())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_just_before_a_run_begins_ends_the_sweep(tmp_path, monkeypatch, number):
    class Waiting(collections.deque):
        def popleft(self):
            signal.raise_signal(number)
            return super().popleft()

    monkeypatch.setattr(processes, "collections", types.SimpleNamespace(deque=Waiting))
    monkeypatch.setattr(processes, "play_as_process", print)
    ended = []
    assert not processes.play_all([planned("a"), planned("b")], tmp_path, 2,
                                  lambda running, newly: ended.extend(newly))
    assert [one.planned.name for one in ended] == ["a"], "and the second did not begin"


def test_a_failure_is_told_from_the_runs_own_newest_log(tmp_path):
    """Process ids come again, above all in containers."""
    for name, text in (("a-20260101-120000-30.log", "its first"),
                       ("a-20260102-120000-30.log", "its newest\n\n"),
                       ("a-b-20260103-120000-30.log", "another run's"),
                       ("z-20260104-120000-30.log", "another run's"),
                       ("a-20260105-120000-130.log", "another process's")):
        (tmp_path / name).write_text(text)
    process = types.SimpleNamespace(name="a", pid=30, exitcode=4)
    said = processes._problem(process, tmp_path)
    assert said == f"exit code 4: its newest; {tmp_path / 'a-20260102-120000-30.log'}"
    process.pid, process.exitcode = 31, -9
    assert processes._problem(process, tmp_path) == "ended by signal 9: it said nothing"


def test_no_run_goes_on_when_the_sweep_itself_fails(tmp_path, monkeypatch):
    """Python would wait for each before it ends."""
    monkeypatch.setattr(processes, "play_as_process", only_wait)

    def watch(running, newly):
        raise OSError("no room for what it says")

    with pytest.raises(OSError, match="no room"):
        processes.play_all([planned("a")], tmp_path, 1, watch)
    left = multiprocessing.active_children()
    for process in left:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in left] in ([-signal.SIGTERM], [])


def only_wait(planned, folder):
    time.sleep(PATIENCE_S)
