#!/usr/bin/env python3
"""How soon a killed program is back, and what being durable costs a round.

    python benchmarks/recovery.py times [--repeat 5]
    python benchmarks/recovery.py writes [--workers 4 20] [--rounds 30]
    python benchmarks/recovery.py starts [--workers 4] [--history 30 300 1000] [--repeat 5]

times: real programs, the mlp on digits, two workers. The master, or a worker's process, is killed
and started again at once. Seconds from that start, beside what `import tensorflow` takes in a
process of its own, measured in turn; the processor time of both too, since seconds depend on who
shares the machine.

writes: the updates of benchmarks/round_time.py (p = 467,818). What a round writes, as the kernel
counts it (write_bytes in /proc/PID/io: what goes to the disk), and how long the master's commit and
a worker's write of its state take by themselves.

starts: the same updates. A master is killed after so many rounds, and one is started on what it
left: seconds, processor seconds and peak memory until it answers /status. It computes again at most
what took 2 s (LONGEST_REPLAY_S), however long the run is.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import requests  # noqa: E402

from benchmarks.kills import PROGRAMS  # noqa: E402
from benchmarks.round_time import TableLearner  # noqa: E402
from flq import config  # noqa: E402
from tests.system.processes import Site, wait_until  # noqa: E402

TASK = [
    "dataset.name=digits", "model.name=mlp", "total_workers=2", "quorum=all", "mode=laq",
    "entropy_coding=false", "max_rounds=1000000"
]
TICKS = os.sysconf("SC_CLK_TCK")


def processor_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS  # utime, stime


class Stopwatch:
    """Seconds and processor seconds of a process since its start."""

    def __init__(self, process):
        self._pid, self._started = process.pid, time.monotonic()

    def read(self):
        return time.monotonic() - self._started, processor_s(self._pid)


def import_of_tensorflow():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True,
                   stderr=subprocess.DEVNULL, env=dict(os.environ, CUDA_VISIBLE_DEVICES="",
                                                       TF_CPP_MIN_LOG_LEVEL="2"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(
    ) - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def status_of(master):
    try:
        return master.status()
    except requests.RequestException:
        return None


def restart_master(site, master, scripts):
    """(until it answers, until the next round is closed), each (seconds, processor seconds); and
    the new master.
    """
    port = master.port
    done = master.status()["current_round"]
    master.kill()
    master = site.master(*TASK, port=port, script=scripts["master"])
    watch = Stopwatch(master.process)
    wait_until(lambda: status_of(master), "the master answers")
    answers = watch.read()
    wait_until(lambda: (status_of(master) or {"current_round": 0})["current_round"] > done + 1,
               "the next round is closed")
    return {"answers": answers, "next round": watch.read()}, master


def restart_worker(site, master, worker, scripts, name):
    uploads = master.status()["worker_status"]["0"]["uploads"]
    worker.kill()
    worker = site.worker("0", master, script=scripts["worker"], name=name)
    watch = Stopwatch(worker.process)
    worker.wait_for_text("registered with run")
    registered = watch.read()
    wait_until(lambda: master.status()["worker_status"]["0"]["uploads"] > uploads + 1,
               "its update is in a round")
    return {"registered": registered, "first update": watch.read()}, worker


def times(arguments):
    scripts, rows = PROGRAMS["real"], {"master": [], "worker": []}
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        site = Site(Path(folder))
        try:
            master = site.master(*TASK, script=scripts["master"])
            worker = site.worker("0", master, script=scripts["worker"])
            site.worker("1", master, script=scripts["worker"])
            master.wait_for_round(10)
            for index in range(arguments.repeat):
                tensorflow = import_of_tensorflow()
                found, master = restart_master(site, master, scripts)
                rows["master"].append(dict(found, tensorflow=tensorflow))
                tensorflow = import_of_tensorflow()
                found, worker = restart_worker(site, master, worker, scripts, f"again-{index}")
                rows["worker"].append(dict(found, tensorflow=tensorflow))
        finally:
            site.close()
    print(f"load average {os.getloadavg()[1]:.1f}")
    print(
        "| killed | until | s, median (all) | import s, median | s beyond it, median | processor s "
        "beyond it, median |\n"
        "|---|---|---|---|---|---|")
    for who, found in rows.items():
        for until in [name for name in found[0] if name != "tensorflow"]:
            seconds = [row[until][0] for row in found]
            beyond = [[row[until][index] - row["tensorflow"][index] for row in found]
                      for index in (0, 1)]
            print("| {} | {} | {:.1f} ({}) | {:.1f} | {:.1f} | {:.1f} |".format(
                who, until, statistics.median(seconds),
                ", ".join(f"{value:.1f}" for value in seconds),
                statistics.median(row["tensorflow"][0] for row in found),
                *map(statistics.median, beyond)))


# --- what is written


class Meter:
    """Times every call of a method, and looks at what this process has written after each."""

    def __init__(self, owner, name):
        self._method, self.seconds, self.written = getattr(owner, name), [], []
        setattr(owner, name, lambda *arguments: self(*arguments))

    def __call__(self, *arguments):
        started = time.perf_counter()
        self._method(*arguments)
        self.seconds.append(time.perf_counter() - started)
        text = Path("/proc/self/io").read_text()
        self.written.append(
            next(
                int(line.split()[1]) for line in text.splitlines()
                if line.startswith("write_bytes")))

    def save(self, path):
        Path(path).write_text(json.dumps({"seconds": self.seconds, "written": self.written}))


def table_master(workers, rounds):
    """Run a master of table updates in this directory, to its end -> its exit code."""
    from flq.master import process
    settings = config.load(None, [
        f"total_workers={workers}", f"max_rounds={rounds}", "quorum=all", "entropy_coding=false",
        "b_down=4", "partition=local", "save_results=false", "log_level=WARNING"
    ]).config
    options = process.Options(settings, set(), "127.0.0.1", 0, "run", False, True, "token", "port")
    return process.run(options, lambda _: TableLearner(), None)


def master_role(arguments):
    from flq.master.store.run_store import RunStore
    meter = Meter(RunStore, "commit_round")
    code = table_master(arguments.workers[0], arguments.rounds)
    meter.save("master.json")
    return code


def worker_role(arguments):
    from flq.worker import process
    from flq.worker.state_file import StateFile
    meter = Meter(StateFile, "save")
    options = process.Options(range(arguments.workers[0]),
                              "http://127.0.0.1:" + Path("port").read_text().strip(),
                              config.load(None, []), "token", 30.0, False, "state", None)
    code = process.run(options, lambda *_: TableLearner())
    meter.save("workers.json")
    return code


def writes(arguments):
    print(
        "| workers | master: bytes a round | commit ms, median | p90 | a worker: bytes a round | "
        "state ms, median | p90 |\n"
        "|---|---|---|---|---|---|---|")
    for workers in arguments.workers:
        with tempfile.TemporaryDirectory(prefix="recovery-", dir=arguments.folder) as folder:
            base = [
                sys.executable, __file__, "writes", "--workers",
                str(workers), "--rounds",
                str(arguments.rounds), "--role"
            ]
            processes = [subprocess.Popen(base + ["master"], cwd=folder, stdout=subprocess.DEVNULL)]
            wait_until((Path(folder) / "port").exists, "the master listens")
            processes.append(subprocess.Popen(base + ["worker"], cwd=folder))
            codes = [process.wait() for process in processes]
            if any(codes):
                raise SystemExit(f"a process failed: exit codes {codes}")
            found = [
                json.loads((Path(folder) / name).read_text())
                for name in ("master.json", "workers.json")
            ]
        row = [str(workers)]
        for told, per_round in zip(found, (1, workers)):
            skipped = 3 * per_round  # what is made once
            seconds = sorted(told["seconds"][skipped:])
            calls = len(told["written"]) - skipped
            written = (told["written"][-1] - told["written"][skipped - 1]) / calls
            row += [f"{written:,.0f}", f"{1000 * statistics.median(seconds):.1f}",
                    f"{1000 * seconds[int(0.9 * len(seconds))]:.1f}"]
        print("| " + " | ".join(row) + " |", flush=True)


# --- how a start grows with the history


class TableMaster:
    """A master of table updates in a folder, watched from its start on."""

    def __init__(self, folder, workers):
        (Path(folder) / "port").unlink(missing_ok=True)
        self.folder, self.process = Path(folder), subprocess.Popen([
            sys.executable, __file__, "starts", "--workers",
            str(workers), "--rounds", "1000000", "--role", "endless"
        ], cwd=folder, stdout=subprocess.DEVNULL)
        watch = Stopwatch(self.process)
        wait_until(self.rounds_done, "the master answers", 120)
        self.started = watch.read()
        about = Path(f"/proc/{self.process.pid}/status").read_text()
        self.peak_mb = next(
            int(line.split()[1]) / 1024 for line in about.splitlines() if line.startswith("VmHWM"))

    def rounds_done(self):
        """A text, which is true also for round 0; None while it does not answer."""
        try:
            port = int((self.folder / "port").read_text())
            answer = requests.get(f"http://127.0.0.1:{port}/status", timeout=5)
        except (OSError, ValueError):
            return None
        return str(answer.json()["current_round"])

    def kill(self):
        self.process.kill()
        self.process.wait()


def endless_role(arguments):
    return table_master(arguments.workers[0], arguments.rounds)


def starts(arguments):
    print("| workers | rounds in the store | run.db and its log, MB "
          "| s until it answers, median (all) | processor s, median | peak memory, MB, median |\n"
          "|---|---|---|---|---|---|")
    for workers in arguments.workers:
        for history in arguments.history:
            with tempfile.TemporaryDirectory(prefix="recovery-", dir=arguments.folder) as folder:
                fill(folder, workers, history)
                size = sum(
                    path.stat().st_size for path in Path(folder, "run").glob("run.db*")) / 1e6
                found = []
                for _ in range(arguments.repeat):
                    master = TableMaster(folder, workers)
                    rounds = master.rounds_done()
                    master.kill()
                    found.append((*master.started, master.peak_mb))
            seconds, used, peak = zip(*found)
            print(f"| {workers} | {rounds} | {size:.0f} | {statistics.median(seconds):.2f} "
                  f"({', '.join(f'{value:.2f}' for value in seconds)}) "
                  f"| {statistics.median(used):.2f} | {statistics.median(peak):.0f} |", flush=True)


def fill(folder, workers, rounds):
    """Leave the store of a master that was killed after so many rounds."""
    master = TableMaster(folder, workers)
    worker = subprocess.Popen([
        sys.executable, __file__, "starts", "--workers",
        str(workers), "--role", "worker"
    ], cwd=folder)
    try:
        wait_until(lambda: int(master.rounds_done()) >= rounds, f"{rounds} rounds", 3600)
    finally:
        for process in (worker, master.process):
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(
        description="how soon a killed program is back, and what being durable costs a round")
    parser.add_argument("what", choices=("times", "writes", "starts"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+",
                        help="default: 4 and 20; of starts 4")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folder",
                        help="on the disk to measure (default: where temporary files are)")
    parser.add_argument("--history", type=int, nargs="+", default=[30, 300, 1000],
                        help="rounds that the master has done before it is killed")
    parser.add_argument("--role", choices=("master", "worker", "endless"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.workers = arguments.workers or ([4] if arguments.what == "starts" else [4, 20])
    if arguments.role:
        return {"master": master_role, "worker": worker_role,
                "endless": endless_role}[arguments.role](arguments)
    {"times": times, "writes": writes, "starts": starts}[arguments.what](arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
