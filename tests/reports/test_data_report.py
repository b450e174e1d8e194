"""check-data as its users see it: the program, its exit code, its text, JSON and picture."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from flq import config
from flq.learning.data_check import check_data
from flq.reports import data_report
from flq.reports.terminal import display_width

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def table(tmp_path):
    rows = "".join(f"0.{k % 97:02},0.{k:03},{'abc'[k % 3]},s{k % 4}\n" for k in range(300))
    (tmp_path / "t.csv").write_text("x,y,kind,site\n" + rows)
    return tmp_path


def run(folder, *arguments):
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "flq", "check-data", *arguments],
                          cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True,
                          env=dict(os.environ, PYTHONPATH=ROOT, FLQ_DATA_DIR=str(folder)))
    return done.returncode, done.stdout, done.stderr


def test_good_data(table):
    code, text, error = run(table, "--set", "dataset.name=csv:t.csv?label=kind&client=site",
                            "--set", "partition=natural", "--picture", "p.png")
    assert code == 0 and error == "saved: p.png\n"
    assert "samples   240 to train, 60 to test\n" in text and "clients   4\n" in text
    assert "\npartition natural\nworker  samples" in text
    rows = [line.split() for line in text.split("\n") if line[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert sum(int(row[1]) for row in rows) == 240
    assert text.endswith("\nok: nothing is wrong with these data\n")
    assert imread(str(table / "p.png")).shape[2] == 4


def test_bad_data_end_with_4_and_say_every_reason(table):
    with open(str(table / "t.csv"), "a") as file:
        file.write("1,2,a\n1,two,a,s0\n")
    code, text, _ = run(table, "--set", "dataset.name=csv:t.csv?label=kind&client=site")
    assert code == 4
    assert [line.partition("t.csv ")[2].partition(";")[0] for line in text.split("\n")
            if line.startswith("unusable: ")] == [
        "line 302 has another number of cells than line 1", "line 303, column 'y': not a number"]
    code, text, _ = run(table, "--json", "--set", "dataset.name=csv:t.csv?label=knd")
    assert code == 4 and json.loads(text)["usable"] is False
    code, _, error = run(table, "--set", "dataset.nam=x")
    assert code == 2 and error.count("\n") == 1


def test_json_has_all_of_it(table):
    code, text, _ = run(table, "--json", "--set", "dataset.name=csv:t.csv?label=kind&ignore=site")
    shown = json.loads(text)
    assert code == 0 and shown["usable"] and shown["warnings"] == []
    assert shown["classes"] == ["a", "b", "c"] and shown["shape"] == [2]
    assert np.array(shown["workers"]).sum() == shown["num_train"] == 240
    assert [column["name"] for column in shown["columns"]] == ["x", "y"]
    assert all(column["low"] < column["mean"] < column["high"] for column in shown["columns"])


@pytest.mark.parametrize("workers, classes", [(1, 1), (5, 3), (60, 40), (300, 2)])
def test_many_workers_and_classes_stay_readable(workers, classes, tmp_path):
    random = np.random.RandomState(0)
    y = np.arange(6000) % classes
    x = random.uniform(size=(6000, 2)).astype(np.float32)
    np.savez(str(tmp_path / "t.npz"), x_train=x, y_train=y, x_test=x + 1, y_test=y)
    settings = config.build({
        "dataset.name": "npz:t.npz", "dataset.data_dir": str(tmp_path), "total_workers": workers,
        "dataset.partition": "non_iid"})
    checked = check_data(settings)
    lines = data_report.text(settings, checked).split("\n")
    assert len(lines) < 60 and max(map(display_width, lines[6:])) <= 100
    data_report.draw(str(tmp_path / "p.png"), settings, checked)
    height, width = imread(str(tmp_path / "p.png")).shape[:2]
    assert width == 1300 and 300 < height <= 1600
