"""The configuration of 64 workers, with fewer of them: a run that is killed and goes on is the same
one.
"""

import json

import pytest

from benchmarks import sixty_four
from tests.benchmarks.test_scale import rows_of
from tests.system.processes import ROOT


def test_the_configuration_stands_in_the_guide():
    lines = (ROOT / "USAGE_GUIDE.md").read_text(encoding="utf-8").splitlines()
    assert sixty_four.FLAT in [json.loads(line) for line in lines if line.startswith("{")]


def test_a_run_that_was_killed_is_the_same(tmp_path, capsys):
    command = ["--folder", str(tmp_path), "--runs", "long", "killed", "--rounds", "60",
               "--workers", "3"]
    assert sixty_four.main(command) == 0
    shown = capsys.readouterr().out
    long, killed = rows_of(shown)
    assert (long[:3], killed[:3]) == (["long", "60", "0"], ["killed", "60", "1"])
    assert long[3:6] == killed[3:6] and long[-1] == killed[-1]
    assert "the same run as long, bit for bit" in shown
    # Nothing is played again, and what differs is said.
    history = tmp_path / "killed" / "history.json"
    history.write_text(history.read_text().replace(long[-1], "0" * 16))
    assert sixty_four.main(command) == 1
    assert "killed is not long: round 59: params_hash" in capsys.readouterr().out


def test_a_run_that_fails_names_its_log(tmp_path, monkeypatch):
    monkeypatch.setitem(sixty_four.RUNS, "short", {"dataset.name": "nothing"})
    with pytest.raises(SystemExit, match="short failed: see .*short.log"):
        sixty_four.main(["--folder", str(tmp_path), "--runs", "short"])
    assert "nothing" in (tmp_path / "short.log").read_text()
