"""flq.worker.run and flq.master.serve: a program's own learner over HTTP, beside runs of FLQ's."""

import os
import signal
import sys

import pytest

import flq
from tests.system.own_learner import LeastSquares
from tests.system.processes import ROOT, Master, history_of

SETTINGS = ("total_workers=3", "max_rounds=6", "quorum=all")
PROGRAM = ROOT / "tests" / "system" / "own_learner.py"


def _master(site, *settings):
    return site.start("master", sys.executable, PROGRAM, "master", *SETTINGS, *settings,
                      kind=Master)


def _worker(site, master, worker, **variables):
    return site.start(f"worker-{worker}", sys.executable, PROGRAM, "worker", worker, master.url,
                      **variables)


@pytest.mark.parametrize("mode", ["laq", "bin", "fedavg"])
def test_it_is_the_simulated_run_bit_for_bit_and_without_tensorflow(own_site, mode):
    master = _master(own_site, f"mode={mode}")
    workers = [_worker(own_site, master, worker) for worker in range(3)]
    assert [program.wait() for program in [*workers, master]] == [0, 0, 0, 0]
    assert all("False TensorFlow" in program.text() for program in [*workers, master])
    simulated = flq.simulate(learners=[LeastSquares(worker) for worker in range(3)], mode=mode,
                             max_rounds=6, run_dir=own_site.directory / "simulated")
    rounds, rows = history_of(master.run_dir)
    assert (rounds, rows) == history_of(own_site.directory / "simulated")
    assert rounds[-1]["loss"] < rounds[0]["loss"]
    assert [tensor.shape for tensor in simulated.weights] == [(2, 3), (1,), (6,)]
    assert simulated.weights[2].any(), "moving means are averaged"


def test_a_worker_that_is_killed_goes_on_with_its_state(own_site):
    master = _master(own_site, "mode=laq")
    others = [_worker(own_site, master, worker, SECONDS_OF_TRAINING="0.3") for worker in (0, 1)]
    killed = _worker(own_site, master, 2)
    master.wait_for_round(2)
    assert killed.end(signal.SIGKILL)[0] == -signal.SIGKILL
    again = _worker(own_site, master, 2)
    assert [program.wait() for program in [*others, again, master]] == [0, 0, 0, 0]
    rounds, _ = history_of(master.run_dir)
    assert [record["selected"] for record in rounds] == [[0, 1, 2]] * 6


def test_workers_of_flq_and_own_ones_do_not_mix(own_site):
    ours = own_site.master("total_workers=1", name="ours")
    own = own_site.start("own", sys.executable, PROGRAM, "worker", 0, ours.url)
    assert own.wait() == 2 and own.errors() == [
        "error: this run trains a model of FLQ's, not a learner of your own; expected model.name "
        "own; got cnn_small; start its master with flq.master.serve"]
    master = _master(own_site)
    theirs = own_site.worker(0, master, script=(ROOT / "flq_worker.py",))
    assert theirs.wait() == 4 and theirs.errors() == [
        "error: the model of this run belongs to a program of the user's; expected a program with "
        "its learner (docs/frameworks.md); got model.name own; flq.master.serve and "
        "flq.worker.run serve it; the other commands cannot"]


def test_what_the_learner_decides_is_no_key_of_the_run(own_site):
    master = _master(own_site, "batch_size=8")
    assert master.wait() == 2 and master.errors() == [
        "error: dataset.batch_size does not fit a learner of your own; expected a configuration "
        "without it; got 8; the learner trains in its own way; model.lr is the master's rate"]
    assert not os.path.exists(str(master.run_dir))
