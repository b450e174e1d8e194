"""python -m flq sweep as people use it: interrupted, killed, with a run that fails, and again."""

import json
import signal
import sys

import openpyxl
import pytest

from tests.system.processes import ROOT, history_of, wait_until

CONFIG = {"dataset.name": "digits", "model.name": "softmax", "total_workers": 2, "max_rounds": 8,
          "save_results": False}


@pytest.fixture
def sweep(own_site):
    """Start the command with a sweep's document."""
    def start(document, *options, name="sweep"):
        (own_site.directory / "sweep.json").write_text(json.dumps(document))
        return own_site.start(name, sys.executable, "-m", "flq", "sweep", "sweep.json", "--out",
                              "out", *options)
    return start


def over(site):
    """The names of the runs that are over."""
    return {
        path.parent.name for path in (site.directory / "out").glob("*/summary.json")
        if json.loads(path.read_text())["phase"] == "FINISHED"
    }


def written(site):
    """When each file of a run was written. SQLite keeps two of its own where a reader was the last
    to close, and later readers touch them.
    """
    return {path: path.stat().st_mtime_ns for path in (site.directory / "out").glob("*,seed=*/*")
            if not path.name.endswith(("-shm", "-wal"))}


def test_a_sweep_plays_every_run_compares_them_and_plays_none_twice(own_site, sweep):
    document = {"config": CONFIG, "variants": {"laq": {"mode": "laq"}, "bin": {"mode": "bin"}},
                "grid": {"seed": [0, 1]}}
    listed = sweep(document, "--list", name="list")
    assert listed.wait() == 0 and not (own_site.directory / "out").exists()
    assert listed.text().splitlines()[-1] == "bin,seed=1: to do, 0 of 8 rounds are there"
    first = sweep(document, "--jobs", "2")
    assert first.wait() == 0, first.text()
    names = {"laq,seed=0", "laq,seed=1", "bin,seed=0", "bin,seed=1"}
    assert over(own_site) == names
    text = first.text()
    assert "laq,seed=1: over after 8 of 8 rounds" in text and "round 32/32" in text
    assert [line.split()[:1] + line.split()[6:7] for line in text.splitlines()
            if "digits" in line] == [["laq", "2"], ["bin", "2"]]
    assert {path.name for path in (own_site.directory / "out").glob("comparison.*")} == {
        "comparison.png", "comparison.svg", "comparison.xlsx"}
    before = written(own_site)
    again = sweep(document, "--json", name="again")
    assert again.wait() == 0
    assert before == written(own_site)
    assert [row["runs"] for row in json.loads(again.text())["rows"]] == [2, 2]


def test_a_sweep_goes_on_after_a_signal_and_a_kill_and_gives_what_simulate_gives(own_site, sweep):
    slow = dict(CONFIG, **{"model.name": "mlp", "max_rounds": 150})
    document = {"config": slow, "variants": {"laq": {"mode": "laq"}, "bin": {"mode": "bin"}}}
    store = own_site.directory / "out" / "laq" / "run.db"

    def started(program):
        size = store.stat().st_size if store.exists() else 0
        wait_until(lambda: store.exists() and store.stat().st_size > size + 100_000
                   or program.process.poll() is not None, "the run goes on")

    first = sweep(document)
    started(first)
    assert first.end(signal.SIGTERM)[0] == 0
    if over(own_site) != {"laq", "bin"}:
        assert "of 2 runs were over; the same command goes on" in first.text()
    second = sweep(document, name="second")
    started(second)
    second.kill()
    last = sweep(document, name="last")  # its runs ended with it, and their folders are free
    code = last.wait()
    if code:  # a run of the killed one was just ending
        assert "another process" in last.text() or "in use" in last.text(), last.text()
        assert sweep(document, name="once more").wait() == 0
    assert over(own_site) == {"laq", "bin"}
    words = [word for key, value in dict(slow, mode="bin").items()
             for word in ("--set", f"{key}={json.dumps(value)}")]
    alone = own_site.start("alone", sys.executable, "-m", "flq", "simulate", "--run_dir", "alone",
                           *words)
    assert alone.wait() == 0
    assert history_of(own_site.directory / "out" / "bin") == history_of(
        own_site.directory / "alone")


def test_a_run_that_fails_is_named_and_the_others_are_played(own_site, sweep):
    document = {"config": CONFIG, "variants": {"broken": {}, "good": {},
                                               "bad": {"dataset.name": "npz:nowhere.npz"}}}
    folder = own_site.directory / "out"
    (folder / "broken").mkdir(parents=True)
    (folder / "broken" / "run.db").write_bytes(b"no database" * 100)
    listed = sweep(document, "--list", name="list")
    assert listed.wait() == 0
    broken = "the run store out/broken/run.db cannot be read; "
    assert listed.text().splitlines()[0].startswith("broken: " + broken)
    program = sweep(document, "--quiet")
    assert program.wait() == 1
    lines = program.text().splitlines()
    assert lines[0].startswith("error: broken: " + broken)
    assert lines[1].startswith("error: bad: exit code 4: error: cannot read nowhere.npz")
    assert lines[-1].startswith("error: 2 of 3 runs failed") and len(lines) == 3
    assert over(own_site) == {"good"}
    book = openpyxl.load_workbook(str(folder / "comparison.xlsx"), read_only=True)
    _, *warnings = [row[0] for row in book["warnings"].values]
    assert warnings == [line.replace("error: ", "", 1).replace(": ", " failed: ", 1)
                        for line in lines[:2]]


def test_a_run_with_another_configuration_is_not_taken_for_this_one(own_site, sweep):
    assert sweep({"config": CONFIG, "variants": {"a": {"mode": "laq"}}}).wait() == 0
    changed = sweep({"config": CONFIG, "variants": {"b": {}, "a": {"mode": "bin"}}}, name="changed")
    assert changed.wait() == 2
    assert changed.text() == (
        'error: out/a is a run with another flq_algorithm.mode; expected "laq"; got "bin"; move '
        "that run elsewhere, or name another folder with --out\n")
    assert not (own_site.directory / "out" / "b").exists()


def test_ray_that_is_missing_is_one_line(own_site, sweep):
    (own_site.directory / "ray.py").write_text("raise ModuleNotFoundError('no ray', name='ray')")
    own_site.environment["PYTHONPATH"] = f"{own_site.directory}:{ROOT}"
    for command in (["sweep", "sweep.json", "--out", "out"], ["simulate", "--run_dir", "run"]):
        (own_site.directory / "sweep.json").write_text("{}")
        program = own_site.start(command[0], sys.executable, "-m", "flq", *command, "--engine",
                                 "ray")
        assert program.wait() == 2
        assert "the package ray is missing; expected it, for --engine ray" in program.text()
