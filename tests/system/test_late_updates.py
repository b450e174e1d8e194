"""late_updates apply with real processes: one worker is too slow for every deadline, and either
side is killed.
"""

import pytest

from tests.system.processes import history_of, wait_until
from tests.system.quadratic import check_replay

SETTINGS = [
    "total_workers=3", "max_rounds=14", "quorum=deadline", "min_workers=2", "start_workers=3",
    "round_deadline_s=0.6", "worker_timeout_s=30", "mode=laq", "late_updates=apply"
]


def start_workers(site, master, fast="0.05", **slow):
    return [
        site.worker("0-1", master, SECONDS_OF_TRAINING=fast),
        site.worker("2", master, SECONDS_OF_TRAINING="1.4", **slow)
    ]


def check(site, master, workers):
    """Everybody ends, late updates were committed once each, and the audit finds what the store
    says.
    """
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    rounds, rows = history_of(master.run_dir)
    stale = [row for row in rows if row["staleness"]]
    assert any(row["worker"] == 2
               for row in stale) and all(row["state"] == "accepted" and row["payload_bits"] > 0
                                         for row in stale)
    computed_in = [(row["worker"], row["round"] - row["staleness"]) for row in rows
                   if row["state"] == "accepted"]
    assert len(computed_in) == len(set(computed_in))
    # a round that a killed master lost may have been opened again without the worker
    for row in stale:
        missed = rounds[row["round"] - row["staleness"]]
        assert row["worker"] in missed["late"] or row["worker"] not in missed["missing"]
    check_replay(site)


def test_the_updates_of_a_slow_worker_are_committed_late(own_site):
    master = own_site.master(*SETTINGS)
    workers = start_workers(own_site, master)
    check(own_site, master, workers)


@pytest.mark.parametrize("point", ["commit.before:6", "commit.after:6"])
def test_a_killed_master_goes_on(own_site, point):
    # so many that the slow worker is back before the others have done them all
    settings = SETTINGS + ["max_rounds=30"]
    master = own_site.master(*settings, FLQ_CRASH_AT=point)
    port = master.port
    workers = start_workers(own_site, master, fast="0.3")
    assert master.wait() == -9, "the point was not reached"
    master = own_site.master(*settings, port=port)
    check(own_site, master, workers)


@pytest.mark.parametrize("point", ["state.append.after:2", "answer.after:2"])
def test_a_killed_slow_worker_goes_on(own_site, point):
    master = own_site.master(*SETTINGS, "max_rounds=1000000", "absent_rounds=10000")
    workers = start_workers(own_site, master, FLQ_CRASH_AT=point)
    assert workers[1].wait() == -9, "the point was not reached"

    def uploads():
        return master.status()["worker_status"]["2"]["uploads"]

    before = uploads()
    workers[1] = own_site.worker("2", master, name="again", SECONDS_OF_TRAINING="1.4")
    wait_until(lambda: uploads() > before, "it takes part again")
    master.order("PATCH", "/config", {"max_rounds": master.status()["current_round"] + 5})
    check(own_site, master, workers)
    assert "does not share this worker's reference" not in workers[1].text()
