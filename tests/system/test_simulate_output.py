"""What `python -m flq simulate` and `replay` show to a pipe, to a terminal and to a program."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from tests.system.processes import PATIENCE_S, set_options, wait_until
from tests.system.quadratic import QUADRATIC_REPLAY

SETTINGS = set_options(("total_workers=2", "max_rounds=40", "save_results=false"))


def command(program, *options):
    return [*QUADRATIC_REPLAY[:2], program, *options]


@pytest.fixture
def run(own_site):
    def start(*words, **changes):
        done = subprocess.run([str(word) for word in command(*words)], cwd=str(own_site.directory),
                              env=own_site.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, **changes)
        return done.returncode, done.stdout, done.stderr
    return start


def test_a_pipe_gets_a_few_lines_and_the_table(run):
    code, out, err = run("simulate", "--run_dir", "r", *SETTINGS)
    assert code == 0 and "FINISHED after 40 rounds" in out and out.endswith("summary.json\n")
    lines = [line for line in err.splitlines() if line.startswith("round ")]
    assert 1 <= len(lines) <= 12 and lines[-1].startswith("round 40/40  finished")
    code, out, err = run("replay", "r")
    assert code == 0 and out.startswith("the run is what its store says: model ")
    lines = [line for line in err.splitlines() if line.startswith("round ")]
    assert 10 <= len(lines) <= 12 and lines[-1] == "round 40/40"


def test_quiet_says_nothing_and_json_is_alone_on_standard_output(run):
    assert run("simulate", "--run_dir", "r", "--quiet", *SETTINGS) == (0, "", "")
    code, out, _ = run("simulate", "--run_dir", "s", "--json", *SETTINGS)
    summary = json.loads(out)
    assert code == 0 and summary["rounds"] == 40 and summary["run_dir"] == "s"
    code, out, err = run("replay", "s", "--quiet", "--json")
    assert json.loads(out) == {"run_dir": "s", "compared_rounds": 40,
                               "params_hash": json.loads(out)["params_hash"]} and err == ""


def test_verbose_has_each_round(run):
    _, _, err = run("simulate", "--run_dir", "r", "--verbose", *SETTINGS)
    assert sum(" selected, " in line for line in err.splitlines()) == 40
    _, _, err = run("replay", "r", "--verbose")
    assert sum(line.endswith(" as recorded") for line in err.splitlines()) == 40


def test_a_finished_run_that_is_resumed_shows_its_end(run):
    run("simulate", "--run_dir", "r", "--resume", *SETTINGS)
    code, out, err = run("simulate", "--run_dir", "r", "--resume", *SETTINGS)
    assert code == 0 and "FINISHED after 40 rounds" in out
    assert [line for line in err.splitlines() if line.startswith("round ")][-1].startswith(
        "round 40/40  finished")


def test_an_interrupt_on_a_terminal_ends_the_bar_and_says_how_to_go_on(own_site):
    reader, writer = pty.openpty()
    environment = dict(own_site.environment, SECONDS_OF_TRAINING="0.3,0.3", TERM="xterm",
                       COLUMNS="100")
    words = command("simulate", "--run_dir", "r", "--resume", *SETTINGS)
    process = subprocess.Popen([str(word) for word in words], cwd=str(own_site.directory),
                               env=environment, stdout=writer, stderr=writer)
    os.close(writer)
    shown = []

    def is_drawn():
        shown.append(os.read(reader, 65536))
        # whichever rounds it comes to draw
        return re.search(rb"round [1-9]\d*/40", b"".join(shown))

    wait_until(is_drawn, "the bar moves")
    process.send_signal(signal.SIGINT)
    try:
        while True:
            shown.append(os.read(reader, 65536))
    except OSError:  # what a terminal says when its program has ended
        pass
    assert process.wait(PATIENCE_S) == 0
    os.close(reader)
    lines = b"".join(shown).decode().replace("\r\n", "\n").split("\n")
    assert "interrupted after" in lines[-2] and "go on with --resume --run_dir r" in lines[-2]
    assert all("\r" not in line or line.startswith("\r") for line in lines)
    assert "Traceback" not in "\n".join(lines)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_error_leaves_standard_output_empty_with_json(run):
    code, out, err = run("simulate", "--json", "--run_dir", "r", "--set", "max_rounds=0")
    assert code == 2 and out == "" and err.count("\n") == 1
