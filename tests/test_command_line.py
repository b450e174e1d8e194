"""What the programs say of a command line that cannot be used, and of a Python that lacks what they
need: one line each.
"""

import os
import subprocess
import sys

import pytest

from flq import command_line
from flq.errors import ConfigError
from flq.host import jetson
from scripts.requirements import parse_requirements

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MASTER, WORKER, FLQ = [os.path.join(ROOT, "flq_master.py")
                       ], [os.path.join(ROOT, "flq_worker.py"), "--worker_id", "0"], ["-m", "flq"]
runs_a_master = pytest.mark.skipif(sys.version_info < (3, 9), reason="a master needs Python 3.9")


def end_of(directory, *command):
    """-> (exit code, what it printed), in an empty folder."""
    environment = dict(os.environ, PYTHONPATH=ROOT, FLQ_TOKEN=str(directory / "token"),
                       HOME=str(directory))
    process = subprocess.run(list(command), cwd=str(directory), env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True)
    return process.returncode, process.stdout


def refusal(directory, *command):
    code, text = end_of(directory, *command)
    assert code == 2 and text.startswith("error: ") and text.count("\n") == 1, text
    return text


# --- options
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command, words",
    [(MASTER + ["--port", "abc"],
      "argument --port: expected a whole number from 0 to 65535; got abc"),
     (MASTER + ["--port", "99999"],
      "argument --port: expected a whole number from 0 to 65535; got 99999"),
     (MASTER + ["--port", "-1"], "argument --port: expected"),
     (MASTER + ["--port", "1_0"], "argument --port: expected"),
     (MASTER + ["--port"], "argument --port"), (MASTER + ["--bogus"], "--bogus"),
     (MASTER + ["--keyfile", "k"], "--certfile"),
     (WORKER + ["--retry_for", "soon"],
      "argument --retry_for: expected a number of seconds, 0 or more; got soon"),
     (WORKER + ["--retry_for", "nan"], "--retry_for"),
     (WORKER + ["--retry_for", "-1"], "--retry_for"), (WORKER[:1], "--worker_id"),
     (FLQ + ["report", "run", "--targets", "0"],
      "argument --targets: expected an accuracy above 0 and at most 1; got 0"),
     (FLQ + ["report", "run", "--targets", "much"],
      "argument --targets: expected an accuracy above 0 and at most 1; got much"),
     (FLQ + ["token", "--worker", "x"],
      "argument --worker: expected a whole number from 0 to 65535; got x"),
     (FLQ + ["token", "--rotate", "--worker", "65536"], "argument --worker"), (FLQ, "COMMAND"),
     (FLQ + ["replya"], "replay"), (FLQ + ["replay"], "run_dir"),
     (FLQ + ["status", "--master_url", "http://127.0.0.1:99999"], "expected http://HOST:PORT"),
     (FLQ + ["status", "--master_url", "http://127.0.0.1:0"], "expected http://HOST:PORT"),
     (FLQ + ["status", "--master_url", "http://127.0.0.1:abc"], "expected http://HOST:PORT"),
     (WORKER + ["--master_url", "http://127.0.0.1:99999", "--retry_for", "0"],
      "expected http://HOST:PORT")])
def test_an_option_that_cannot_be_used_is_one_line_with_what_was_expected(tmp_path, command, words):
    assert words in refusal(tmp_path, sys.executable, *command)
    assert not (tmp_path / "token").exists()  # nothing was done before


@runs_a_master
@pytest.mark.parametrize("folder", ["nope", "empty"])
@pytest.mark.parametrize("command", [
    "replay FOLDER", "report FOLDER", "compare FOLDER --out out", "backup FOLDER copy.db",
    "compact FOLDER"
])
def test_a_folder_that_is_no_run_is_told_and_left_alone(tmp_path, command, folder):
    (tmp_path / "empty").mkdir()
    line = refusal(tmp_path, sys.executable, *(FLQ + command.replace("FOLDER", folder).split()))
    assert f"there is no run in {folder}; expected a folder with run.db" in line
    assert "results/<run_id>" in line
    assert list(tmp_path.glob("[!.]*")) == [tmp_path / "empty"] and list(
        (tmp_path / "empty").iterdir()) == []


def test_an_error_is_one_line_whatever_it_says(capsys):
    def program():
        raise ConfigError("a\x1b[2J\x9b2J file\nof another machine", got="\u202e3\r4")

    assert command_line.run("worker", program) == 2
    assert capsys.readouterr() == ("", "error: a [2J 2J file of another machine; got 3 4\n")


# --- what this Python lacks
# -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Python without a single package."""
    folder = str(tmp_path_factory.mktemp("bare"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return os.path.join(folder, "bin", "python")


@pytest.mark.parametrize("command, role", [(WORKER, "worker"), (FLQ + ["status"], "worker")] + [
    pytest.param(command, "master", marks=runs_a_master)
    for command in (MASTER, FLQ + ["simulate"], FLQ + ["report", "r"],
                    FLQ + ["compare", "r", "--out", "o"], FLQ + ["replay", "r"],
                    FLQ + ["backup", "r", "b"], FLQ + ["compact", "r"])
])
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, bare, command,
                                                                      role):
    line = refusal(tmp_path, bare, *command)
    files = [os.path.join(ROOT, f"requirements-{name}.txt") for name in ("tensorflow", role)]
    assert f"is missing; expected the packages of a {role}; got {bare}" in line
    assert "{} -m pip install -r {} -r {}".format(bare, *files) in line and all(
        map(os.path.exists, files))


@pytest.mark.parametrize("release, said", [
    ("32.7.1", "python3.6 -m pip install --extra-index-url "
     "https://developer.download.nvidia.com/compute/redist/jp/v461 tensorflow==2.7.0+nv22.1"),
    ("99.1", "look for its wheel for this L4T")
])
def test_an_installed_copy_on_a_jetson_names_nvidias_wheel(tmp_path, monkeypatch, capsys, release,
                                                           said):
    def program():
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(jetson, "release", lambda root="/": release)
    monkeypatch.setattr(command_line, "_ROOT", str(tmp_path))  # no tree lies around it
    assert command_line.run("worker", program) == 2
    assert capsys.readouterr().err.endswith(
        f'pip install "flq[tensorflow,worker]" (NVIDIA\'s TensorFlow first: {said})\n')


def test_a_program_that_needs_no_package_runs_without_any(tmp_path, bare):
    assert end_of(tmp_path, bare, *(FLQ + ["token"]))[0] == 0


@pytest.mark.parametrize("options", [(), ("--packages_only",)])
def test_the_check_of_a_machine_says_all_that_a_bare_python_lacks(tmp_path, bare, options):
    program = os.path.join(ROOT, "test_environment.py")
    code, text = end_of(tmp_path, bare, program, "--role", "worker", *options)
    assert code == 1 and all(
        line.startswith(("ok ", "warning ", "unusable ")) for line in text.splitlines()[:-1]), text
    for package in ("tensorflow", "numpy", "requests"):
        assert "unusable  {:<15} missing: {} -m pip install -r requirements-".format(
            package, bare) in text, text


def test_the_packages_are_those_of_the_requirements():
    files = [
        os.path.join(ROOT, f"requirements-{name}.txt")
        for name in ("tensorflow", "worker", "master")
    ]
    # One module has several distributions, and without zlib-ng Python's own zlib serves.
    named = {need.name for file in files for need in parse_requirements(file)}
    assert named - {"tensorflow-cpu", "zlib-ng"} | {"tensorflow"} == command_line.PACKAGES


def test_another_module_that_is_missing_is_a_bug_and_stays_one():
    def program():
        raise ModuleNotFoundError("No module named 'flq.nothing'", name="flq.nothing")

    with pytest.raises(ModuleNotFoundError):
        command_line.run("worker", program)


@pytest.mark.skipif(sys.version_info >= (3, 9), reason="this Python is new enough")
@pytest.mark.parametrize("command", [MASTER, FLQ + ["simulate"], FLQ + ["replay", "r"]])
def test_a_python_that_is_too_old_for_a_master_is_told(tmp_path, command):
    assert "expected Python 3.9 or newer; got 3." in refusal(tmp_path, sys.executable, *command)
