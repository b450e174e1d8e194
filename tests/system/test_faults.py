"""Full, read-only and damaged disks, clocks that jump, masters that move, signals at the wrong
moment (protocol.md 4).
"""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.processes import history_of, wait_until
from tests.system.quadratic import QUADRATIC_REPLAY, simulate_here
from tests.system.test_same_run import REAL_PROGRAMS

SETTINGS = ["total_workers=2", "max_rounds=8", "quorum=all", "mode=laq", "eval_every=1"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return simulate_here(tmp_path_factory.mktemp("undisturbed") / "run", SETTINGS)


class SmallDisk:
    """A tmpfs of 8 MiB."""

    def __init__(self, path):
        self.path, self._ballast = path, path / "ballast"

    def fill(self):
        with open(self._ballast, "ab", buffering=0) as file:
            for size in (65536, 4096):  # to the last page
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self):
        self._ballast.unlink()

    def remount(self, option):
        subprocess.run(
            ["mount", "-o", "remount," + option, str(self.path)], check=True, capture_output=True)


@pytest.fixture
def disk(own_site):
    """Skipped where this user may not mount."""
    path = own_site.directory / "disk"
    path.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs",
                        str(path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a tmpfs")
    yield SmallDisk(path)
    own_site.close()
    subprocess.run(["umount", "-l", str(path)], check=True)


def check_end(master, workers, undisturbed):
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    assert history_of(master.run_dir) == undisturbed


def test_a_full_disk_blocks_the_master_and_room_lets_it_go_on(own_site, disk, undisturbed):
    master = own_site.master(*SETTINGS, run_dir="disk")
    workers = [own_site.worker(m, master, SECONDS_OF_TRAINING="0.1") for m in (0, 1)]
    master.wait_for_round(2)
    disk.fill()
    master.wait_for_phase("BLOCKED")
    error = master.status()["error"]
    assert "disk/run.db" in error and "full" in error and "bytes of room" in error
    assert "\n" not in error

    def refusal():
        """503; a request that meets one of the tries is told what else is wrong with it, as
        tests/master/test_service.py shows.
        """
        answer = master.ask(
            "POST", "/register", master.worker_token(0), json={
                "protocol": 1, "worker_id": 0, "instance": "1" * 32, "num_samples": 100,
                "partition_hash": "", "shapes_hash": "", "params_hash": ""
            })
        return (answer.json(), answer.headers) if answer.status_code == 503 else None

    document, headers = wait_until(refusal, "a registration meets no try")
    assert document["error"] == "blocked" and headers[
        "Retry-After"] == "2" and "run.db" in document["message"]
    assert [worker.process.poll() for worker in workers] == [None, None]
    disk.free()
    check_end(master, workers, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_programs_on_a_full_disk_end_when_they_are_asked_to(own_site, disk, number):
    master = own_site.master(*SETTINGS, run_dir="disk")
    workers = [
        own_site.worker(m, master, "--state_dir", "disk", SECONDS_OF_TRAINING="0.1") for m in (0, 1)
    ]
    master.wait_for_round(2)
    disk.fill()
    workers[0].wait_for_text("cannot write the worker's state")
    for program in workers + [master]:
        code, seconds = program.end(number)
        assert code == 0 and seconds < 10 and "Traceback" not in program.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_blocked_master_and_its_workers_end_when_they_are_asked_to(own_site, disk, number):
    master = own_site.master(*SETTINGS, run_dir="disk")
    workers = [own_site.worker(m, master, SECONDS_OF_TRAINING="0.1") for m in (0, 1)]
    master.wait_for_round(2)
    disk.fill()
    master.wait_for_phase("BLOCKED")
    for program in (workers[0], master, workers[1]):
        code, seconds = program.end(number)
        assert code == 0 and seconds < 10 and "Traceback" not in program.text()


def test_results_without_room_are_one_line_and_the_store_is_whole(own_site, disk):
    settings = [
        "total_workers=2", "max_rounds=100000", "quorum=deadline", "min_workers=1",
        "round_deadline_s=0.5", "worker_timeout_s=10", "mode=laq"
    ]
    master = own_site.master(*settings, run_dir="disk")
    workers = [own_site.worker(m, master, SECONDS_OF_TRAINING="0.1") for m in (0, 1)]
    wait_until(lambda: master.status()["members"] == 2, "both take part")
    # the master waits for it at the end, and writes its files afterwards
    workers[1].process.send_signal(signal.SIGSTOP)
    master.order("PATCH", "/config", {"max_rounds": master.status()["current_round"] + 2})
    master.wait_for_phase("FINISHED")
    wait_until(lambda: master.get("/history")["rounds"][-1]["accuracy"] is not None,
               "the last model is tested")
    disk.fill()
    assert master.wait() == 1 and len(master.errors()) == 1
    line = master.errors()[0]
    assert "cannot write" in line and " disk/" in line and "full" in line
    assert "the rounds are stored" in line
    assert "Traceback" not in master.text()
    disk.free()
    workers[1].kill()
    assert workers[0].wait() == 0
    again = own_site.master(*settings, run_dir="disk")
    assert again.wait() == 0 and history_of(again.run_dir)[0][-1]["accuracy"] is not None
    replay = own_site.start("replay", *QUADRATIC_REPLAY, "disk")
    assert replay.wait() == 0


def test_a_master_on_a_read_only_disk_ends_with_one_line_and_goes_on_when_it_is_mended(
        own_site, disk, undisturbed):
    master = own_site.master(*SETTINGS, run_dir="disk")
    workers = [own_site.worker(m, master, SECONDS_OF_TRAINING="0.1") for m in (0, 1)]
    master.wait_for_round(2)
    master.kill()  # a disk with files that are open for writing does not become read-only
    disk.remount("ro")
    refused = own_site.master(*SETTINGS, run_dir="disk", port=master.port)
    assert refused.wait() == 1 and len(refused.errors()) == 1
    assert "disk" in refused.errors()[0] and "read-only" in refused.errors()[0].lower()
    disk.remount("rw")
    check_end(own_site.master(*SETTINGS, run_dir="disk", port=master.port), workers, undisturbed)


def test_a_worker_without_room_for_its_state_waits_and_goes_on(own_site, disk, undisturbed):
    master = own_site.master(*SETTINGS)
    workers = [
        own_site.worker(0, master, "--state_dir", "disk", SECONDS_OF_TRAINING="0.1"),
        own_site.worker(1, master)
    ]
    master.wait_for_round(2)
    disk.fill()
    workers[0].wait_for_text("cannot write the worker's state disk/worker-0.state")
    assert "No space left on device" in workers[0].text() and workers[0].process.poll() is None
    disk.free()
    check_end(master, workers, undisturbed)
    assert workers[0].text().count("cannot write the worker's state") == 1


def test_a_worker_on_a_read_only_disk_waits_and_goes_on(own_site, disk, undisturbed):
    master = own_site.master(*SETTINGS)
    workers = [
        own_site.worker(0, master, "--state_dir", "disk", SECONDS_OF_TRAINING="0.1"),
        own_site.worker(1, master)
    ]
    master.wait_for_round(2)
    # Its lock is open for writing, so the disk as a whole cannot be made read-only; a bind mount
    # over it can.
    subprocess.run(["mount", "--bind", str(disk.path), str(disk.path)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(disk.path)], check=True)
    try:
        workers[0].wait_for_text("Read-only file system")
        assert workers[0].process.poll() is None
    finally:
        subprocess.run(["umount", "-l", str(disk.path)], check=True)
    check_end(master, workers, undisturbed)


def test_damaged_files_are_one_clear_line_each(own_site):
    master = own_site.master(*SETTINGS)
    workers = [own_site.worker(m, master, SECONDS_OF_TRAINING="0.1") for m in (0, 1)]
    master.wait_for_round(2)
    for program in workers + [master]:
        program.kill()
    state, store = own_site.directory / "state" / "worker-0.state", master.run_dir / "run.db"
    os.truncate(state, 500)  # before its journal: of that a last step may be missing
    worker = own_site.worker(0, own_site.master(*SETTINGS, name="other"), name="damaged")
    assert worker.wait() == 4 and len(worker.errors()) == 1 and str(
        state) in worker.errors()[0] and "delete it" in worker.errors()[0]
    for log in ("-wal", "-shm"):  # with its log SQLite would mend the store
        os.unlink(str(store) + log)
    os.truncate(store, 1000)
    again = own_site.master(*SETTINGS)
    assert again.wait() == 1 and len(
        again.errors()) == 1 and "run.db" in again.errors()[0] and "backup" in again.errors()[0]


def test_a_clock_that_jumps_changes_nothing(own_site, undisturbed):
    master = own_site.master(*SETTINGS, CLOCK_JUMPS="1")
    workers = [
        own_site.worker(m, master, CLOCK_JUMPS="1", SECONDS_OF_TRAINING="0.05") for m in (0, 1)
    ]
    check_end(master, workers, undisturbed)


def test_a_master_may_come_back_at_another_address(own_site, undisturbed):
    master = own_site.master(*SETTINGS)
    workers = [own_site.worker(m, master, SECONDS_OF_TRAINING="0.05") for m in (0, 1)]
    master.wait_for_round(3)
    for program in workers + [master]:
        program.kill()
    (own_site.directory / "master.port").unlink()
    moved = own_site.master(*SETTINGS)
    check_end(moved, [own_site.worker(m, moved, name=f"moved-{m}") for m in (0, 1)], undisturbed)


def test_a_worker_that_is_killed_while_it_trains_is_missed_and_comes_back(own_site, undisturbed):
    """What the kernel does to the largest process when the memory is used up."""
    master = own_site.master(*SETTINGS)
    workers = [own_site.worker(0, master, SECONDS_OF_TRAINING="60"), own_site.worker(1, master)]
    wait_until(lambda: master.status()["worker_status"].get("0", {}).get("state") == "training",
               "worker 0 trains")
    assert workers[0].end(signal.SIGKILL)[0] == -9
    workers[0] = own_site.worker(0, master, name="again")
    check_end(master, workers, undisturbed)


@pytest.mark.parametrize("program", ["master", "worker"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_asked_to_end_while_tensorflow_loads_ends(own_site, program, number):
    if program == "master":
        victim = own_site.master("total_workers=1", script=REAL_PROGRAMS["master"])
    else:
        master = own_site.master("total_workers=1", "dataset.name=digits")
        victim = own_site.worker(0, master, script=REAL_PROGRAMS["worker"])
    maps = Path(f"/proc/{victim.process.pid}/maps")
    wait_until(lambda: "tensorflow" in maps.read_text(), "TensorFlow is loading")
    code, seconds = victim.end(number)
    assert code == 0 and seconds < 5
