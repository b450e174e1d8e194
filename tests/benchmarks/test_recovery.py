"""What a round writes: a step is a small part of the whole state, and both are counted, as are the
fsyncs.
"""

import argparse
import os
import shutil

import pytest

from benchmarks import recovery


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts the fsyncs")
@pytest.mark.parametrize("levels", recovery.LEVELS)
def test_a_step_is_less_than_a_tenth_of_the_whole_state(tmp_path, levels):
    arguments = argparse.Namespace(rounds=[5], folder=str(tmp_path))
    written, fsyncs = [], []
    for whole in (True, False):
        master, workers = recovery.written_by(1, levels, whole, arguments)
        assert len(master["seconds"]) == 5 and len(workers["seconds"]) == 6
        # The whole state costs one for the file and one for its name, a step one.
        fsyncs.append(workers["fsyncs"] - (2 * 6 if whole else 2 + 5))
        assert master["fsyncs"] >= 5
        calls = workers["written"]
        written.append((calls[-1] - calls[1]) / (len(calls) - 2))
    assert fsyncs == [0, 0]
    if written[0] == 0:
        pytest.skip(f"{os.fspath(tmp_path)} is not on a disk")
    assert 5e6 < written[0] < 7e6 and 2e5 < written[1] < written[0] / 10


def test_without_strace_nothing_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="strace counts the fsyncs"):
        recovery.written_by(1, "coded", False, argparse.Namespace(rounds=[5], folder=str(tmp_path)))
