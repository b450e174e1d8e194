"""Workers join, leave, die and come back; masters and workers end when they are told to."""

import json
import os
import signal
import time

import pytest

from tests.system.processes import history_of, wait_until
from tests.system.quadratic import simulate_here
from tests.system.test_same_run import REAL_PROGRAMS

# a process that is asked to ends within 5 s; twice that on a machine that has other things to do
SOON_S = 10.0


class Run:
    """A run with a deadline that goes on for as long as the module needs it."""

    def __init__(self, site):
        self.site = site
        self.master = site.master("total_workers=5", "max_rounds=1000000", "quorum=deadline",
                                  "round_deadline_s=0.5", "worker_timeout_s=2")

    def worker(self, ids, *options, seconds="0.05", **variables):
        return self.site.worker(ids, self.master, *options, SECONDS_OF_TRAINING=seconds,
                                **variables)

    def state_of(self, worker):
        return self.master.status()["worker_status"].get(str(worker), {}).get("state")

    def wait_until_selected(self, *workers):
        """A round that is opened from now on is closed with the updates of these workers, and of no
        other one.
        """
        def found():
            rounds = self.master.get(f"/history?since={since}")["rounds"]
            return [record for record in rounds if record["selected"] == list(workers)]

        since = self.master.status()["current_round"] + 1
        return wait_until(found, f"a round has the updates of {workers}")[0]


@pytest.fixture(scope="module")
def run(site):
    run = Run(site)
    run.worker("0")
    return run


def test_a_worker_joins_and_leaves_while_the_run_goes_on(run):
    run.wait_until_selected(0)
    joined = run.worker("1")
    run.wait_until_selected(0, 1)
    code, seconds = joined.end(signal.SIGTERM)
    assert code == 0 and seconds < SOON_S
    run.master.wait_for_text("worker 1 left")
    assert run.wait_until_selected(0)["missing"] == []  # nobody waits for who said goodbye
    assert run.state_of(1) == "away"


def test_a_worker_that_waits_leaves_at_once_too(run):
    slow = run.worker("2", seconds="30")
    wait_until(lambda: run.state_of(2) == "training", "worker 2 is at work")
    quick = run.worker("3")
    wait_until(lambda: run.state_of(3) in ("waiting", "accepted"), "worker 3 waits for the others")
    for worker in (quick, slow):
        code, seconds = worker.end(signal.SIGTERM)
        assert code == 0 and seconds < SOON_S
    run.master.wait_for_text("worker 2 left")
    run.master.wait_for_text("worker 3 left")


def test_a_killed_worker_stops_nobody_and_comes_back(run):
    killed = run.worker("4")
    run.wait_until_selected(0, 4)
    killed.kill()
    # its state file proves that it is the same one: it takes its place over at once
    again = run.worker("4")
    run.wait_until_selected(0, 4)
    again.kill()
    wait_until(lambda: run.state_of(4) == "away", "it counts as gone")
    assert run.wait_until_selected(0)["missing"] == [
        4
    ], "the round did not wait for it, and it is missing"
    # and after that any process may be worker 4
    elsewhere = run.worker("4", FLQ_STATE_DIR=str(run.site.directory / "elsewhere"))
    run.wait_until_selected(0, 4)
    refused = run.worker("4", FLQ_STATE_DIR=str(run.site.directory / "third"))
    assert refused.wait() == 3 and "--take_over" in refused.text()
    taken = run.worker("4", "--take_over", FLQ_STATE_DIR=str(run.site.directory / "fourth"))
    assert elsewhere.wait() == 3 and "took this worker id over" in elsewhere.text()
    run.wait_until_selected(0, 4)
    assert taken.end(signal.SIGTERM)[0] == 0


def test_a_worker_whose_machine_slept_is_part_of_the_run_again(run):
    worker = run.site.programs[1]
    assert worker.name == "worker-0"
    run.wait_until_selected(0)
    worker.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: run.state_of(0) == "away", "it counts as gone")
    worker.process.send_signal(signal.SIGCONT)
    run.wait_until_selected(0)


def test_a_master_that_is_told_to_end_commits_nothing_and_its_workers_wait_for_it(run):
    worker = run.site.programs[1]
    assert worker.name == "worker-0" and worker.process.poll() is None
    code, seconds = run.master.end(signal.SIGTERM)
    assert code == 0 and seconds < SOON_S
    assert "nothing new is committed" in run.master.text()
    summary, history = [
        json.loads((run.master.run_dir / name).read_text())
        for name in ("summary.json", "history.json")
    ]
    assert summary["phase"] == "UNFINISHED" and summary["rounds"] == len(history["rounds"])
    worker.wait_for_text("no answer from " + run.master.url)
    code, seconds = worker.end(signal.SIGTERM)
    assert code == 0 and seconds < SOON_S


def test_a_run_that_was_interrupted_everywhere_ends_as_one_that_was_not(own_site):
    settings = [
        "total_workers=3", "max_rounds=12", "quorum=all", "mode=laq8", "sel_clients=2",
        "thr_scale=0.5"
    ]
    def start(port):
        master = own_site.master(*settings, options=("--exit_when_done", "--port", str(port)))
        return master, [
            own_site.worker(ids, master, SECONDS_OF_TRAINING="0.1") for ids in ("0", "1-2")
        ]

    master, (alone, both) = start(0)
    port = master.port
    master.wait_for_round(3)
    alone.kill()
    alone = own_site.worker("0", master, SECONDS_OF_TRAINING="0.1")
    master.wait_for_round(6)
    assert master.end(signal.SIGTERM)[0] == 0
    both.kill()
    alone.kill()
    master, workers = start(port)
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    assert history_of(master.run_dir) == simulate_here(own_site.directory / "simulation-run",
                                                       settings)


def test_an_interrupted_simulation_keeps_what_it_has(own_site):
    simulation = own_site.simulate("total_workers=2", "max_rounds=1000000")
    simulation.wait_for_text("round 3: ")
    code, seconds = simulation.end(signal.SIGINT)
    assert code == 0 and seconds < SOON_S
    run_dir = own_site.directory / "simulation-run"
    assert json.loads((run_dir / "summary.json").read_text())["phase"] == "UNFINISHED"
    assert len(history_of(run_dir)[0]) > 3


def test_tensorflow_does_not_hold_up_the_end(own_site):
    """A training step cannot be interrupted: the process ends beside it, cleanly and in time."""
    master = own_site.master("total_workers=2", "model.name=softmax", "local_steps=1000000",
                             script=REAL_PROGRAMS["master"])
    worker = own_site.worker("0-1", master, "--set", "security.max_round_samples=32000000",
                             script=REAL_PROGRAMS["worker"])
    wait_until(
        lambda: "training" in [item["state"] for item in master.status()["worker_status"].values()],
        "a worker trains")
    time.sleep(1)  # into the step
    code, seconds = worker.end(signal.SIGTERM)
    assert code == 0 and seconds < SOON_S
    master.wait_for_text(" left")
    code, seconds = master.end(signal.SIGTERM)
    assert code == 0 and seconds < SOON_S


@pytest.mark.skipif("FLQ_PYTHON36" not in os.environ,
                    reason="FLQ_PYTHON36 names no Python 3.6 with TensorFlow and requests")
def test_a_worker_on_python_36_trains_with_one_on_this_python(own_site):
    master = own_site.master("total_workers=2", "max_rounds=6", "quorum=all", "model.name=mlp",
                             script=REAL_PROGRAMS["master"])
    workers = [
        own_site.worker("0", master, script=REAL_PROGRAMS["worker"]),
        own_site.worker("1", master, script=REAL_PROGRAMS["worker"],
                        python=os.environ["FLQ_PYTHON36"])
    ]
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    rounds, rows = history_of(master.run_dir)
    assert [record["selected"] for record in rounds] == [[0, 1]] * 6
    assert rounds[-1]["accuracy"] > 0.6 and {row["state"] for row in rows} == {"accepted"}
