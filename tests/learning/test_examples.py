"""The examples run as their docstrings say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flq.learning.datasets import load_dataset

ROOT = Path(__file__).resolve().parents[2]


def test_every_example_is_started_by_a_test():
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    examples = [path.stem for path in (ROOT / "examples").glob("*.py")]
    assert examples and [
        name for name in examples
        if not re.search(rf'"-m",\s+"examples\.{name}"|"examples" / "{name}\.py"', tests)] == []


def test_custom_model_runs_alone():
    command = [sys.executable, "-W", "ignore", "-m", "examples.custom_model"]
    output = subprocess.check_output(command, stderr=subprocess.DEVNULL, universal_newlines=True)
    lines = output.strip().split("\n")
    assert lines[0] == "1378 parameters, 16 moving statistics"
    assert lines[1].startswith("before training: accuracy 0.") and lines[2].startswith(
        "5 local steps: mean loss ")


def test_custom_dataset_writes_the_same_arrays(tmp_path):
    subprocess.check_call(
        [sys.executable, "-m", "examples.custom_dataset",
         str(tmp_path / "rings.npz")])
    from_file, from_function = load_dataset(
        "npz:rings.npz", str(tmp_path)), load_dataset("examples.custom_dataset:load")
    for left, right in zip(from_file, from_function):
        assert np.all(left == right)


@pytest.mark.skipif(sys.version_info < (3, 9), reason="a simulation needs Python 3.9")
def test_own_csv_learns_only_what_is_standardized(tmp_path):
    output = subprocess.check_output([sys.executable, "-W", "ignore", "-m", "examples.own_csv"],
                                     cwd=str(tmp_path), stderr=subprocess.DEVNULL,
                                     universal_newlines=True,
                                     env=dict(os.environ, PYTHONPATH=str(ROOT)))
    accuracy = dict(re.findall(r"^standardize (\w+): Result\(.*accuracy ([\d.]+) %", output, re.M))
    assert float(accuracy["True"]) > 90 > float(accuracy["False"])
    assert output.endswith("\n0 is clear\n") and "clients   7\n" in output


def test_custom_quantizer_runs_alone():
    output = subprocess.check_output([sys.executable, "-m", "examples.custom_quantizer"],
                                     universal_newlines=True)
    assert output.startswith("normal values: an error of 0.43 of their norm, with 1."
                             ) and output.endswith(" bits a value\n")
