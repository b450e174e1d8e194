"""python -m flq export --tensorboard beside a master that plays, and over kills of either."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.system.processes import wait_until

pytest.importorskip("tensorboardX", reason="event files need it: pip install tensorboardX")
pytest.importorskip("tensorboard", reason="it reads the files: pip install tensorboard")

SETTINGS = ("total_workers=2", "quorum=all", "mode=laq", "max_rounds=60", "save_results=false")

# A process of its own: TensorBoard loads TensorFlow where there is one.
READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
reader = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
reader.Reload()
print(json.dumps({tag: [(event.step, event.value) for event in reader.Scalars(tag)]
                  for tag in reader.Tags()["scalars"]}))
"""


def scalars(folder):
    return json.loads(subprocess.run([sys.executable, "-c", READ, str(folder)], check=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def event_files(folder):
    return [path for path in folder.iterdir() if "tfevents" in path.name]


def written(folder):
    """When each event file was written: two that are made in one second have the same name."""
    times = []
    for path in event_files(folder):
        with contextlib.suppress(FileNotFoundError):  # the older one is removed
            times.append(path.stat().st_ctime_ns)
    return times


def export(site, name, *options):
    return site.start(name, sys.executable, "-m", "flq", "export", *options)


def check_all_is_there_once(master):
    assert len(event_files(master.run_dir)) == 1
    rounds = json.loads((master.run_dir / "history.json").read_text())["rounds"]
    found = scalars(master.run_dir)
    assert [step for step, _ in found["train/loss"]] == list(range(60))
    for tag, field in (("test/accuracy", "accuracy"), ("bits/up_payload", "payload_bits_up"),
                       ("bits/down_wire", "wire_bits_down")):
        assert found[tag] == [[record["round"], pytest.approx(record[field], rel=1e-6)]
                              for record in rounds if record[field] is not None]


def test_a_run_is_followed_over_kills_without_a_step_twice(own_site):
    master = own_site.master(*SETTINGS)
    workers = [own_site.worker(str(m), master, SECONDS_OF_TRAINING="0.05") for m in range(2)]
    master.wait_for_round(3)
    follower = export(own_site, "first", "master-run", "--tensorboard", "--follow")
    wait_until(lambda: event_files(master.run_dir), "the event file is there")
    wait_until(lambda: len(scalars(master.run_dir)["train/loss"]) > 5, "it grows")
    follower.end(signal.SIGKILL)
    port = master.port
    master.end(signal.SIGKILL)
    (own_site.directory / "master.port").unlink()
    follower = export(own_site, "second", "master-run", "--tensorboard", "--follow")
    master = own_site.master(*SETTINGS, port=port)
    assert [worker.wait() for worker in workers] == [0, 0] and master.wait() == 0
    assert follower.wait() == 0, follower.text()
    assert "saved: " in follower.text()
    check_all_is_there_once(master)


def test_a_folder_of_runs_is_exported_and_ctrl_c_ends_a_follower(own_site):
    # A run that does not end by itself, however late the follower is.
    master = own_site.master(*SETTINGS, "max_rounds=100000")
    worker = own_site.worker("0-1", master, SECONDS_OF_TRAINING="0.2")
    master.wait_for_round(3)
    once = export(own_site, "once", ".", "--tensorboard")
    assert once.wait() == 0 and len(event_files(master.run_dir)) == 1, once.text()
    first = written(master.run_dir)
    follower = export(own_site, "follower", ".", "--tensorboard", "--follow")
    wait_until(lambda: written(master.run_dir) not in (first, []), "a new file is there")
    assert follower.end(signal.SIGINT)[0] == 0, follower.text()
    assert "stopped" in follower.text()
    worker.kill()


def test_what_cannot_be_exported_is_one_line(own_site):
    for folder, words in (("nowhere", "there is no run in nowhere"),
                          (".", "there is no run in .")):
        program = export(own_site, "none", folder, "--tensorboard")
        assert program.wait() == 2 and words in program.errors()[0]
    bare = own_site.start("bare", sys.executable, "-m", "flq", "export", "x")
    assert bare.wait() == 2 and "--tensorboard" in bare.errors()[0]


def test_a_missing_package_is_one_line(own_site, tmp_path):
    (tmp_path / "tensorboardX.py").write_text(
        "raise ModuleNotFoundError('no', name='tensorboardX')")
    program = own_site.start("missing", sys.executable, "-m", "flq", "export", "x", "--tensorboard",
                             PYTHONPATH=os.pathsep.join([str(tmp_path)] + sys.path))
    assert program.wait() == 2 and "pip install tensorboardX" in program.errors()[0]
