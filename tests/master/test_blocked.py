"""A disk that fills up: the run waits, says so, and goes on where it was when there is room."""

import threading

from flq import config
from flq.errors import ProtocolError
from flq.master.run_store import RunStore
from flq.master.service import Service
from flq.master.status import status
from flq.protocol import round_machine as machine
from flq.simulation.local_client import LocalClient
from flq.worker.loop import Worker
from flq.worker.state_file import InMemory
from tests.system.processes import VARYING, wait_until
from tests.system.quadratic import Quadratic, simulate_here

SETTINGS = ["total_workers=2", "max_rounds=40", "quorum=all", "model.name=cnn", "mode=laq8"]


def refused(service, worker):
    """True when a request is answered 503; between two tries the round is being closed, and requests are taken."""
    try:
        service.heartbeat(worker.session)
    except ProtocolError as error:
        assert error.name == "blocked" and error.kind.status == 503
        return True
    return False


def test_a_full_disk_blocks_the_run_and_room_lets_it_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "BLOCKED_RETRY_S", 0.2)
    settings = config.load(None, SETTINGS).config
    learner = Quadratic(settings)
    store = RunStore(tmp_path / "run", {})
    service = Service(settings, learner, store, "run")
    service.start()
    workers = [Worker(m, LocalClient(service, m), learner, settings, "run", InMemory(), str) for m in range(2)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(service.records) >= 2, "two rounds are stored")
        # SQLite's own limit: it then reports a full disk, as the operating system would.
        with store._lock:
            store._db.execute("PRAGMA max_page_count=1")
        wait_until(lambda: status(service)["phase"] == "BLOCKED", "the run is blocked")
        stored = len(service.records)
        told = status(service)["error"]
        assert str(store.path) in told and "bytes of room" in told
        wait_until(lambda: refused(service, workers[0]), "workers are told")
        assert len(service.records) == stored
        with store._lock:
            store._db.execute("PRAGMA max_page_count=1073741823")
        for thread in threads:
            thread.join(120)
        assert service.wait_for_end(60)
        rounds = [{key: value for key, value in record.to_json().items() if key not in VARYING} for record in service.records]
    finally:
        service.close()
    expected, _ = simulate_here(tmp_path / "simulated", SETTINGS)
    assert [record["params_hash"] for record in rounds] == [record["params_hash"] for record in expected]
