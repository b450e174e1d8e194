"""The files of a run: there after every kind of end, the same from run.db, and closed once the run
is over.
"""

import json
import signal
import sys

import pytest

from flq.reports.run_files import DIRECTIONS
from tests.system.counting_proxy import CountingProxy
from tests.system.processes import wait_until
from tests.system.test_faults import disk  # noqa: F401  # a fixture

SETTINGS = ("total_workers=2", "quorum=all", "mode=laq", "max_rounds=400")
PEOPLE = ("config.json", "history.json", "summary.json")


def restarted(site, port, *settings):
    """The master once more, where its workers look for it."""
    (site.directory / "master.port").unlink()
    return site.master(*SETTINGS, *settings, port=port)


def play_until(site, round_, *settings):
    master = site.master(*SETTINGS, *settings)
    workers = [site.worker(str(m), master, SECONDS_OF_TRAINING="0.01") for m in range(2)]
    master.wait_for_round(round_)
    return master, workers


def read(master, name):
    return json.loads((master.run_dir / name).read_text())


def sums(rounds, kind):
    return {
        direction: sum(record[f"{kind}_bits_{direction}"] for record in rounds)
        for direction in DIRECTIONS
    }


def report(site, name, command, *arguments):
    program = site.start(name, sys.executable, "-m", "flq", command, *arguments)
    assert program.wait() == 0, program.text()
    return program.text()


def bytes_of(directory):
    return {
        path.name: path.read_bytes() for path in directory.iterdir()
        if path.suffix in (".json", ".xlsx", ".png")
    }


def test_wire_bits_are_those_of_the_whole_run_after_kills(own_site):
    """A proxy in front of each worker counts what travelled, over a master that is killed twice and
    interrupted once.
    """
    master = own_site.master(*SETTINGS, "max_rounds=60")
    port = master.port
    proxies = [CountingProxy(port) for _ in range(2)]
    try:
        workers = [
            own_site.worker(str(m), master, url=proxies[m].url, SECONDS_OF_TRAINING="0.01")
            for m in range(2)
        ]
        for round_, end in ((10, signal.SIGKILL), (25, signal.SIGTERM), (40, signal.SIGKILL)):
            master.wait_for_round(round_)
            master.end(end)
            master = restarted(own_site, port, "max_rounds=60")
        assert [worker.wait() for worker in workers] == [0, 0] and master.wait() == 0
        rounds, summary = read(master, "history.json")["rounds"], read(master, "summary.json")
        travelled = {
            direction: 8 * sum(getattr(proxy, direction) for proxy in proxies)
            for direction in DIRECTIONS
        }
        for direction in DIRECTIONS:
            shown = summary["bits"][direction]
            assert shown["wire"] == sums(rounds, "wire")[direction] and shown["payload"] == sums(
                rounds, "payload")[direction]
            # What a killed process had taken from the socket or given to it and not counted yet is
            # at most a message for each worker.
            assert abs(shown["wire"] - travelled[direction]) <= 3 * 2 * 8 * 2000, (shown["wire"],
                                                                                   travelled)
        assert f"{summary['compression']['up']['wire']:.1f}x" in report(
            own_site, "report", "report", "master-run")
    finally:
        for proxy in proxies:
            proxy.close()


def test_a_finished_run_that_is_started_again_keeps_every_byte(own_site):
    settings = ("max_rounds=5", "save_results=true")
    master, workers = play_until(own_site, 3, *settings)
    assert [worker.wait() for worker in workers] == [0, 0] and master.wait() == 0
    before, files = bytes_of(master.run_dir), sorted(master.run_dir.iterdir())
    wire = (master.run_dir / "run.wire").read_bytes()
    assert {*PEOPLE, "run.png"} - set(before) <= {"run.png"} and any(
        name.endswith(".xlsx") for name in before)
    again = own_site.master(*SETTINGS, *settings, options=(), name="again", run_dir="master-run")
    again.wait_for_phase("FINISHED")
    late = own_site.worker("0", again, name="late")
    assert late.wait() == 0
    assert again.status()["bits"] == read(master, "summary.json")["bits"]
    metrics = again.ask("GET", "/metrics").text
    assert (
        f"flq_bits_total{{direction=\"up\",kind=\"wire\"}} "
        f"{read(master, 'summary.json')['bits']['up']['wire']}"
        in metrics)
    assert again.end(signal.SIGTERM)[0] == 0
    assert own_site.simulate(*SETTINGS, *settings, options=["--resume"],
                             run_dir="master-run").wait() == 0
    assert bytes_of(master.run_dir) == before and sorted(master.run_dir.iterdir()) == files
    assert (master.run_dir / "run.wire").read_bytes() == wire


def refuse_the_last_plot(run_dir):
    """A folder where the last file of the results belongs, so that the disk refuses that one;
    returns it.
    """
    folder = run_dir / "bits_by_round.png"
    folder.mkdir(parents=True)
    return folder


def check_all_is_there(run_dir):
    names = sorted(path.name for path in run_dir.iterdir() if path.is_file())
    assert {*PEOPLE, "bits_by_round.png"} <= set(names) and len(
        [name for name in names if name.endswith(".xlsx")]) == 1
    assert not [name for name in names if name.endswith(".new")]


def test_results_that_the_disk_refused_are_written_by_the_next_start(own_site):
    settings = ("max_rounds=5", "save_results=true")
    folder = refuse_the_last_plot(own_site.directory / "master-run")
    master, workers = play_until(own_site, 0, *settings)
    assert [worker.wait() for worker in workers] == [0, 0] and master.wait() == 1
    assert master.text().splitlines()[-1] == master.errors(
    )[0] and "make room and start the master with --run_dir" in master.errors()[0]
    folder.rmdir()
    again = own_site.master(*SETTINGS, *settings, options=(), name="again", run_dir="master-run")
    again.wait_for_phase("FINISHED")
    assert again.end(signal.SIGTERM)[0] == 0
    check_all_is_there(master.run_dir)


def test_a_report_without_room_ends_with_one_line(own_site, disk):  # noqa: F811
    assert own_site.simulate("total_workers=2", "max_rounds=2", run_dir="disk").wait() == 0
    disk.fill()
    program = own_site.start("report", sys.executable, "-m", "flq", "report", "disk")
    assert program.wait() == 4
    assert program.text().splitlines()[-1] == program.errors(
    )[0] and "cannot write disk/flq_results" in program.errors()[0]
    assert not list((own_site.directory / "disk").glob("*.new"))
    for command in (("compare", "disk", "--out", "both"), ("backup", "disk", "copy.db")):
        assert own_site.start(command[0], sys.executable, "-m", "flq",
                              *command).wait() == 0, "it reads there and writes elsewhere"


def test_results_of_a_simulation_that_the_disk_refused_are_written_by_the_next_start(own_site):
    folder = refuse_the_last_plot(own_site.directory / "simulation-run")
    first = own_site.simulate("total_workers=2", "max_rounds=2", "save_results=true",
                              options=["--resume"])
    assert first.wait() == 1 and "make room and go on with --resume" in first.errors()[0]
    folder.rmdir()
    second = own_site.simulate("total_workers=2", "max_rounds=2", "save_results=true",
                               options=["--resume"], name="again", run_dir="simulation-run")
    assert second.wait() == 0
    check_all_is_there(own_site.directory / "simulation-run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_master_that_is_asked_to_end_writes_what_there_is(own_site, number):
    master, workers = play_until(own_site, 5, "save_results=true")
    assert master.end(number)[0] == 0
    rounds, summary = read(master, "history.json")["rounds"], read(master, "summary.json")
    assert summary["phase"] == "UNFINISHED" and summary["rounds"] == len(rounds) >= 5
    assert any(path.suffix == ".xlsx" for path in master.run_dir.iterdir())
    for worker in workers:
        worker.kill()
    assert f"UNFINISHED after {len(rounds)} rounds" in report(own_site, "report", "report",
                                                              "master-run")


def test_a_killed_run_can_be_reported_and_compared(own_site):
    master, workers = play_until(own_site, 5)
    assert read(master, "config.json")["system"]["max_rounds"] == 400, "it is there from the start"
    report(own_site, "live", "report", "master-run")
    assert master.order("PATCH", "/config", {"max_rounds": 500}).status_code == 200
    master.end(signal.SIGKILL)
    for worker in workers:
        worker.kill()
    assert not (master.run_dir / "history.json").exists()
    text = report(own_site, "report", "report", "master-run")
    assert "UNFINISHED after" in text and ".xlsx" in text
    text = report(own_site, "compare", "compare", "master-run", "master-run", "--out", "both")
    assert text.count("laq") == 2 and (own_site.directory / "both").is_dir()
    assert " of 500 rounds" in text and " of 400 rounds" not in text


def test_a_master_that_played_no_round_ends_without_results(own_site):
    master = own_site.master(*SETTINGS)
    master.wait_for_phase("WAITING")
    assert master.end(signal.SIGTERM)[0] == 0
    assert sorted(path.name for path in master.run_dir.iterdir()
                  if path.suffix == ".json") == ["config.json"]
    for command, more in (("report", ()), ("compare", ("--out", "both"))):
        program = own_site.start(command, sys.executable, "-m", "flq", command, "master-run", *more)
        assert program.wait() == 4 and "has no round yet" in program.errors()[0]


def test_an_operator_is_obeyed_after_a_kill(own_site):
    master, workers = play_until(own_site, 3)
    answer = master.order("PATCH", "/config", {"model.lr": 0.125})
    assert answer.status_code == 200 and master.order("POST",
                                                      "/workers/1/remove").status_code == 200
    port = master.port
    master.end(signal.SIGKILL)
    master = restarted(own_site, port)
    assert workers[1].wait() == 3, "removed"
    wait_until(lambda: master.status()["current_round"] > answer.json()["effective_round"] + 1,
               "the run goes on")
    rounds = master.get("/history")["rounds"]
    assert rounds[-1]["server_lr"] == 0.125 and rounds[-1]["selected"] == [0]
    assert master.status()["worker_status"]["1"]["state"] == "removed"
