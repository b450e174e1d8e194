"""The benchmarks of many workers, in small: processes, and the tables that they print."""

import json
import mmap
import os
import subprocess
import sys
import tempfile
import time

import pytest

from benchmarks import load, simulate_scale


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
