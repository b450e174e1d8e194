"""What README and the guide tell people to type, typed: the commands of a page in their order, in
an empty folder. Addresses of the pages stand for this machine, and port 5000 for a free one.
"""

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.guide_pages import commands, shown_files
from tests.system.processes import PATIENCE_S, ROOT, wait_until

ALONE = re.compile(
    r"python -m (flq (simulate|check-data|compare|report|replay|backup|token|certs)|examples)\b")
"""What needs no master. test_scripts.py, test_deploy.py and test_tls.py start the scripts."""

GUIDE = "docs/guide/"


@pytest.fixture
def shell(tmp_path, own_site):
    """shell(command) -> what it printed, once it has ended well. `python` is this Python, and the
    machine is own_site's.
    """
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    own_site.environment.update(FLQ_TOKEN=str(tmp_path / ".flq" / "token"),
                                PATH=f"{python.parent}:{own_site.environment['PATH']}")

    def run(command):
        process = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=own_site.environment,
                                 text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, timeout=PATIENCE_S)
        assert process.returncode == 0, f"{command}\n{process.stdout}{process.stderr}"
        return process.stdout

    return run


@pytest.mark.parametrize("page, saved", [("USAGE_GUIDE.md", 2), (GUIDE + "recovery.md", 1),
                                         (GUIDE + "data-and-models.md", 4),
                                         (GUIDE + "security.md", 0)])
def test_what_a_page_runs_on_one_machine_runs(tmp_path, shell, page, saved):
    shutil.copytree(ROOT / "examples", tmp_path / "examples",
                    ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in shown_files(page).items():
        (tmp_path / name).write_text(text)
    printed = [shell(command) for command in commands(page) if ALONE.match(command)]
    assert sum(text.count("saved: ") for text in printed) >= saved and printed


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_a_run_is_watched_and_steered_as_the_guide_says(own_site, shell):
    master = own_site.master("total_workers=4", "min_workers=4", "max_rounds=1000000", "mode=laq",
                             "worker_timeout_s=1", "round_deadline_s=1", options=())
    own_site.worker("0-2", master, SECONDS_OF_TRAINING="0.02")
    dying = own_site.worker("3", master, SECONDS_OF_TRAINING="0.02")
    master.wait_for_round(1)

    def here(command):
        return command.replace("192.168.1.10", "127.0.0.1").replace(":5000", f":{master.port}")

    def typed(page, words):
        """What the one command with these words, or that ends with them, prints."""
        found = [command for command in commands(GUIDE + page) if words in command]
        (command,) = [command for command in found if command.endswith(words)] or found
        return shell(here(command))

    assert json.loads(typed("steering.md", "/status"))["members"] == 4
    assert "workers" not in json.loads(typed("steering.md", "/status?brief=1"))
    assert typed("steering.md", "/history").startswith("round,")
    assert "flq_round" in typed("steering.md", "/metrics")

    typed("steering.md", "/pause")
    assert master.status()["paused"]
    typed("steering.md", "/resume")
    assert not master.status()["paused"]
    changed = json.loads(typed("steering.md", "PATCH"))["changed"]
    assert changed["model.lr"]["new"] == 0.05

    dying.kill()
    wait_until(lambda: master.status()["worker_status"]["3"]["state"] == "away", "3 is away")
    master.wait_for_phase("WAITING")
    assert json.loads(typed("recovery.md", "PATCH"))["changed"]["system.min_workers"]["new"] == 3
    master.wait_for_round(master.status()["current_round"] + 2)

    typed("steering.md", "/workers/3/remove")
    typed("recovery.md", "/workers/1/remove")
    states = master.status()["worker_status"]
    assert [worker for worker in states if states[worker]["state"] == "removed"] == ["1", "3"]

    (watch,) = [command for command in commands(GUIDE + "steering.md") if "--watch" in command]
    watching = own_site.start("watch", "bash", "-c", here(watch))
    watching.wait_for_text("round")
    assert json.loads(typed("steering.md", "/stop"))["status"] == "stopped"
    assert master.wait() == 0
    assert watching.wait() in (0, 75)  # 75: the master had ended before it asked again
