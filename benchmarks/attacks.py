#!/usr/bin/env python3
"""What one bad worker, or a stranger on the network, can do to a run.

    python benchmarks/attacks.py --out FOLDER --before OLDER_CHECKOUT

Each attack runs against real programs, once with those of an older checkout and once with these,
and the script prints a Markdown table "attack | before | now" of what became of the run. The
default configuration counts, on softmax and the digits; worker 0 is the attacker and holds a
valid token. --programs quadratic takes the learner of tests/system/quadratic.py, which needs no
TensorFlow; the tests run that. --only NAME runs some of the attacks.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(os.environ.get("FLQ_SOURCE") or Path(__file__).resolve().parent.parent)
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import requests  # noqa: E402

from tests.system.processes import QUADRATIC, Site  # noqa: E402

SCRIPT = Path(__file__).resolve()
WORKERS = 5
ATTACKER = 0
REAL = {"master": (ROOT / "flq_master.py",), "worker": (ROOT / "flq_worker.py",)}
TASK = {
    "quadratic": ("model.name=softmax",),
    "real": ("dataset.name=digits", "model.name=softmax", "init=zeros")
}
COMMON = (f"total_workers={WORKERS}", f"min_workers={WORKERS}", "save_results=false")


# --- the attacker's process


def lie(attack, result, worker, round_):
    """The update that the attacker sends in place of its own."""
    if worker != ATTACKER:
        return result
    if attack == "scale" and round_ == 5:
        return result._replace(update=np.full_like(result.update, 1e30))
    if attack == "drift":
        length = float(np.linalg.norm(result.update))
        axis = np.ones_like(result.update) / np.sqrt(result.update.size)
        return result._replace(update=(1 + round_) * 2 * length * axis.astype(np.float32))
    return result


def attack_as_worker(programs):
    """flq_worker.py whose learner, bids or uploads lie, by ATTACK in the environment."""
    attack = os.environ["ATTACK"]
    import flq.learning.learner
    from flq.algorithm import uplink
    from flq.worker.master_client import HttpClient
    build = flq.learning.learner.build_learner
    if programs == "quadratic":
        from tests.system.quadratic import Quadratic

        def build(settings, *_, **__):
            return Quadratic(settings)

    def lying(*arguments, **options):
        learner = build(*arguments, **options)
        update, samples = learner.local_update, learner.num_samples
        learner.local_update = lambda params, state, worker, round_: lie(
            attack, update(params, state, worker, round_), worker, round_)
        if attack == "samples":
            learner.num_samples = lambda worker: 2**40 if worker == ATTACKER else samples(worker)
        if attack == "most samples":
            learner.num_samples = lambda worker: 10**7 if worker == ATTACKER else samples(worker)
        return learner

    flq.learning.learner.build_learner = lying
    if attack == "promise":
        bid = uplink.Proposal.bid

        def boast(self, worker):
            told = bid(self, worker)
            return told._replace(options=tuple(
                option._replace(gain=1e30) for option in told.options))

        uplink.Proposal.bid = boast
        HttpClient.upload = lambda self, frame, wait_s: time.sleep(3600)
    import flq_worker
    return flq_worker.main()


# --- what is seen from outside


class Scene:
    """One attack on one checkout's programs."""

    def __init__(self, directory, programs, attack):
        self.site, self.programs, self.attack = Site(directory), programs, attack

    def master(self, *settings, options=("--exit_when_done",)):
        script = REAL["master"] if self.programs == "real" else (QUADRATIC, "master")
        return self.site.master(*TASK[self.programs], *COMMON, *settings, script=script,
                                options=options)

    def honest(self, ids, master, **variables):
        script = REAL["worker"] if self.programs == "real" else (QUADRATIC, "worker")
        return self.site.worker(ids, master, script=script, **variables)

    def attacker(self, master, *options, **variables):
        return self.site.worker(ATTACKER, master, *options, name="attacker",
                                script=(SCRIPT, "worker", self.programs), ATTACK=self.attack,
                                FLQ_SOURCE=str(ROOT), **variables)

    def run(self, *settings):
        """The rounds of a whole run with the attacker in it."""
        master = self.master(*settings)
        self.honest(f"1-{WORKERS - 1}", master)
        self.attacker(master)
        assert master.wait() == 0, master.tail()
        return json.loads((master.run_dir / "history.json").read_text())["rounds"]

    def close(self):
        self.site.close()


def accuracy(history):
    tested = [row["accuracy"] for row in history if row["accuracy"] is not None]
    return statistics.mean(tested[-5:])


def poisoned(scene):
    """The accuracy of a run with the attacker, whose start is that of an honest one."""
    history = scene.run("max_rounds=40")
    taken = sum(ATTACKER in row["selected"] for row in history)
    return {"accuracy": round(accuracy(history), 3),
            "its uploads": f"{taken} of {len(history)} taken"}


def samples(scene):
    """A worker says that it has 2^40 samples, with local data, and sends what drifts."""
    master = scene.master("max_rounds=30", "partition=local", "min_workers=1")
    attacker = scene.attacker(master, "--retry_for", "5")
    code = attacker.wait(60)
    return {"the worker": "refused" if code == 3 else f"taken (exit code {code})"}


def most_samples(scene):
    """The most that the cap allows: 10^7, and the honest ones have some hundred."""
    master = scene.master("max_rounds=12", "partition=local", options=())
    scene.honest(f"1-{WORKERS - 1}", master)
    scene.attacker(master)
    master.wait_for_phase("FINISHED")
    history = master.get("/history")["rounds"]
    return {"weight": f"a member in {sum(ATTACKER in row['selected'] for row in history)} of "
                      f"{len(history)} rounds"}


def promise(scene):
    """A bid that promises 1e30 and an upload that never comes, with one upload a round."""
    history = scene.run("max_rounds=16", "sel_clients=1", "round_deadline_s=1", "C=1000",
                        f"min_workers={WORKERS - 1}", "worker_timeout_s=60")
    lost = sum(not row["selected"] for row in history)
    return {"rounds without an upload": f"{lost} of {len(history)}"}


@contextlib.contextmanager
def half_requests(master, number):
    """Connections that say the first line of a request, and a byte now and then."""
    opened, over = [], threading.Event()

    def dribble():
        while not over.wait(0.5):
            for connection in opened:
                with contextlib.suppress(OSError):
                    connection.send(b"x")

    for _ in range(number):
        connection = socket.create_connection(("127.0.0.1", master.port), 5)
        connection.settimeout(1)
        with contextlib.suppress(OSError):
            connection.send(b"POST /register HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        opened.append(connection)
    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for connection in opened:
            connection.close()


def seen(master, seconds):
    """How long /status takes meanwhile, as others see it: the 99th percentile and failures."""
    took, failed, until = [], 0, time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.monotonic()
        try:
            # from another address than the attacker's
            with requests.Session() as session:
                session.trust_env = False
                session.mount("http://", FromAddress("127.0.0.9"))
                session.get(master.url + "/status", timeout=3).raise_for_status()
            took.append(time.monotonic() - started)
        except requests.RequestException:
            failed += 1
        time.sleep(0.05)
    p99 = f"{1000 * sorted(took)[int(0.99 * (len(took) - 1))]:.0f} ms" if took else "no answer"
    return p99, failed


class FromAddress(requests.adapters.HTTPAdapter):
    """Connections from a given address of this machine."""

    def __init__(self, address):
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        options["source_address"] = (self._address, 0)
        super().init_poolmanager(*arguments, **options)


def slow_loris(scene, number=200, seconds=10):
    master = scene.master("max_rounds=1000000", "min_workers=1", options=())
    scene.honest(f"1-{WORKERS - 1}", master, SECONDS_OF_TRAINING="0.05")
    master.wait_for_round(2)
    with half_requests(master, number):
        p99, failed = seen(master, seconds)
    return {"/status p99": p99, "not answered": failed}


def noise(scene):
    """Strangers' requests to a worker's endpoint, with a large body and no token that holds."""
    master = scene.master("max_rounds=1000000", options=())
    before = master.status()["bits"]["up"]["wire"]
    for _ in range(40):
        master.ask("POST", "/register", "flq1.0.wrong", data=b"x" * 60000)
    counted = master.status()["bits"]["up"]["wire"] - before
    operator = master.order("POST", "/pause").status_code
    return {"counted as the run's": f"{counted // 8000} kB of 2400", "the operator's next request":
            operator}


def polls(scene, number=100, seconds=5):
    """One session asks for the model on a hundred connections at once."""
    master = scene.master("max_rounds=1000000", "min_workers=5", options=())
    token = master.worker_token(ATTACKER)
    worker = scene.honest(f"1-{WORKERS - 2}", master)
    session = _session_of(master, token)
    over = threading.Event()

    def ask():
        while not over.is_set():
            with contextlib.suppress(requests.RequestException):
                requests.get(master.url + "/get_global_model?wait=30", timeout=40, headers={
                    "Authorization": "Bearer " + session, "Accept": "application/x-flq"})
                time.sleep(0.2)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    p99, failed = seen(master, seconds)
    over.set()
    assert worker.process.poll() is None
    return {"/status p99": p99, "not answered": failed}


def _session_of(master, token):
    from flq import config
    from flq.parameters import params_hash
    from flq.protocol import PROTOCOL_VERSION
    from tests.system.quadratic import Quadratic
    told = master.ask("POST", "/register", token,
                      json={"protocol": PROTOCOL_VERSION, "worker_id": ATTACKER}).json()
    learner = Quadratic(config.build({
        key: value for key, value in told["config"].items() if key in config.BY_PATH}))
    answer = master.ask("POST", "/register", token, json={
        "protocol": PROTOCOL_VERSION, "worker_id": ATTACKER, "instance": "attack",
        "num_samples": learner.num_samples(ATTACKER), "partition_hash": learner.partition_hash,
        "shapes_hash": learner.layout.hash(), "params_hash": params_hash(*learner.initial()).hex(),
        "device": {}, "states": [], "take_over": True})
    assert answer.status_code == 200, answer.text
    return answer.json()["session"]


ATTACKS = {
    "none": (poisoned, "none"),  # what the next two are compared with
    "scale": (poisoned, "one upload of 1e30"),
    "drift": (poisoned, "uploads that add up to a reference without end"),
    "samples": (samples, "2^40 samples, local data"),
    "most samples": (most_samples, "10^7 samples, local data"),
    "promise": (promise, "a bid of 1e30, and no upload"),
    "slow loris": (slow_loris, "200 slow connections"),
    "noise": (noise, "40 requests of 60 kB without a token"),
    "polls": (polls, "100 long polls of one session"),
}
ONLY_QUADRATIC = ("samples", "most samples", "polls")  # their learners take any number of samples


def stage(name, programs, directory=None):
    """What one attack does to the programs of this checkout."""
    programs = "quadratic" if name in ONLY_QUADRATIC else programs
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        scene = Scene(Path(folder), programs, name)
        try:
            return ATTACKS[name][0](scene)
        finally:
            scene.close()


def file_of(folder, name, when):
    return folder / f"{name.replace(' ', '_')}-{when}.json"


def in_words(found):
    return ", ".join(f"{what} {value}" for what, value in found.items())


def main():
    if sys.argv[1:2] == ["worker"]:
        programs = sys.argv[2]
        del sys.argv[1:3]
        return attack_as_worker(programs)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for what was found")
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--programs", choices=("real", "quadratic"), default="real")
    parser.add_argument("--only", nargs="+", choices=tuple(ATTACKS), default=list(ATTACKS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sources = {"now": ROOT, **({"before": arguments.before} if arguments.before else {})}
    for name in arguments.only:
        for when, source in sources.items():
            file = file_of(arguments.out, name, when)
            if file.exists():
                continue
            if source == ROOT:
                file.write_text(json.dumps(stage(name, arguments.programs)))
                continue
            # the programs of the other checkout, attacked by this script
            subprocess.run([sys.executable, SCRIPT, "--out", arguments.out.absolute() / "older",
                            "--programs", arguments.programs, "--only", name],
                           env={**os.environ, "FLQ_SOURCE": str(source.absolute())}, check=True)
            file_of(arguments.out / "older", name, "now").rename(file)
    print("| attack | before | now |\n|---|---|---|")
    for name in arguments.only:
        cells = []
        for when in ("before", "now"):
            file = file_of(arguments.out, name, when)
            cells.append(in_words(json.loads(file.read_text())) if file.exists() else "")
        print(f"| {ATTACKS[name][1]} | {cells[0]} | {cells[1]} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
