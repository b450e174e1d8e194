"""A simulation that ends early stores nothing that an undisturbed one would not, so that it can go
on bit for bit.
"""

import json
import signal
import sys
import time

import pytest

from tests.system.processes import QUADRATIC, history_of, set_options
from tests.system.quadratic import simulate_here
from tests.system.test_faults import disk  # noqa: F401  # a fixture
from tests.system.test_same_run import REAL_PROGRAMS

SOON_S = 10
SETTINGS = ["total_workers=3", "max_rounds=8", "quorum=all", "mode=laq"]
SLOW = "0,0.2,0.4"
"""Worker 0 answers at once and worker 2 late: most of the time an open round has some answers and
not all.
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return {
        case: simulate_here(
            tmp_path_factory.mktemp("undisturbed") / "run",
            SETTINGS + case.split()) for case in ("", "sel_clients=2")
    }


@pytest.mark.parametrize("case", ["", "sel_clients=2"], ids=["one phase", "two phases"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_simulation_goes_on_bit_for_bit(own_site, undisturbed, number, case):
    settings, rounds = SETTINGS + case.split(), 0
    for part, (moment, later_s) in enumerate([("round 0: ", 0.1), ("registered with", 0.3),
                                              ("round 4: ", 0.0), ("round 5: ", 0.5)]):
        simulation = own_site.simulate(*settings, name=f"part-{part}", run_dir="run",
                                       options=["--resume"], SECONDS_OF_TRAINING=SLOW)
        simulation.wait_for_text(moment)
        time.sleep(later_s)
        code, seconds = simulation.end(number)
        assert code == 0 and seconds < SOON_S and "Traceback" not in simulation.text()
        history = history_of(own_site.directory / "run")
        summary = json.loads((own_site.directory / "run" / "summary.json").read_text())
        assert rounds <= summary["rounds"] == len(
            history[0]) < 8 and summary["phase"] == "UNFINISHED"
        assert [row for row in history[1] if row["state"] == "missing"] == []
        last = simulation.text().splitlines()[-1]
        assert (
            last ==
            f"interrupted after {len(history[0])} of 8 rounds; go on with --resume --run_dir run")
        rounds = len(history[0])
    assert own_site.simulate(*settings, name="end", run_dir="run", options=["--resume"]).wait() == 0
    assert history_of(own_site.directory / "run") == undisturbed[case]


@pytest.mark.parametrize("point", ["commit.after:8", "ending.before:2", "ending.after:3"])
def test_a_simulation_that_is_killed_at_its_end_goes_on_bit_for_bit(own_site, undisturbed, point):
    """Its last round is stored, and its workers are being sent the last model."""
    assert own_site.simulate(*SETTINGS, run_dir="run", options=["--resume"],
                             FLQ_CRASH_AT=point).wait() == -signal.SIGKILL
    assert own_site.simulate(*SETTINGS, name="end", run_dir="run", options=["--resume"]).wait() == 0
    assert history_of(own_site.directory / "run") == undisturbed[""]


def test_a_simulation_with_a_deadline_does_not_close_its_round_because_it_is_interrupted(own_site):
    """Its workers leave one after the other, and nobody would be waited for any more."""
    simulation = own_site.simulate("total_workers=2", "max_rounds=8", "quorum=deadline",
                                   "min_workers=1", SECONDS_OF_TRAINING="0,3")
    simulation.wait_for_text("registered with")
    time.sleep(1)
    # the first round may have closed before worker 1 was there
    closed = simulation.text().count(" missing, ")
    code, seconds = simulation.end(signal.SIGTERM)
    assert code == 0 and seconds < SOON_S and closed < 2
    assert len(history_of(own_site.directory / "simulation-run")[0]) == closed
    assert simulation.text().splitlines()[-1] == f"interrupted after {closed} of 8 rounds"


def test_tensorflow_does_not_hold_up_the_end_of_a_simulation(own_site):
    simulation = own_site.simulate("total_workers=2", "model.name=softmax", "local_steps=1000000",
                                   script=REAL_PROGRAMS["simulation"])
    simulation.wait_for_text("registered with")
    time.sleep(1)  # into a step
    code, seconds = simulation.end(signal.SIGTERM)
    assert code == 0 and seconds < SOON_S and "interrupted after 0" in simulation.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_simulation_on_a_full_disk_can_be_ended_and_goes_on(
        own_site, disk, undisturbed, number):  # noqa: F811
    simulation = own_site.simulate(*SETTINGS, run_dir="disk", options=["--resume"],
                                   SECONDS_OF_TRAINING="0.1")
    simulation.wait_for_text("round 2: ")
    disk.fill()
    simulation.wait_for_text("bytes of room")
    code, seconds = simulation.end(number)
    assert seconds < SOON_S and code == 1 and len(
        simulation.errors()) == 1 and "Traceback" not in simulation.text()
    assert ("the rounds are stored: make room and go on with --resume --run_dir disk"
            in simulation.errors()[0])
    disk.free()
    assert own_site.simulate(*SETTINGS, name="again", run_dir="disk",
                             options=["--resume"]).wait() == 0
    assert history_of(own_site.directory / "disk") == undisturbed[""]


def test_more_workers_than_a_process_may_have_files_open(own_site):
    """Each has one that is locked. 1,024 is the usual limit, which a process may raise."""
    settings = "total_workers=150", "max_rounds=1", "quorum=all", "save_results=false"
    run = own_site.start("simulation", "sh", "-c", 'ulimit -Sn 128 && exec "$@"', "sh",
                         sys.executable, QUADRATIC, "simulate", "--resume", "--run_dir", "run",
                         *set_options(settings))
    assert run.wait() == 0, run.tail()
    assert len(list((own_site.directory / "run" / "workers").glob("*.state"))) == 150
