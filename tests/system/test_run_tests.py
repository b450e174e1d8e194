"""run_tests.sh in a small tree of its own: both parts count, and one Ctrl-C ends both."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.system.test_scripts import PATIENCE_S, ROOT, hear_signals

HELD = """import pathlib, subprocess, time


def test_held():
    program = subprocess.Popen(["sleep", "600"])
    try:
        pathlib.Path("{name}.begun").write_text(str(program.pid))
        time.sleep(600)
    finally:
        program.kill()
        program.wait()
        pathlib.Path("{name}.ended").touch()
"""
PASSES, FAILS = "def test_it():\n    pass\n", "def test_it():\n    raise ValueError\n"
SKIPPED = """import pytest


@pytest.mark.skip(reason="there is no moon")
def test_it():
    pass
"""


@pytest.fixture
def tree(tmp_path):
    """What the script needs, where this Python has all packages and there is no Python 3.6."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts",
                    ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_tests.sh", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (tmp_path / "ruff.toml").write_text('exclude = ["scripts", "tests"]\n')
    (tmp_path / "test_environment.py").write_text("")
    for folder in ("flq", "tests/system"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "flq/__init__.py").write_text("")
    # for shellcheck, where it is installed
    for folder, script in ((".ci", "run"), ("tests/compat", "a.sh"),
                           ("tests/integrations", "a.sh")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / script).write_text("#!/bin/sh\n")
    return tmp_path


@pytest.fixture
def start(tree):
    """start(tests beside, other tests, argument...) -> the script's process."""
    started = []

    def start_script(beside, others, *arguments):
        (tree / "tests" / "system" / "test_beside.py").write_text(beside)
        (tree / "tests" / "test_others.py").write_text(others)
        environment = dict(os.environ, PYTHON=sys.executable, PYTHON36="no-python3.6",
                           PYENV_ROOT=str(tree / "pyenv"))
        environment.pop("FLQ_AUDIT", None)
        process = subprocess.Popen([str(tree / "run_tests.sh"), *arguments], cwd=tree,
                                   env=environment, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True,
                                   preexec_fn=hear_signals)
        started.append(process)
        return process

    yield start_script
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


def output_of(process):
    return process.communicate(timeout=PATIENCE_S)[0]


@pytest.mark.parametrize("beside, others, words", [
    (PASSES, PASSES, "everything that was run passed"),
    (FAILS, PASSES, "failed: pytest of tests/system"),
    (PASSES, FAILS, "failed: pytest\n"),
    (SKIPPED, PASSES, "test_beside.py:4, because there is no moon"),
])
def test_both_parts_count(start, beside, others, words):
    process = start(beside, others)
    text = output_of(process)
    assert words in text and process.returncode == (FAILS in (beside, others)), text
    assert text.count("test_beside.py ") == text.count("test_others.py ") == 1, text


def test_arguments_go_to_one_pytest(start):
    process = start(FAILS, PASSES, "tests", "-k", "others")
    text = output_of(process)
    assert process.returncode == 0 and "1 passed" in text and "background" not in text, text


@pytest.mark.parametrize("others", [HELD.format(name="others"), PASSES], ids=["beside", "waiting"])
def test_one_ctrl_c_ends_both_parts_with_what_they_started(tree, start, others):
    process = start(HELD.format(name="beside"), others)
    begun = [tree / "beside.begun"] + [tree / "others.begun"] * (others != PASSES)
    while not all(path.exists() and path.read_text() for path in begun):
        assert process.poll() is None, output_of(process)
        time.sleep(0.05)
    if others == PASSES:
        for line in process.stdout:
            if "waiting for tests/system" in line:
                break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the group in its foreground
    text = output_of(process)
    assert process.returncode == 130, text
    for path in begun:
        assert path.with_suffix(".ended").exists(), text
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
