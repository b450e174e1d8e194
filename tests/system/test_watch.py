"""python -m flq status --watch: when the bar ends, whatever its master does."""

import argparse
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
        flq.__main__._watch(client, client.status(),
                            argparse.Namespace(verbose=False, master_url=master.url, cafile=None,
                                               cert=None, key=None))
        client.close()
    assert capsys.readouterr().err.splitlines()[-1].startswith(
        "round 30/30  testing the last model  accuracy 59.33 %")


STALL = {"workers": [2], "text": "waiting for worker 2 (nano-b), last heard 1 min 00 s ago",
         "waited_s": 60.0, "goes_on_in_s": None, "remove": [], "change": {}}


def watched(monkeypatch, capsys, *stalls, cafile=None):
    """What is printed of a run whose status has these stalls, one after the other."""
    monkeypatch.setenv("FLQ_TOKEN", "/home/me/the token")
    answers = [says(3, "BIDDING", 0.5, stall=stall, eta_s=None) for stall in stalls]
    with Misbehaving(*answers, says(30, "FINISHED", 0.6)) as master:
        client = HttpClient(master.url)
        arguments = argparse.Namespace(verbose=False, master_url=master.url + "/", cafile=cafile,
                                       cert=None, key=None)
        flq.__main__._watch(client, client.status(), arguments)
        client.close()
    return capsys.readouterr().err.replace(master.url, "URL").splitlines()


def test_a_missing_worker_is_told_once_with_the_commands_to_go_on(monkeypatch, capsys):
    stall = dict(STALL, remove=[2, 7])
    lines = watched(monkeypatch, capsys, stall, dict(stall, waited_s=61.0), None)
    command = ("  printf 'header = \"Authorization: Bearer %s\"' \"$(cat '/home/me/the token')\" | "
               "curl -K - -X POST URL/workers/{}/remove")
    assert lines[:4] == ["warning: " + STALL["text"], "to continue without:", command.format(2),
                         command.format(7)]
    assert lines[4].startswith("round 3/30  " + STALL["text"] + "  accuracy 50.00 %")
    assert "ETA" not in lines[4] and len(lines) == 6


def test_a_number_that_is_too_high_is_lowered_with_one_command(monkeypatch, capsys):
    lines = watched(monkeypatch, capsys, dict(STALL, change={"system.min_workers": 3}))
    assert lines[2].endswith(
        "curl -K - -X PATCH -d '{\"system.min_workers\": 3}' URL/config")


def test_a_wait_that_ends_needs_no_command(monkeypatch, capsys):
    lines = watched(monkeypatch, capsys, dict(STALL, goes_on_in_s=12.0))
    assert lines[1] == "the round goes on after 12.0 s"


@pytest.mark.parametrize("changes", [{"remove": ["2; rm -rf ~"]},
                                     {"change": {"system.min_workers": "$(id)"}}])
def test_what_a_master_says_becomes_no_command(monkeypatch, capsys, changes):
    assert "curl" not in "".join(watched(monkeypatch, capsys, dict(STALL, **changes)))
