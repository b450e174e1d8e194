"""The shell scripts, run as a person runs them: real processes, real signals, real exit codes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    "deploy_jetson.sh", "quick_test.sh", "run_tests.sh", "start_master.sh", "start_worker.sh"
]
PATIENCE_S = 300  # until something is called broken; nothing below waits that long when it works


@pytest.fixture
def environment(tmp_path):
    """This Python for the scripts, and a home of its own for the token."""
    return dict(os.environ, PYTHON=sys.executable, HOME=str(tmp_path / "home"),
                FLQ_TOKEN=str(tmp_path / "token"))


@pytest.fixture
def start(tmp_path, environment):
    """start(script, argument...) -> its process, in an empty folder and a process group of its own.
    """
    started = []

    def start_script(script, *arguments, **variables):
        process = subprocess.Popen([str(ROOT / script), *arguments], cwd=tmp_path, env=dict(
            environment, **variables), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True, preexec_fn=hear_signals)
        started.append(process)
        return process

    yield start_script
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


def hear_signals():
    """As in a terminal: nohup, or a shell in whose background the tests run, has them ignored, and
    bash cannot catch what was ignored when it started.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def output_of(process):
    return process.communicate(timeout=PATIENCE_S)[0]


def wait_until(condition, process):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_in(folder):
    """{process id: command line} of the processes of this machine that stand in a folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(folder):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0",
                                                                                  b" ").decode()
        except OSError:
            continue  # it ended meanwhile
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- what every script promises
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_option_of_the_script(start, script):
    process = start(script, "--help")
    text = output_of(process)
    options = set(re.findall(r"^    (--[a-z_]+)\)", (ROOT / script).read_text(), re.MULTILINE))
    assert process.returncode == 0 and text.startswith("usage: ./" + script)
    assert options - set(text.split()) == set()


@pytest.mark.parametrize("script, arguments", [("deploy_jetson.sh", []),
                                               ("deploy_jetson.sh", ["deploy", "--bogus"]),
                                               ("deploy_jetson.sh", ["check", "--hosts"]),
                                               ("quick_test.sh", ["--bogus"]),
                                               ("start_master.sh", ["--bogus"]),
                                               ("start_worker.sh", ["--bogus"]),
                                               ("start_worker.sh", []),
                                               ("quick_test.sh", ["--rounds"]),
                                               ("start_master.sh", ["--port"]),
                                               ("start_worker.sh", ["--worker_id"]),
                                               ("quick_test.sh", ["--rounds", ""])])
def test_a_wrong_command_line_ends_with_2_and_one_line(start, script, arguments):
    process = start(script, *arguments)
    text = output_of(process)
    assert process.returncode == 2 and text.startswith(script + ": ") and text.count("\n") == 1


@pytest.mark.parametrize(
    "script, arguments, got",
    [("quick_test.sh", ["--port", "abc"], "65535; got abc"),
     ("quick_test.sh", ["--port", "99999"], "65535; got 99999"),
     ("start_master.sh", ["--port", "abc"], "65535; got abc"),
     ("start_master.sh", ["--port", "99999"], "65535; got 99999"),
     ("start_worker.sh", ["--worker_id", "0", "--port", "abc"], "65535; got abc"),
     ("start_worker.sh", ["--worker_id", "0", "--port", "0"], "65535; got 0"),
     ("start_worker.sh", ["--worker_id", "0", "--master_ip", "h", "--port", "99999"
                          ], "65535; got 99999"),
     ("start_worker.sh", ["--worker_id", "x"], "a number like 3 or a range like 0-15; got x"),
     ("quick_test.sh", ["--workers", "two"], 'an integer from 1 to 65535; got "two"'),
     ("quick_test.sh", ["--rounds", "-1"], "an integer from 1 to 1000000000; got -1")])
def test_a_number_that_cannot_be_is_one_line_before_anything_starts(start, tmp_path, script,
                                                                    arguments, got):
    process = start(script, *arguments)
    lines = [line for line in output_of(process).splitlines()
             if "using " not in line and "compiled kernels" not in line]
    assert process.returncode == 2 and len(
        lines) == 1 and "expected " in lines[0] and got in lines[0], lines
    assert list(tmp_path.glob("*/*")) == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("python", ["/nope", "nope", "/etc/passwd", "/"])
def test_a_python_that_is_none_is_told_in_one_line(start, script, python):
    needed = {"start_worker.sh": ["--worker_id", "0"],
              "deploy_jetson.sh": ["check", "--host", "- 127.0.0.1 1 0 -"]}
    process = start(script, *needed.get(script, []), PYTHON=python)
    text = output_of(process)
    assert process.returncode == 2 and text.startswith(
        f"{script}: PYTHON={python} is no ") and text.count("\n") == 1
    assert "expected the path of " in text


def test_a_machine_without_any_python_is_told_what_to_install(tmp_path, environment):
    tools, copy = tmp_path / "tools", tmp_path / "copy"
    for folder in (tools, copy / "scripts"):
        folder.mkdir(parents=True)
    for name in ("bash", "env", "dirname", "uname"):
        (tools / name).symlink_to(shutil.which(name))
    # beside the real one there may be a .venv
    for name in ("start_worker.sh", "scripts/runtime.sh"):
        shutil.copy(ROOT / name, copy / name)
    process = subprocess.run([str(copy / "start_worker.sh"), "--worker_id", "0"], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env={"PATH": str(tools), "HOME": environment["HOME"]})
    assert process.returncode == 2 and "sudo apt install python3" in process.stdout, process.stdout
    assert process.stdout.count(
        "\n") == 1, process.stdout


# --- start_master.sh and start_worker.sh
# ------------------------------------------------------------------


@pytest.fixture
def print_arguments(tmp_path):
    """A program in Python's place that prints its arguments."""
    program = tmp_path / "print_arguments"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    program.chmod(0o755)
    return str(program)


def arguments_of(process):
    lines = output_of(process).splitlines()
    assert process.returncode == 7
    return [line.replace(str(ROOT), "ROOT") for line in lines]


@pytest.mark.parametrize("given, passed",
                         [(["--worker_id", "3"], ["--worker_id", "3"]),
                          (["--worker_id", "0-3", "--master_ip", "10.0.0.7"
                            ], ["--worker_id", "0-3", "--master_url", "http://10.0.0.7:5000"]),
                          (["--worker_id", "0", "--port", "81"
                            ], ["--worker_id", "0", "--master_url", "http://127.0.0.1:81"]),
                          (["--worker_id", "0", "--master_ip", "fe80::1", "--port", "81"
                            ], ["--worker_id", "0", "--master_url", "http://[fe80::1]:81"]),
                          (["--worker_id", "0", "--config", "my own.json"
                            ], ["--worker_id", "0", "--config", "my own.json"]),
                          (["--worker_id", "0", "--allow", "mine", "--allow", "npz:my own.npz"
                            ], ["--worker_id", "0", "--allow", "mine", "--allow", "npz:my own.npz"
                                ]),
                          (["--worker_id", "0", "--", "--retry_for", "5", "--help"
                            ], ["--worker_id", "0", "--retry_for", "5", "--help"])])
def test_start_worker_passes_what_was_given_and_nothing_else(start, print_arguments, given, passed):
    assert arguments_of(start("start_worker.sh", *given,
                              PYTHON=print_arguments)) == ["ROOT/flq_worker.py", *passed]


def test_start_master_takes_flags_over_the_environment_over_defaults(start, print_arguments):
    def passed(*arguments, **variables):
        return arguments_of(
            start("start_master.sh", *arguments, PYTHON=print_arguments, **variables))

    unset, variables = {"HOST": "", "PORT": "",
                        "CONFIG": ""}, {"HOST": "::1", "PORT": "81", "CONFIG": "c.json"}
    assert passed(**unset) == [
        "ROOT/flq_master.py", "--config", "ROOT/flq_config.json", "--host", "0.0.0.0", "--port",
        "5000", "--resume"
    ]
    assert passed(**variables) == [
        "ROOT/flq_master.py", "--config", "c.json", "--host", "::1", "--port", "81", "--resume"
    ]
    assert passed("--host", "h", "--port", "82", "--config", "my own.json", "--", "--run_dir", "d",
                  **variables) == [
                      "ROOT/flq_master.py", "--config", "my own.json", "--host", "h", "--port",
                      "82", "--resume", "--run_dir", "d"
                  ]
    assert passed("--fresh", **unset)[-1] == "5000" and passed("--fresh", "--", "--run_dir", "d", **
                                                               unset)[-2:] == ["--run_dir", "d"]


def test_start_worker_ends_with_pythons_exit_code(start):
    process = start("start_worker.sh", "--worker_id", "0", "--port", str(free_port()), "--",
                    "--retry_for", "0")
    text = output_of(process)
    assert process.returncode == 75 and "Traceback" not in text, text


def test_start_master_becomes_python_which_hears_signals_itself(start, tmp_path):
    process = start("start_master.sh", "--host", "127.0.0.1", "--port", "0", "--", "--port_file",
                    "port")
    wait_until((tmp_path / "port").exists, process)
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    assert command[1] == str(ROOT / "flq_master.py").encode()
    with urllib.request.urlopen(
            f"http://127.0.0.1:{(tmp_path / 'port').read_text().strip()}/status") as response:
        assert json.load(response)["current_round"] == 0
    process.send_signal(signal.SIGTERM)
    text = output_of(process)
    assert process.returncode == 0, text


def test_start_master_goes_on_with_the_unfinished_run_unless_it_is_to_be_fresh(start, tmp_path):
    def run_id_of(*arguments):
        port_file = tmp_path / "port"
        process = start("start_master.sh", "--host", "127.0.0.1", "--port", "0", *arguments, "--",
                        "--port_file", "port")
        wait_until(port_file.exists, process)
        with urllib.request.urlopen(
                f"http://127.0.0.1:{port_file.read_text().strip()}/status") as response:
            shown = json.load(response)
        port_file.unlink()
        return process, shown["run_id"]

    def end(process):
        process.send_signal(signal.SIGTERM)
        return output_of(process)

    first, run_id = run_id_of()
    second = start("start_master.sh", "--host", "127.0.0.1", "--port", "0")
    text = output_of(second)
    assert second.returncode == 2 and "error: another master serves results/" + run_id in text
    assert "--fresh" in text
    assert "nothing to resume in results" in end(first)
    again, same = run_id_of()
    assert same == run_id and f"resuming results/{run_id}: 0 rounds are done" in end(again)
    fresh, other = run_id_of("--fresh")
    assert other != run_id and "resum" not in end(fresh)


def test_test_environment_finds_the_master(start, tmp_path):
    process = start("start_master.sh", "--host", "127.0.0.1", "--port", "0", "--", "--port_file",
                    "port")
    wait_until((tmp_path / "port").exists, process)
    url = "http://127.0.0.1:" + (tmp_path / "port").read_text().strip()
    check = "import sys, test_environment; print(test_environment.check_master(sys.argv[1]))"
    found = subprocess.run([sys.executable, "-c", check, url], cwd=ROOT, stdout=subprocess.PIPE,
                           text=True, check=True).stdout
    assert "state='ok'" in found and "answers: round 0 of " in found


# --- quick_test.sh
# ----------------------------------------------------------------------------------------


def is_training(folder):
    """Whether a quick test that was started in a folder has a worker that registered."""
    return any("registered" in path.read_text() for path in folder.glob("logs/*/worker-*.out"))


def test_quick_test_shows_the_run_and_leaves_its_results(start, tmp_path):
    settings = {
        "total_workers": 9, "max_rounds": 3, "mode": "bbit", "quorum": "deadline",
        "model": {"name": "softmax"}, "security": {"cafile": "of_the_other_machines.pem"}
    }
    (tmp_path / "my.json").write_text(json.dumps(settings))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        busy = str(holder.getsockname()[1])
        process = start("quick_test.sh", "--config", "my.json", "--mode", "bin", "--port", busy)
        text = output_of(process)
    assert process.returncode == 0 and "Traceback" not in text, text
    assert f"port {busy} is busy" in text and "round 3/3" in text, text
    assert "accuracy" in text and "bits up" in text and "bits down" in text
    *_, last = re.findall(r"^round 3/3  finished  accuracy (.*? %)", text, re.MULTILINE)
    assert f"\naccuracy {last} (best" in text, text

    saved = [tmp_path / name for name in re.findall(r"^saved: (.*)$", text, re.MULTILINE)]
    assert {path.suffix for path in saved} == {".png", ".xlsx"} and all(path.stat().st_size > 0
                                                                        for path in saved)
    run, = (tmp_path / "results").iterdir()
    assert len(list(run.glob("*.xlsx"))) == 1
    config = json.loads((run / "config.json").read_text())
    assert (config["system"]["total_workers"], config["system"]["quorum"],
            config["flq_algorithm"]["mode"]) == (9, "all", "bin")
    assert json.loads((run / "summary.json").read_text())["rounds"] == 3

    # Nine workers share eight processes, all of which have ended.
    logs = sorted(path.name for path in tmp_path.glob("logs/*/worker-*.out"))
    assert logs == [f"worker-{i}.out" for i in range(7)] + ["worker-7-8.out"]
    assert processes_in(tmp_path) == {}


def interrupt_after(condition, process, number):
    """Sends a signal to the whole group, as a terminal does -> what the script printed."""
    wait_until(condition, process)
    os.killpg(process.pid, number)
    return output_of(process)


def test_ctrl_c_leaves_no_process_and_names_the_logs(start, tmp_path):
    process = start("quick_test.sh", "--rounds", "100000", "--port", "0")
    text = interrupt_after(lambda: is_training(tmp_path), process, signal.SIGINT)
    logs, = (tmp_path / "logs").iterdir()
    assert process.returncode == 128 + signal.SIGINT, text
    assert f"the logs are in logs/{logs.name}\n" in text, text
    assert processes_in(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_quick_test_that_is_ended_early_leaves_no_process_either(start, tmp_path, number):
    process = start("quick_test.sh", "--rounds", "100000", "--port", "0")
    text = interrupt_after(lambda: list(tmp_path.glob("logs/*/master.out")), process, number)
    assert process.returncode == 128 + number and "the logs are in logs/" in text, text
    assert processes_in(tmp_path) == {}


def test_a_worker_that_dies_ends_the_quick_test_with_its_last_lines(start, tmp_path):
    process = start("quick_test.sh", "--rounds", "100000", "--port", "0")
    wait_until(lambda: is_training(tmp_path), process)
    victim, = [
        number for number, command in processes_in(tmp_path).items() if "--worker_id 1" in command
    ]
    os.kill(victim, signal.SIGKILL)
    text = output_of(process)
    assert process.returncode == 128 + signal.SIGKILL, text
    assert "worker-1 ended with exit code 137; the last lines of logs/" in text, text
    assert "the logs are in logs/" in text, text
    assert processes_in(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments, words",
    [(["--dataset", "npz:missing.npz"], "missing.npz; expected an npz file"),
     (["--dataset", "mnits"], "got mnits; did you mean mnist?"),
     (["--mode", "all", "--dataset", "no_such_module:load"], "cannot import no_such_module:load"),
     (["--config", "my.json"], "did you mean cnn?")])
def test_data_or_a_model_that_is_not_there_ends_the_quick_test_before_anything_starts(
        start, tmp_path, arguments, words):
    (tmp_path / "my.json").write_text('{"model": {"name": "cnnn"}}')
    process = start("quick_test.sh", *arguments)
    text = output_of(process)
    assert process.returncode == 4 and words in text and "Traceback" not in text and not (
        tmp_path / "logs").exists(), text


@pytest.mark.parametrize("arguments, words", [(["--mode", "lqa"], "did you mean laq"),
                                              (["--workers", "0"], "system.total_workers"),
                                              (["--config", "none.json"], "none.json")])
def test_a_wrong_setting_ends_the_quick_test_before_anything_starts(start, tmp_path, arguments,
                                                                    words):
    process = start("quick_test.sh", *arguments)
    text = output_of(process)
    assert process.returncode == 2 and words in text and not (tmp_path / "logs").exists(), text


# --- scripts/environment.sh
# -------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    """A copy of what makes the environment, whose requirements pip can meet without a network."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "scripts", folder / "scripts",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "requirements-none.txt").write_text("# nothing\n")
    (folder / "make.sh").write_text(
        'set -euo pipefail\n. "$(dirname "$0")/scripts/environment.sh"\n'
        'ensure_python both "$root/requirements-none.txt"\nprintf "%s\\n" "$python"\n')
    return folder


def make(copy, **variables):
    """Runs ensure_python in the copy -> (exit code, what it printed).

    It has no test_environment.py: no Python is ready.
    """
    process = subprocess.run(["bash", str(copy / "make.sh")], env=dict(os.environ,
                                                                       **variables), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE_S)
    return process.returncode, process.stdout


def test_an_environment_is_made_once_and_again_when_the_requirements_change(copy):
    base = {"PYTHON": sys.executable}
    code, text = make(copy, **base)
    assert code == 0 and "making .venv" in text and text.endswith(
        str(copy / ".venv/bin/python") + "\n"), text
    assert make(copy, **base) == (0, str(copy / ".venv/bin/python") + "\n")

    (copy / "requirements-none.txt").write_text("# nothing, but another\n")
    code, text = make(copy, **base)
    assert code == 0 and "installing into .venv" in text and "making" not in text


def test_an_interrupted_installation_starts_over_but_a_foreign_environment_is_only_added_to(copy):
    base = {"PYTHON": sys.executable}
    mine = copy / ".venv" / "mine"
    subprocess.run([sys.executable, "-m", "venv", str(copy / ".venv")], check=True)
    mine.touch()
    (copy / "requirements-none.txt").write_text("no-such-package-of-flq @ file:///nowhere\n")
    code, text = make(copy, **base)
    assert code == 2 and "pip could not install" in text and mine.exists()

    (copy / ".venv" / "flq-made").touch()
    (copy / "requirements-none.txt").write_text("# nothing\n")
    code, text = make(copy, **base)
    assert code == 0 and "making .venv" in text and not mine.exists()


def test_a_python_that_does_not_run_is_passed_over(copy, tmp_path):
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.9"):
        (shims / name).write_text("#!/bin/sh\necho 'no such version' >&2\nexit 127\n")
        (shims / name).chmod(0o755)
    path = f"{shims}:{os.environ['PATH']}"
    pyenv = tmp_path / "pyenv"
    code, text = make(copy, PATH=path, PYENV_ROOT=str(pyenv), PYTHON="")
    assert code == 2 and "no Python 3.9 to 3.13" in text and "sudo apt install python3" in text

    built = pyenv / "versions" / "{}.{}.0".format(*sys.version_info) / "bin"
    built.mkdir(parents=True)
    (built / "python3").symlink_to(sys.executable)
    code, text = make(copy, PATH=path, PYENV_ROOT=str(pyenv), PYTHON="")
    assert code == 0 and str(built / "python3") in text


def test_a_python_without_venv_is_told_by_the_package_that_brings_it(copy, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(
        f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    only = tmp_path / "only"
    only.mkdir()
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.9"):
        (only / name).symlink_to(bare)
    code, text = make(copy, PATH=f"{only}:{os.environ['PATH']}", PYENV_ROOT=str(tmp_path),
                      PYTHON="")
    assert code == 2 and "sudo apt install python3-venv" in text


def build_kernels(copy, **variables):
    """Runs build_kernels in the copy -> (exit code, what it printed)."""
    (copy / "make.sh").write_text(
        'set -euo pipefail\n. "$(dirname "$0")/scripts/environment.sh"\n'
        f'build_kernels {sys.executable}\nprintf "done\\n"\n')
    return make(copy, **variables)


def test_the_kernels_are_built_once_or_one_line_says_why_not(copy):
    shutil.copytree(ROOT / "flq", copy / "flq",
                    ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    code, text = build_kernels(copy, CC="/no/compiler")
    assert code == 0 and text.startswith("make.sh: no compiled kernels, NumPy computes: there is no"
                                         " C compiler ") and text.count("\n") == 2, text
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler here")
    code, text = build_kernels(copy, CC="")
    assert code == 0 and text.startswith(f"make.sh: compiled kernels: {copy}/flq/kernels/kernels-")
    assert text.count("\n") == 2
    assert build_kernels(copy, CC="") == (0, "done\n")


def test_a_python_that_cannot_build_the_kernels_stops_nothing(copy):
    (copy / "flq").mkdir()
    code, text = build_kernels(copy)
    assert code == 0 and text.endswith("\ndone\n") and text.count("\n") == 2, text
