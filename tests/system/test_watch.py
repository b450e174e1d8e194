"""python -m flq status --watch: when the bar ends, whatever its master does."""

import json
import subprocess
import sys

import pytest

import flq.__main__
from flq.worker.master_client import HttpClient
from tests.reports.test_progress import status
from tests.system.processes import PATIENCE_S, ROOT
from tests.worker.misbehaving import Misbehaving, answer


def says(round_, phase, accuracy, **changes):
    return answer(200,
                  json.dumps(status(round_, phase=phase, accuracy=accuracy, **changes)).encode())


@pytest.mark.parametrize(
    "answers, code, last",
    [([
        says(29, "BIDDING", 0.5),
        says(30, "FINISHED", 0.5933, pending_tests=1),
        says(30, "FINISHED", 0.759, pending_tests=0)
    ], 0, "round 30/30  finished  accuracy 75.90 %"),
     ([says(12, "BIDDING", 0.5),
       says(12, "FINISHED", 0.6, stopped=True, pending_tests=0)
       ], 0, "round 12/30  stopped  accuracy 60.00 %"),
     ([says(30, "FINISHED", 0.5933, pending_tests=1), None
       ], 0, "round 30/30  testing the last model  accuracy 59.33 %"),
     ([says(12, "BIDDING", 0.5), None], 75, "error: no answer from http://"), ],
    ids=["tested", "stopped", "a master that ends", "a master that is killed"])
def test_the_bar_ends_with_the_last_that_there_is_to_know(answers, code, last):
    with Misbehaving(*answers) as master:
        process = subprocess.run(
            [sys.executable, "-m", "flq", "status", "--watch", "--master_url", master.url],
            cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE_S)
    assert process.returncode == code and process.stdout.splitlines()[-1].startswith(
        last), process.stdout


def test_the_bar_does_not_wait_without_end_for_a_test(monkeypatch, capsys):
    monkeypatch.setattr(flq.__main__, "_LAST_TESTS_S", 0.0)
    with Misbehaving(says(30, "FINISHED", 0.5933, pending_tests=1)) as master:
        client = HttpClient(master.url)
        flq.__main__._watch(client, client.status())
        client.close()
    assert capsys.readouterr().err.splitlines()[-1].startswith(
        "round 30/30  testing the last model  accuracy 59.33 %")
