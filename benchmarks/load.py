#!/usr/bin/env python3
"""What a master costs and how it answers people while many workers play: processes on loopback,
many workers in each, no TensorFlow.

    python benchmarks/load.py --workers 8 64 512 2048 --rounds 12 --idle_s 20 --file load.jsonl

A command that was interrupted goes on where it was.

The protocol is the real one: workers register, wait in long polls, quantise updates from a table,
upload and keep their state files. The run is paused first, so that every worker waits in a long
poll while nothing happens; then its rounds are played. In both, one process asks in turn for
/healthz, which looks at nothing, for /status?brief=1 and for /status. Prints a Markdown table:
milliseconds until an answer was there, the master's threads, its processor time for an upload, and
its memory beyond what it took before the first worker came.
"""

import argparse
import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq import config  # noqa: E402
from flq.learning.initial import initial_params  # noqa: E402
from flq.learning.interface import Learner  # noqa: E402
from flq.parameters import Layout  # noqa: E402
from flq.records import Evaluation, LocalResult  # noqa: E402

LAYOUT = Layout(((40, 30), (30,)))
ROUTES = {"/healthz": "/healthz", "brief": "/status?brief=1", "/status": "/status"}
PAUSE_S = 0.02
LONGEST_S = 600.0


class TableLearner(Learner):
    """A learner that computes nothing: its updates were drawn beforehand."""

    layout = LAYOUT
    builtin_model = True
    partition_hash = ""

    def __init__(self):
        noise = np.random.RandomState(0)
        self._updates = [(0.01 * noise.standard_normal(LAYOUT.num_params)).astype(np.float32)
                         for _ in range(4)]

    def num_samples(self, worker):
        return 100

    def device(self):
        return {}

    def initial(self):
        return initial_params(LAYOUT, "glorot_uniform", 0), np.zeros(0, np.float32)

    def local_update(self, params, non_trainable, worker, round_):
        return LocalResult(self._updates[(worker + round_) % 4], non_trainable, 1.0, 1)

    def evaluate(self, params, non_trainable):
        return Evaluation(0.0, 0.0, 1)


def master(arguments):
    from flq.master import process
    settings = config.load(None, [
        f"total_workers={arguments.workers[0]}", f"max_rounds={arguments.rounds}", "quorum=all",
        "partition=local", "save_results=false", "log_level=ERROR"
    ]).config
    options = process.Options(settings, set(), "127.0.0.1", 0, "run", False, True, "token", "port")
    sys.exit(process.run(options, lambda _: TableLearner(), None))


def workers(arguments):
    from flq.worker import process
    options = process.Options(range(arguments.first, arguments.last), read("port"),
                              config.load(None, []), "token", LONGEST_S, False, "state", None)
    sys.exit(process.run(options, lambda *_: TableLearner()))


def read(name):
    return "http://127.0.0.1:" + Path(name).read_text().strip()


class Master:
    """The master's process, seen from outside, in the folder of its run."""

    def __init__(self, folder, process):
        self._folder, self.process = Path(folder), process
        wait_for(lambda: (self._folder / "port").exists() or process.poll() is not None)
        if process.poll() is not None:
            raise SystemExit("the master failed")
        self.url = read(self._folder / "port")

    def steer(self, what):
        token = (self._folder / "token").read_text().strip()
        request = urllib.request.Request(f"{self.url}/{what}", b"", method="POST",
                                         headers={"Authorization": "Bearer " + token})
        urllib.request.urlopen(request, timeout=60).close()

    def connected(self):
        """How many workers are there, None where it did not answer."""
        try:
            with urllib.request.urlopen(self.url + "/status?brief=1", timeout=60) as answer:
                return json.load(answer)["connected_workers"]
        except OSError:
            return None

    def used_s(self):
        """Its processor time until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """(kB that it holds now, its threads)."""
        lines = dict(line.split(":", 1) for line in Path(
            f"/proc/{self.process.pid}/status").read_text().splitlines() if ":" in line)
        return int(lines["VmRSS"].split()[0]), int(lines["Threads"])


class Probe:
    """One person's connection: how long each route's answer took, in seconds."""

    def __init__(self, url):
        self._address = url.partition("//")[2]
        self.seconds = {name: [] for name in ROUTES}
        self.lengths = dict.fromkeys(ROUTES, 0)

    def ask_until(self, is_over):
        """Ask for each route in turn until is_over(), or until the master has ended."""
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            while not is_over():
                for name, path in ROUTES.items():
                    started = time.perf_counter()
                    connection.request("GET", path)
                    data = connection.getresponse().read()
                    self.seconds[name].append(time.perf_counter() - started)
                    self.lengths[name] = len(data)
                    time.sleep(PAUSE_S)
        except (OSError, http.client.HTTPException):
            pass  # the run is over, and the master with it
        finally:
            connection.close()


def measure(number, arguments):
    """What is seen of one run, as rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--workers", str(number),
                   "--rounds", str(arguments.rounds)]
        processes = [subprocess.Popen(command + ["--role", "master"], cwd=folder,
                                      stdout=subprocess.DEVNULL)]
        try:
            seen = Master(folder, processes[0])
            seen.steer("pause")
            alone, _ = seen.memory()
            for first in range(0, number, arguments.in_a_process):
                processes.append(subprocess.Popen(
                    command + ["--role", "workers", "--first", str(first), "--last",
                               str(min(number, first + arguments.in_a_process))], cwd=folder,
                    stderr=subprocess.DEVNULL))  # a line for each worker that waits
            wait_for(lambda: seen.connected() == number)
            idle, end = Probe(seen.url), time.monotonic() + arguments.idle_s
            idle.ask_until(lambda: time.monotonic() >= end)
            rows = [Row("idle", idle, *seen.memory())]
            before, peak = seen.used_s(), [(0, 0)]
            seen.steer("resume")
            busy = Probe(seen.url)

            def is_over():
                peak.append(seen.memory())
                used.append(seen.used_s())
                return any(process.poll() is not None for process in processes)

            used = [before]
            busy.ask_until(is_over)
            codes = [process.wait(LONGEST_S) for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(codes):
            raise SystemExit(f"a process failed: exit codes {codes}")
        history = json.loads((Path(folder) / "run" / "history.json").read_text())["rounds"]
    closed = [record["closed_at"] for record in history]
    took = [after - earlier for earlier, after in zip(closed, closed[1:])]
    uploads = sum(len(record["selected"]) for record in history)
    rows.append(Row("rounds", busy, max(kb for kb, _ in peak), max(most for _, most in peak),
                    1 / statistics.median(took), 1e3 * (used[-1] - before) / uploads))
    return alone, rows


class Row:
    """A line of the table."""

    def __init__(self, what, probe, kb, threads, rounds_a_s=None, upload_ms=None):
        self.what, self.probe, self.kb, self.threads = what, probe, kb, threads
        self.rounds_a_s, self.upload_ms = rounds_a_s, upload_ms

    def text(self, number, alone):
        rounds = "" if self.rounds_a_s is None else f"{self.rounds_a_s:.2f}"
        upload = "" if self.upload_ms is None else f"{self.upload_ms:.2f}"
        answers = [f"{1e3 * quantile(self.probe.seconds[name], 0.5):.1f} / "
                   f"{1e3 * quantile(self.probe.seconds[name], 0.99):.1f}" for name in ROUTES]
        return (f"| {number} | {self.what} | {rounds} | {upload} | {(self.kb - alone) / 1e3:.1f} | "
                f"{(self.kb - alone) / number:.1f} | {self.threads} | {' | '.join(answers)} | "
                f"{self.probe.lengths['brief']} / {self.probe.lengths['/status']} |")


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def wait_for(condition):
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the processes did not come to play")
        time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 64, 512, 2048])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--idle_s", type=float, default=20.0)
    parser.add_argument("--file", default="load.jsonl",
                        help="each number of workers is added to it when it is measured, and one "
                        "that is in it is not measured again")
    parser.add_argument("--in_a_process", type=int, default=256, help="workers")
    parser.add_argument("--role", choices=("master", "workers"), help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.role:
        {"master": master, "workers": workers}[arguments.role](arguments)
        return
    print("| workers | while | rounds a s | processor ms an upload | MB | kB a worker | threads "
          "| /healthz p50 / p99, ms | /status?brief=1 | /status | bytes, brief / whole |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for number in arguments.workers:
        for line in kept(number, arguments) or keep(number, arguments):
            print(line, flush=True)


def kept(number, arguments):
    """The lines of the table that are in the file for this number of workers, None where none are.
    """
    path = Path(arguments.file)
    for line in path.read_text().splitlines() if path.exists() else ():
        found = json.loads(line)
        if (found["workers"], found["rounds"]) == (number, arguments.rounds):
            return found["lines"]
    return None


def keep(number, arguments):
    """Measure them, and add them to the file."""
    alone, rows = measure(number, arguments)
    lines = [row.text(number, alone) for row in rows]
    with open(arguments.file, "a") as file:
        file.write(json.dumps({"workers": number, "rounds": arguments.rounds,
                               "lines": lines}) + "\n")
    return lines


if __name__ == "__main__":
    main()
