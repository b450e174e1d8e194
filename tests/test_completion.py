"""`--print_completion`: a real bash sources the script, and is asked what it would offer."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from flq import keys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = {"flq": ["-m", "flq"], "flq-master": ["flq_master.py"], "flq-worker": ["flq_worker.py"]}
needs_shtab = pytest.mark.skipif(find_spec("shtab") is None, reason="shtab is not installed")

ASK = """
source "$1" || exit
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMPREPLY=()
complete -p "$1" | grep -oE -- '-F [^ ]+' | { read -r _ name && printf '%s' "$name"; } >name
$(cat name)
printf '%s\\n' "${COMPREPLY[@]}"
"""


def print_completion(program, shell):
    """-> (exit code, what it printed)."""
    process = subprocess.run([sys.executable] + PROGRAMS[program] + ["--print_completion", shell],
                             cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True)
    return process.returncode, process.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a file, a folder and the scripts of the three programs."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "settings.json").write_text("{}")
    (folder / "some-run").mkdir()
    for program in PROGRAMS:
        code, text = print_completion(program, "bash")
        assert code == 0, text
        (folder / (program + ".bash")).write_text(text)
    return folder


def offered(folder, *words):
    """What bash offers for the last of the words."""
    process = subprocess.run(["bash", "-c", ASK, "ask", words[0] + ".bash"] + list(words),
                             cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True)
    assert process.returncode == 0, process.stdout
    return process.stdout.split()


@needs_shtab
@pytest.mark.parametrize("words, expected", [
    (["flq", "sim"], {"simulate"}),
    (["flq", "comp"], {"compare", "compact"}),
    (["flq", "replay", "--no"], {"--no_evaluation"}),
    (["flq", "simulate", "--config", "set"], {"settings.json"}),
    (["flq", "report", "so"], {"some-run"}),
    (["flq", "report", "set"], set()),
    (["flq", "simulate", "--set", "budget"],
     {"budget_selection.sel_clients=", "budget_selection.up_budget_bits="}),
    (["flq-master", "--exit"], {"--exit_when_done"}),
    (["flq-master", "--run_dir", "so"], {"some-run"}),
    (["flq-worker", "--take"], {"--take_over"}),
    (["flq-worker", "--state_dir", "so"], {"some-run"}),
    (["flq-worker", "--token_file", "set"], {"settings.json"}),
])
def test_bash_offers_what_fits(folder, words, expected):
    assert set(offered(folder, *words)) == expected


@needs_shtab
def test_bash_offers_every_key(folder):
    assert set(offered(folder, "flq-master", "--set", "")) == {key.path + "=" for key in keys.KEYS}


@needs_shtab
@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_that_knows_the_commands(shell):
    code, text = print_completion("flq", shell)
    assert code == 0 and "simulate" in text and "no_evaluation" in text


@needs_shtab
def test_a_shell_that_is_not_known_is_one_line():
    code, text = print_completion("flq", "cmd.exe")
    assert code == 2 and text.count("\n") == 1
    assert text.startswith("error: there is no completion for this shell; expected bash, zsh, ")


def test_without_shtab_the_line_says_how_to_install_it(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    process = subprocess.run([str(bare / "bin" / "python"), "-m", "flq", "--print_completion",
                              "bash"], cwd=ROOT, stderr=subprocess.PIPE, universal_newlines=True)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert "the package shtab is missing" in process.stderr
    assert process.stderr.endswith("python -m pip install shtab\n")
