"""The runs of a sweep as processes: a signal at any moment, and what is said of one that failed."""

import collections
import signal
import types

import pytest

from flq.sweep import processes
from flq.sweep.plan import Planned


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
    assert [one.planned.name for one in ended] in ([], ["a"])


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
