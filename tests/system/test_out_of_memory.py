"""Workers whose device runs out of memory, as real processes: one goes on in halves, one says what
is wrong and ends.
"""

from tests.system.processes import history_of
from tests.system.test_same_run import REAL_PROGRAMS

ROUNDS = 2
ALLOW = ("--allow", "tests.learning.small_memory")


def test_one_worker_goes_on_in_halves_and_one_ends_with_a_line(site):
    master = site.master("total_workers=2", "min_workers=1", f"max_rounds={ROUNDS}", "mode=laq8",
                         "dataset.name=digits",
                         "model.name=tests.learning.small_memory:room_of_the_process",
                         script=REAL_PROGRAMS["master"])
    small = site.worker(1, master, *ALLOW, script=REAL_PROGRAMS["worker"], ROOM="15")
    assert small.wait() == 4
    assert len([
        line for line in small.text().splitlines()
        if "out of memory with 16 samples at a time" in line
    ]) == 1, small.text()
    assert "lower dataset.batch_size" in small.text() and "Traceback" not in small.text()
    halves = site.worker(0, master, *ALLOW, script=REAL_PROGRAMS["worker"], ROOM="16")
    assert halves.wait() == 0 and master.wait() == 0
    assert halves.text().count("each is computed in two halves from now on") == 1
    _, rows = history_of(master.run_dir)
    assert [row["round"] for row in rows
            if row["worker"] == 0 and row["state"] == "accepted"] == list(range(ROUNDS))
