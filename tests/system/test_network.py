"""A network that loses, delays, repeats and cuts: the run ends, and what a worker was told is
stored (protocol.md 3 and 4).
"""

import contextlib
import time

import pytest

from flq.master.store.run_store import RunStore
from tests.system.misbehaving_proxy import MisbehavingProxy
from tests.system.processes import history_of, wait_until
from tests.system.quadratic import check_replay, simulate_here


@pytest.fixture
def connect(own_site):
    """connect(master, worker, trouble...) -> a worker behind its own proxy, which is closed when
    the test ends.
    """
    proxies = {}

    def start(master, worker, seconds="0.02", **trouble):
        proxies[worker] = MisbehavingProxy(master.port, seed=worker, **trouble)
        return own_site.worker(worker, master, url=proxies[worker].url, SECONDS_OF_TRAINING=seconds)

    start.proxies = proxies
    yield start
    own_site.close()
    for proxy in proxies.values():
        proxy.close()


def check_acknowledged(run_dir, proxies):
    """Every upload that its worker was told is accepted is in the store, with the chain that the
    worker was told.
    """
    store = RunStore(run_dir)
    with contextlib.closing(store):
        for worker, proxy in proxies.items():
            for round_, reference_hash in proxy.acknowledged.items():
                row, stored = store.answer(round_, worker)
                assert (row.state, stored.hex()) == ("accepted", reference_hash)


@pytest.mark.parametrize("case", ["mode=laq", "mode=bbit sel_clients=2"])
def test_loss_delay_and_duplicates_leave_no_trace(own_site, connect, case):
    settings = ["total_workers=3", "max_rounds=8", "quorum=all"] + case.split()
    master = own_site.master(*settings)
    workers = [
        connect(master, worker, delay_s=0.02, loss=0.1, duplicates=0.2) for worker in range(3)
    ]
    assert [program.wait() for program in workers + [master]] == [0, 0, 0, 0]
    assert history_of(master.run_dir) == simulate_here(own_site.directory / "whole", settings)
    counts = sum((proxy.counts for proxy in connect.proxies.values()),
                 type(connect.proxies[0].counts)())
    assert counts["duplicated"] and counts[
        "late"] and counts["cut request"] + counts["cut answer"], "the network was bad"
    assert all(proxy.acknowledged for proxy in connect.proxies.values())
    check_acknowledged(master.run_dir, connect.proxies)


def test_a_master_that_nobody_reaches_for_a_while_goes_on(own_site, connect):
    settings = ["total_workers=3", "max_rounds=12", "quorum=all", "mode=laq"]
    master = own_site.master(*settings)
    workers = [connect(master, worker) for worker in range(3)]
    master.wait_for_round(3)
    with contextlib.ExitStack() as stack:
        for proxy in connect.proxies.values():
            stack.enter_context(proxy.partition())
        stood = master.status()["current_round"]
        time.sleep(1.0)  # the length of the partition
        # what had passed already may have closed one round
        assert master.status()["current_round"] <= stood + 1
    assert [program.wait() for program in workers + [master]] == [0, 0, 0, 0]
    assert history_of(master.run_dir) == simulate_here(own_site.directory / "whole", settings)
    check_acknowledged(master.run_dir, connect.proxies)


def test_a_worker_that_is_cut_off_is_missed_and_comes_back(own_site, connect):
    settings = [
        "total_workers=3", "max_rounds=1000000", "quorum=deadline", "min_workers=2",
        "round_deadline_s=1", "worker_timeout_s=3", "mode=laq"
    ]
    master = own_site.master(*settings)
    workers = [connect(master, worker, seconds="0.1") for worker in range(3)]

    def state():
        return master.status()["worker_status"].get("0", {}).get("state")

    def uploads():
        return master.status()["worker_status"].get("0", {}).get("uploads", 0)

    wait_until(lambda: uploads() > 2, "worker 0 takes part")
    with connect.proxies[0].partition():
        wait_until(lambda: state() == "away", "it is missed")
        master.wait_for_round(master.status()["current_round"] + 3)
    before = uploads()
    wait_until(lambda: uploads() > before + 1, "it takes part again")
    master.order("PATCH", "/config", {"max_rounds": master.status()["current_round"] + 5})
    assert [program.wait() for program in workers + [master]] == [0, 0, 0, 0]
    check_acknowledged(master.run_dir, connect.proxies)
    check_replay(own_site)
