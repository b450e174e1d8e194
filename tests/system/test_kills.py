"""kill -9 at the named points and at others: the run goes on and ends as if nothing had happened
(protocol.md 4).
"""

from pathlib import Path

import pytest

from flq.master.store.run_store import PAGE_BYTES
from flq.worker import journal
from tests.system.processes import history_of, wait_until
from tests.system.quadratic import QUADRATIC_REPLAY, check_replay, simulate_here

# One phase with silent workers, two phases with a budget; together the three memories, and a
# reference below rate 1.
CASES = {
    "one_phase": ["mode=laq", "thr_scale=100", "local_lr=0.2"],
    "two_phases": [
        "mode=bbit", "sel_clients=2", "radius=block", "block_size=16", "radius_down=block",
        "block_size_down=16"
    ],
    "no_memory": ["mode=qsgd", "model.name=softmax"],
    "cohorts": [
        "mode=laq", "cohorts=2", "max_rounds=12", "downlink=rd", "entropy_coding_down=context"
    ],
    "slow_memory": ["mode=bin", "memory_rate=0.3"],
    "history": ["downlink=rd", "entropy_coding_down=context"],
    "histories_up": [
        "mode=rd", "memory_rate=0.3", "cohorts=2", "max_rounds=12", "entropy_coding=context"
    ],
    "rule": ["mode=rd", "memory_rate=0.4", "aggregation=centered_clipping"],
}
POINTS = [("one_phase", "master", "commit.before:4"), ("one_phase", "master", "commit.after:4"),
          ("one_phase", "master", "adopt.before:3"), ("one_phase", "master", "answer.before:5"),
          ("one_phase", "master", "ending.before:2"),
          ("one_phase", "worker", "state.append.before:3"),
          ("one_phase", "worker", "state.rename.after:2"),
          ("one_phase", "worker", "state.append.torn:5"),
          ("no_memory", "worker", "state.append.torn:4"),
          ("two_phases", "worker", "state.append.after:2"),
          ("two_phases", "master", "commit.before:3"), ("two_phases", "master", "answer.before:9"),
          ("two_phases", "worker", "state.rename.before:3"),
          ("two_phases", "worker", "answer.after:7"),
          ("two_phases", "master", "commit.after:8"), ("no_memory", "master", "adopt.before:4"),
          ("no_memory", "worker", "answer.after:4"), ("slow_memory", "master", "commit.after:4"),
          ("slow_memory", "worker", "state.append.torn:4"),
          ("cohorts", "master", "commit.before:4"), ("cohorts", "master", "adopt.before:3"),
          ("cohorts", "master", "answer.before:7"),
          ("cohorts", "worker", "state.append.fsync.before:3"),
          ("cohorts", "worker", "answer.after:3"),
          ("history", "master", "commit.after:4"),
          ("history", "worker", "state.append.after:4"),
          ("histories_up", "master", "commit.before:5"),
          ("histories_up", "master", "commit.after:6"),
          ("histories_up", "worker", "state.append.torn:3"),
          ("histories_up", "worker", "state.fsync.before:2"),
          ("histories_up", "worker", "answer.after:4"),
          ("rule", "master", "commit.after:4"), ("rule", "master", "adopt.before:3"),
          ("rule", "worker", "state.append.after:5"), ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return {
        name: simulate_here(tmp_path_factory.mktemp(name) / "run", settings_of(name))
        for name in CASES
    }


def settings_of(case):
    return ["total_workers=3", "max_rounds=8", "quorum=all"] + CASES[case]


@pytest.mark.parametrize("case, who, point", POINTS, ids=["-".join(words) for words in POINTS])
def test_a_kill_leaves_no_trace(own_site, uninterrupted, case, who, point):
    settings = settings_of(case)
    doomed = {"FLQ_CRASH_AT": point, "MOST_STEPS": "2"}
    master = own_site.master(*settings, **(doomed if who == "master" else {}))
    port = master.port
    workers = [
        own_site.worker("0", master, **(doomed if who == "worker" else {})),
        own_site.worker("1-2", master)
    ]
    victim = master if who == "master" else workers[0]
    assert victim.wait() == -9, "the point was not reached"
    if who == "master":
        master = own_site.master(*settings, port=port)
    else:
        workers[0] = own_site.worker("0", master, name="again")
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    assert history_of(master.run_dir) == uninterrupted[case]


@pytest.mark.parametrize("point", ["store.commit.before:1", "store.rename.before:1"])
def test_a_kill_while_the_store_is_made_leaves_a_folder_to_begin_in(own_site, point):
    assert own_site.master("total_workers=1", "max_rounds=2",
                           FLQ_CRASH_AT=point).wait() == -9, "the point was not reached"
    master = own_site.master("total_workers=1", "max_rounds=2")
    worker = own_site.worker("0", master)
    assert [worker.wait(), master.wait()] == [0, 0]
    assert not list(master.run_dir.glob("*.new*"))


def start_workers(site, master, training_s, name="worker"):
    """Workers 0 to 2 as two processes."""
    return [site.worker(ids, master, name=f"{name}-{ids}", SECONDS_OF_TRAINING=training_s)
            for ids in ("0", "1-2")]


@pytest.mark.parametrize("case, round_", [("two_phases", 3), ("cohorts", 5)])
def test_everybody_killed_at_once(own_site, uninterrupted, case, round_):
    settings = settings_of(case)
    master = own_site.master(*settings)
    port = master.port
    workers = start_workers(own_site, master, "0.05")
    master.wait_for_round(round_)
    for program in workers + [master]:
        program.kill()
    master = own_site.master(*settings, port=port)
    workers = start_workers(own_site, master, "0", "again")
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    assert history_of(master.run_dir) == uninterrupted[case]
    check_replay(own_site)


def lose_the_last_steps(state):
    """A file as it was rounds ago, with the beginning of a step."""
    steps = state.read_bytes().split(journal.MAGIC)
    state.write_bytes(journal.MAGIC.join(steps[:3]) + journal.MAGIC)


@pytest.mark.parametrize("case, round_, lose", [
    ("one_phase", 2, Path.unlink), ("history", 2, Path.unlink),
    ("one_phase", 4, lose_the_last_steps)], ids=["all", "all-history", "the last steps"])
def test_a_lost_state_file_or_an_old_one_resets_one_reference_and_the_run_goes_on(
        own_site, case, round_, lose):
    settings = [text for text in settings_of(case) if text not in ("thr_scale=100", "local_lr=0.2")]
    master = own_site.master(*settings)
    workers = start_workers(own_site, master, "0.1")
    master.wait_for_round(round_)
    workers[0].kill()
    lose(own_site.directory / "state" / "worker-0.state")
    workers[0] = own_site.worker("0", master, "--take_over", name="again")
    wait_until(lambda: master.status()["worker_status"]["0"]["resets"] == 1,
               "the reference is reset")
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    check_replay(own_site)


def test_with_a_deadline_the_run_ends_and_replay_gives_its_model(own_site):
    # A worker that a slow machine leaves standing for worker_timeout_s counts as gone, and its
    # master does not wait for it at the end.
    settings = [
        "total_workers=3", "max_rounds=12", "quorum=deadline", "min_workers=2",
        "start_workers=3", "round_deadline_s=1", "worker_timeout_s=5", "absent_rounds=2",
        "mode=laq"
    ]
    master = own_site.master(*settings)
    workers = start_workers(own_site, master, "0.1")
    master.wait_for_round(3)
    workers[0].kill()
    master.wait_for_round(8)
    assert [program.wait() for program in workers[1:] + [master]] == [0, 0]
    rounds, rows = history_of(master.run_dir)
    assert len(rounds) == 12 and any(row["state"] == "missing"
                                     for row in rows) and rounds[-1]["members"] == 2
    check_replay(own_site)


def test_a_second_master_and_another_configuration_are_refused(own_site):
    master = own_site.master("total_workers=1", "max_rounds=3")
    master.wait_for_phase("WAITING")
    second = own_site.master("total_workers=1", "max_rounds=3", port=0)
    assert second.wait() == 2 and "another master uses" in second.errors()[0]
    master.kill()
    other = own_site.master("total_workers=1", "max_rounds=3", "seed=7")
    assert other.wait() == 2 and "dataset.seed" in other.errors(
    )[0] and "expected 0; got 7" in other.errors()[0]


def test_a_damaged_store_is_one_clear_line(own_site):
    master = own_site.master("total_workers=1", "max_rounds=3")
    worker = own_site.worker("0", master)
    assert [worker.wait(), master.wait()] == [0, 0]
    store = master.run_dir / "run.db"
    data = bytearray(store.read_bytes())
    data[PAGE_BYTES:2 * PAGE_BYTES] = bytes(PAGE_BYTES)
    store.write_bytes(data)
    again = own_site.master("total_workers=1", "max_rounds=3")
    assert again.wait() == 1 and len(again.errors()) == 1 and str(store.name) in again.errors()[0]


def test_two_workers_on_one_state_file_are_refused(own_site):
    master = own_site.master("total_workers=2", "quorum=all", "max_rounds=3")
    first = own_site.worker("0", master)
    first.wait_for_text("registered")
    second = own_site.worker("0", master, name="second")
    assert second.wait() == 2 and "in use by another process" in second.errors()[0]


def back_up(site):
    """A copy of the store of the live run of `master`, as the run `copy`; returns its folder."""
    copy = site.directory / "copy"
    copy.mkdir()
    assert site.start("backup", *QUADRATIC_REPLAY[:2], "backup", "master-run",
                      "copy/run.db").wait() == 0
    return copy


@pytest.mark.parametrize("case", ["two_phases", "history", "rule"])
def test_backup_of_a_live_run_can_be_continued(own_site, uninterrupted, case):
    settings = settings_of(case)
    master = own_site.master(*settings)
    port = master.port
    workers = start_workers(own_site, master, "0.1")
    master.wait_for_round(3)
    copy = back_up(own_site)
    for program in workers + [master]:
        program.kill()
    # An older store: the workers are ahead of it, their references are set to 0 on both sides, and
    # the run ends.
    restored = own_site.master(*settings, name="copy", run_dir="copy", port=port)
    workers = start_workers(own_site, restored, "0", "again")
    assert [program.wait() for program in workers + [restored]] == [0, 0, 0]
    assert len(history_of(copy)[0]) == 8


def test_an_older_store_resets_every_reference_once_and_says_so(own_site):
    settings = ["total_workers=3", "max_rounds=100000", "quorum=all", "mode=laq"]
    master = own_site.master(*settings)
    port = master.port
    workers = start_workers(own_site, master, "0.02")
    master.wait_for_round(3)
    back_up(own_site)
    master.wait_for_round(master.status()["current_round"] + 2)
    for program in workers + [master]:
        program.kill()
    restored = own_site.master(*settings, name="copy", run_dir="copy", port=port)
    workers = start_workers(own_site, restored, "0", "again")
    wait_until(
        lambda: [worker["resets"]
                 for worker in restored.status()["worker_status"].values()] == [1, 1, 1],
        "each is reset once")
    assert 'flq_worker_resets_total{worker="2"} 1\n' in restored.ask("GET", "/metrics").text
    assert "does not share this worker's reference: both start again from 0" in workers[0].text()
    restored.order("PATCH", "/config", {"max_rounds": restored.status()["current_round"] + 3})
    assert [program.wait() for program in workers + [restored]] == [0, 0, 0]
    check_replay(own_site, "copy")
