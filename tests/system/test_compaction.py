"""Run, stop, compact, go on: the model of the run that was never stopped (protocol.md 4)."""

import signal

import pytest

from tests.system.processes import history_of
from tests.system.quadratic import QUADRATIC_REPLAY, check_replay, simulate_here


@pytest.mark.parametrize("cohorts", [1, 2])
def test_a_run_that_was_compacted_half_way_ends_with_the_same_model(own_site, tmp_path, cohorts):
    settings = [
        "total_workers=3", "max_rounds=10", "quorum=all", "mode=laq", f"cohorts={cohorts}"
    ]
    master = own_site.master(*settings)
    port = master.port
    workers = own_site.worker("0-2", master, SECONDS_OF_TRAINING="0.1")
    master.wait_for_round(4)
    # On a busy machine the run would be over before the next program has begun.
    assert master.order("POST", "/pause").status_code == 200
    busy = own_site.start("busy", *QUADRATIC_REPLAY[:2], "compact", "master-run")
    assert busy.wait() == 2 and "another master uses" in busy.errors()[0]
    assert master.end(signal.SIGTERM)[0] == 0
    compaction = own_site.start("compact", *QUADRATIC_REPLAY[:2], "compact", "master-run")
    assert compaction.wait() == 0 and "compacted at version" in compaction.text()
    master = own_site.master(*settings, port=port)
    master.wait_for_text("results: master-run")  # it listens
    assert master.order("POST", "/resume").status_code == 200
    assert [workers.wait(), master.wait()] == [0, 0]
    rounds, _ = history_of(master.run_dir)
    assert rounds == simulate_here(tmp_path / "whole", settings)[0]
    assert "were compacted: the audit starts" in check_replay(own_site)


@pytest.mark.parametrize("point", ["compact.before:1", "compact.after:1"])
def test_a_compaction_that_is_killed_leaves_the_run_as_it_was_or_compacted(
        own_site, tmp_path, point):
    settings = ["total_workers=3", "max_rounds=8", "quorum=all", "mode=laq"]
    master = own_site.master(*settings, FLQ_CRASH_AT="commit.after:4")
    port = master.port
    workers = own_site.worker("0-2", master)
    assert master.wait() == -9
    compaction = own_site.start("compact", *QUADRATIC_REPLAY[:2], "compact", "master-run",
                                FLQ_CRASH_AT=point)
    assert compaction.wait() == -9, "the point was not reached"
    replay = own_site.start("replay", *QUADRATIC_REPLAY, "master-run")
    assert replay.wait() == 0 and ("were compacted"
                                   in replay.text()) == point.startswith("compact.after")
    again = own_site.start("again", *QUADRATIC_REPLAY[:2], "compact", "master-run")
    assert again.wait() == 0 and "compacted at version 4" in again.text()
    master = own_site.master(*settings, port=port)
    assert [workers.wait(), master.wait()] == [0, 0]
    assert history_of(master.run_dir) == simulate_here(tmp_path / "whole", settings)
