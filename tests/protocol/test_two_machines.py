"""Workers and master together over a network that loses, repeats and delays, while either side crashes (protocol.md 3 and 4)."""

import random

import hypothesis
import pytest
from hypothesis import strategies as st

from flq.protocol.round_events import RoundSettings
from tests.protocol.network import Master, Worker, World, commit
from tests.protocol.storms import STORMS

TROUBLE_S = 120.0


def world_of(seed, all_, two_phase, loss, crashes, lose_files, workers=3, max_rounds=5, apply_late=False, deadline_s=15.0):
    """A run to its end: (master, workers)."""
    dice = random.Random(seed)
    world = World(dice, loss, TROUBLE_S)
    settings = RoundSettings(max_rounds, workers if all_ else 1, workers, all_, two_phase, None if all_ else deadline_s, 30.0, 3600.0)
    master = Master(world, settings, apply_late)
    crew = [Worker(world, master, worker) for worker in range(workers)]
    for _ in range(crashes):
        victim = dice.choice([master] + crew)
        blow = victim.crash if victim is master else lambda victim=victim: victim.crash(lose_files and dice.random() < 0.5)
        world.later(dice.random() * TROUBLE_S / 4, blow)
    world.run(lambda: all(worker.exits for worker in crew))
    return master, crew


@pytest.mark.parametrize("quorum, two_phase, apply_late", [
    ("all", False, False), ("all", True, False), ("deadline", False, False), ("deadline", True, False), ("deadline", False, True)],
    ids=["all, one phase", "all, two phases", "deadline, one phase", "deadline, two phases", "deadline, late updates"])
@hypothesis.settings(max_examples=STORMS)
@hypothesis.given(seed=st.integers(0, 2 ** 32), loss=st.sampled_from([0.0, 0.02, 0.1, 0.3]), crashes=st.integers(0, 8),
                  lose_files=st.booleans(), deadline_s=st.sampled_from([15.0, None]))
def test_every_run_ends_and_both_sides_agree(quorum, two_phase, apply_late, seed, loss, crashes, lose_files, deadline_s):
    master, crew = world_of(seed, quorum == "all", two_phase, loss, crashes, lose_files, apply_late=apply_late, deadline_s=deadline_s)
    assert master.finished and len(master.records) == 5
    for worker in crew:
        assert [exit_.refused for exit_ in worker.exits] == [False]
        for round_, accepted in worker.settled:
            stored = master.records[round_].get(worker.worker) == "accepted" and round_ not in late_rounds(master, worker.worker)
            assert accepted == (stored or (worker.worker, round_) in master.applied), "what a worker settled is what was stored"
        # Who was told that the run is over before it heard the last verdict keeps its proposal. A reset is agreed on with one
        # master process: whose file was lost and who came back too late for the last one was never told.
        futures = [worker.chain] + ([commit(worker.chain, worker.pending)] if worker.pending >= 0 else [])
        told = not worker.lost or worker.session is not None and worker.session[0] == master.boots
        assert not told or master.chain(worker.worker) in futures
    states = [state for record in master.records for state in record.values()]
    if quorum == "all":
        assert len(states) == 5 * len(crew)
    if not any(worker.lost for worker in crew):
        assert master.resets == 0, "nothing is lost that nobody lost"
        assert quorum == "deadline" or "missing" not in states


def late_rounds(master, worker):
    """The rounds whose accepted upload of that worker was computed in an earlier one."""
    return [round_ for (who, _), round_ in master.applied.items() if who == worker]


def test_the_storms_apply_late_updates():
    """So that the storms above are about something."""
    worlds = [world_of(seed, False, False, 0.1, 2, False, apply_late=True) for seed in range(20)]
    assert sum(len(master.applied) for master, _ in worlds) > 5
    assert all(master.resets == 0 for master, _ in worlds)


@pytest.mark.parametrize("apply_late", [False, True])
def test_the_storms_leave_workers_out_and_take_them_in_again(apply_late):
    worlds = [world_of(seed, False, False, 0.3, 0, False, max_rounds=20, apply_late=apply_late) for seed in range(40)]
    back = [1 for master, _ in worlds if master.left_out and "missing" not in master.records[-1].values() and len(master.records[-1]) == 3]
    assert sum(master.left_out for master, _ in worlds) > 3 and len(back) > 1
    assert all(master.resets == 0 for master, _ in worlds)


def test_without_trouble_a_run_is_what_its_machines_say():
    master, crew = world_of(1, all_=True, two_phase=False, loss=0.0, crashes=0, lose_files=False)
    skips = {(worker, round_) for worker in range(3) for round_ in range(5) if (7 * worker + 3 * round_) % 5 == 0}
    assert master.records == [
        {worker: "skipped" if (worker, round_) in skips else "accepted" for worker in range(3)} for round_ in range(5)]
    assert [worker.settled for worker in crew] == [
        [(round_, (worker.worker, round_) not in skips) for round_ in range(5)] for worker in crew]
    assert master.resets == 0 and master.boots == 1
