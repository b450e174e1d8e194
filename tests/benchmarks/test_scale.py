"""The benchmarks of many workers, in small: processes, and the tables that they print."""

import json
import mmap
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from benchmarks import load, scale, simulate_scale


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("|")][2:]


def test_a_simulation_is_measured_once(tmp_path, capsys):
    file = tmp_path / "measured.jsonl"
    command = ["--workers", "2", "3", "--rounds", "3", "--systems", "FLQ laq", "--file", str(file),
               "--set", "dataset.name=digits", "model.name=softmax"]
    simulate_scale.main(command)
    first = rows_of(capsys.readouterr().out)
    assert [(row[0], row[1], row[2]) for row in first] == [("2", "FLQ laq", "3"),
                                                           ("3", "FLQ laq", "3")]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(0 < line["own_mb"] < line["with_mapped_mb"] and line["disk_mb"] > 0
               and line["round_s"] >= 0 and line["round_cpu_s"] >= 0 for line in lines)
    simulate_scale.main(command)
    assert rows_of(capsys.readouterr().out) == first and len(file.read_text().splitlines()) == 2


def test_a_file_without_a_name_counts_while_it_is_mapped(tmp_path):
    folder = str(tmp_path)
    before = simulate_scale.on_disk_kb(os.getpid(), folder)
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.truncate(1 << 20)
        mapped = mmap.mmap(file.fileno(), 1 << 20)
    assert simulate_scale.on_disk_kb(os.getpid(), folder) == before + 1024
    mapped.close()
    assert simulate_scale.on_disk_kb(os.getpid(), folder) == before


def test_processor_seconds_are_those_of_all_descendants_until_a_moment():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**8))'])"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        watched = simulate_scale.Watched(process.pid, "/nowhere")
        watched.look()
        while watched.cpu_until(time.time()) < 0.1:
            watched.look()
        process.kill()
    first, last = watched.looks[0], watched.looks[-1]
    assert watched.own_kb > 0 and first[1] <= watched.cpu_until(
        (first[0] + last[0]) / 2) <= last[1]


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(SystemExit) as failure:
        simulate_scale.main(["--workers", "2", "--systems", "FLQ laq", "--file",
                             str(tmp_path / "file"), "--set", "dataset.name=nothing"])
    assert "nothing" in str(failure.value) and not (tmp_path / "file").exists()


def test_a_masters_load_is_measured(tmp_path):
    found = subprocess.run(
        [sys.executable, load.__file__, "--workers", "3", "--rounds", "3", "--idle_s", "0.2",
         "--in_a_process", "2"], stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path)
    idle, busy = rows_of(found.stdout)
    assert idle[:2] == ["3", "idle"] and busy[:2] == ["3", "rounds"] and float(busy[2]) > 0
    brief, whole = map(int, busy[-1].split("/"))
    assert 0 < brief < whole


def a_cell(workers, p, **values):
    return dict({"workers": workers, "model": "cnn", "p": p}, **dict.fromkeys(scale.MEASURED, 1.0),
                **values)


def test_a_fit_finds_what_it_was_made_of():
    lines = [a_cell(workers, p) for workers in (4, 8, 64) for p in (650, 55338, 467818)]
    for line in lines:
        line["master_s"] = 0.004 + 0.002 * line["workers"] + 9e-9 * line["workers"] * line["p"]
        line["up"] = 600 + 0.35 * line["p"]
        line["stored"] = 1000 - 100 * line["workers"] + line["p"] * line["workers"]
    values, error = scale.fit(lines, "master_s")
    np.testing.assert_allclose(values, [0.004, 0.002, 0, 9e-9], rtol=1e-6, atol=1e-15)
    assert error < 1e-9
    np.testing.assert_allclose(scale.fit(lines, "up")[0], [600, 0, 0.35, 0], rtol=1e-6)
    # Nothing costs less than nothing: what would be negative is 0, and the error says so.
    values, error = scale.fit(lines, "stored")
    assert values[1] == 0 and (values >= 0).all() and 0.01 < error < 1


def test_what_ends_a_master_first():
    each = {"master_s": [0.5, 0.01, 0, 0], "up": [0, 0, 1, 0], "down": [500, 0, 1, 0],
            "written": [0, 0, 0, 10], "resident": [0, 100, 0, 1], "stored": [0, 0, 0, 2]}
    fits = {name: (np.array(values, float), 0.0) for name, values in each.items()}
    setup = {"slower": 2, "bytes_s": 1e6, "memory": 1e6, "disk": 1e7, "room": 1e9}
    assert scale.limits(fits, 50, 1000, setup) == pytest.approx({
        "network_s": 50 * 2500 / 1e6, "processor_s": 2.0, "disk_s": 0.05, "memory": 0.055,
        "rounds": 1e4})
    most = scale.most_workers(fits, 1000, setup, round_s=3.0)
    assert most == 100  # the processor: 2 (0.5 + 0.01 M) = 3
    setup["memory"] = 5e4
    assert scale.most_workers(fits, 1000, setup, round_s=3.0) == 45  # 1,100 bytes each


def test_what_a_round_costs_is_measured_once(tmp_path, capsys):
    command = ["--file", str(tmp_path / "scale.jsonl"), "--workers", "2", "3", "5", "--models",
               "softmax", "--rounds", "6", "--plot", str(tmp_path / "scale.png")]
    assert scale.main(command) == 0
    first = capsys.readouterr().out
    rows = rows_of(first)
    assert [row[:2] for row in rows[:3]] == [["2", "`softmax`, 650"], ["3", "`softmax`, 650"],
                                             ["5", "`softmax`, 650"]]
    lines = [json.loads(line) for line in (tmp_path / "scale.jsonl").read_text().splitlines()]
    for line in lines:
        # 4 bits a weight, coded, in a frame and its request; all of it lies in the store
        assert 300 < line["up"] < 1500 and 150 < line["down"] < 1500
        assert line["stored"] > 200 * line["workers"]
        assert line["master_s"] > 0 and line["worker_s"] > 0
    assert (tmp_path / "scale.png").read_bytes()[:4] == b"\x89PNG"
    assert scale.main([*command, "--show"]) == 0
    assert capsys.readouterr().out == first
