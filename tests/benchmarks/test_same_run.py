"""Drawn configurations: they are the same ones each time and reach what was merged from separate
work, a few of them are one run in one process and over HTTP, and one that differs is told.
"""

import json
import subprocess
import sys

from benchmarks import same_run
from tests.system.processes import ROOT

SCRIPT = ROOT / "benchmarks" / "same_run.py"


def start(tmp_path, *options):
    return subprocess.run([sys.executable, str(SCRIPT), *options], cwd=tmp_path, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)


def test_a_few_configurations_are_one_run_each(tmp_path):
    """The fourth one has somebody killed."""
    done = start(tmp_path, "--configurations", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in (tmp_path / "same.jsonl").read_text().splitlines()]
    assert [result["number"] for result in results] == list(range(6))
    assert [result["failure"] for result in results] == [""] * 6
    assert done.stdout.splitlines()[-1] == "| all | 6 | 0 |"
    again = start(tmp_path, "--configurations", "6")
    assert again.stdout == done.stdout
    assert len((tmp_path / "same.jsonl").read_text().splitlines()) == 6, "nothing is played twice"


def test_one_that_differs_is_told_with_the_command_that_plays_it_again(tmp_path):
    results = [{"seed": 5, "number": number, "killed": False, "seconds": 1.0,
                "failure": "round 3: rho is 1, not 2" if number == 1 else ""}
               for number in range(3)]
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    done = start(tmp_path, "--seed", "5", "--configurations", "3")
    assert done.returncode == 1
    *_, all_, empty, what, command = done.stdout.splitlines()
    assert (all_, empty) == ("| all | 3 | 1 |", "")
    assert what == "1: round 3: rho is 1, not 2"
    assert command.strip() == "python benchmarks/same_run.py --seed 5 --only 1"


def test_what_is_drawn_is_the_same_each_time_and_reaches_every_kind():
    cases = [same_run.draw_case(0, number) for number in range(300)]
    assert cases[:20] == [same_run.draw_case(0, number) for number in range(20)]
    assert cases[0] != same_run.draw_case(1, 0)
    rows = [same_run.facts(case, {"killed": bool(case.kill)}) for case in cases]
    seen = {name: {row[name] for row in rows} for name in same_run.COLUMNS}
    assert seen["mode"] == set(same_run.MODES) and seen["cohorts"] == {1, 2, 3}
    assert seen["downlink"] == set(same_run.DOWNLINKS)
    assert seen["entropy_coding_down"] == {True, False, "context"}
    assert seen["radius"] == {"tensor", "vector", "block"}
    assert {0.1, 0.5, 1.0} <= seen["memory_rate"] and 2.0 in seen["rd_target_bits"]
    assert seen["kill"] == {"none", *same_run.VICTIMS}
    assert sum(case.kill is not None for case in cases) == 75
