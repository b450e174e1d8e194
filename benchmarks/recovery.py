#!/usr/bin/env python3
"""How soon a killed program is back, and what being durable costs a round.

    python benchmarks/recovery.py times [--repeat 5]
    python benchmarks/recovery.py writes [--workers 4 20] [--rounds 160]
    python benchmarks/recovery.py history [--workers 2] [--rounds 10 100 1000]

times: real programs, the mlp on digits, two workers. The master, or a worker's process, is killed
and started again at once. Seconds from that start, beside what `import tensorflow` takes in a
process of its own, measured in turn; the processor time of both too, since seconds depend on who
shares the machine.

writes: the updates of benchmarks/round_time.py (p = 467,818). What a round writes, as the kernel
counts it (write_bytes in /proc/PID/io: what goes to the disk), how often it asks the disk to be
sure (fsync and fdatasync, as strace counts them), and how long the master's commit and a worker's
write of its state take by themselves, for `laq` coded as by default and with 4 plain bits both
ways. A worker writes a step, and now and then its whole state; or, as before there were steps, its
whole state each time. What a slow disk would take is computed from the counts: bytes at 10 MB/s,
and 10 ms for each fsync.

history: runs of so many rounds with the same updates, simulated. A new process opens each store and
recovers the run, as a master does before it answers: seconds, what it reads (from the disk or from
memory), and its largest resident memory, beside the size of the store. What must be computed again
is what came after the last checkpoint, at most 2 s of it.
"""

import argparse
import itertools
import json
import os
import re
import resource
import shutil
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
LEVELS = {"coded": [], "4 bits": ["entropy_coding=false", "entropy_coding_down=false", "b_down=4"]}
SLOW_BYTES_S, SLOW_FSYNC_S = 1e7, 0.01
COUNT_FSYNCS = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync", "-e",
                "signal=none", "-o")
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


def master_role(arguments):
    from flq.master import process
    from flq.master.store.run_store import RunStore
    meter = Meter(RunStore, "commit_round")
    settings = config.load(None, [
        f"total_workers={arguments.workers[0]}", f"max_rounds={arguments.rounds[0]}", "quorum=all",
        "partition=local", "save_results=false", "cohorts=1", "log_level=WARNING",
        *LEVELS[arguments.levels]
    ]).config
    options = process.Options(settings, set(), "127.0.0.1", 0, "run", False, True, "token", "port")
    code = process.run(options, lambda _: TableLearner(), None)
    meter.save("master.json")
    return code


def worker_role(arguments):
    from flq.worker import process, state_file
    if arguments.whole:
        state_file.MOST_STEPS = 0
    meter = Meter(state_file.StateFile, "save")
    options = process.Options(range(arguments.workers[0]),
                              "http://127.0.0.1:" + Path("port").read_text().strip(),
                              config.load(None, []), "token", 30.0, False, "state", None)
    code = process.run(options, lambda *_: TableLearner())
    meter.save("workers.json")
    return code


def writes(arguments):
    print(
        "| workers | levels | a worker writes | master: bytes a round | fsyncs | commit ms, median "
        "| p90 | on the slow disk, ms | a worker: bytes a round | fsyncs | state ms, median | p90 "
        "| on the slow disk, ms |\n" + "|---" * 13 + "|")
    for workers, levels, whole in itertools.product(arguments.workers, LEVELS, (True, False)):
        row = [str(workers), levels, "its whole state" if whole else "a step"]
        for told, per_round in zip(written_by(workers, levels, whole, arguments), (1, workers)):
            skipped = 3 * per_round  # what is made once
            seconds = sorted(told["seconds"][skipped:])
            calls = len(told["written"]) - skipped
            written = (told["written"][-1] - told["written"][skipped - 1]) / calls
            fsyncs = told["fsyncs"] / len(told["written"])
            row += [f"{written:,.0f}", f"{fsyncs:.2f}", f"{1000 * statistics.median(seconds):.1f}",
                    f"{1000 * seconds[int(0.9 * len(seconds))]:.1f}",
                    f"{1000 * (written / SLOW_BYTES_S + fsyncs * SLOW_FSYNC_S):.0f}"]
        print("| " + " | ".join(row) + " |", flush=True)


def written_by(workers, levels, whole, arguments):
    """What the meters of the master and of the workers' process noted, and the fsyncs of each."""
    if shutil.which(COUNT_FSYNCS[0]) is None:
        raise SystemExit("strace counts the fsyncs, and it is not here: install it")
    with tempfile.TemporaryDirectory(prefix="recovery-", dir=arguments.folder) as folder:
        base = [
            sys.executable, os.path.abspath(__file__), "writes", "--workers", str(workers),
            "--rounds", str(arguments.rounds[0]), "--levels", levels,
            *(["--whole"] if whole else []), "--role"
        ]
        processes = [subprocess.Popen([*COUNT_FSYNCS, "master.fsyncs", *base, "master"], cwd=folder,
                                      stdout=subprocess.DEVNULL)]
        wait_until((Path(folder) / "port").exists, "the master listens")
        processes.append(subprocess.Popen([*COUNT_FSYNCS, "workers.fsyncs", *base, "worker"],
                                          cwd=folder))
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"a process failed: exit codes {codes}")
        return [
            dict(json.loads((Path(folder) / (name + ".json")).read_text()),
                 fsyncs=len(re.findall(r"sync\(", (Path(folder) / (name + ".fsyncs")).read_text())))
            for name in ("master", "workers")
        ]


# --- with a long history


def play_role(arguments):
    """A run of so many rounds, in the folder `run`."""
    from flq.simulation.run import simulate
    settings = config.load(None, [
        f"total_workers={arguments.workers[0]}", f"max_rounds={arguments.rounds[0]}", "quorum=all",
        "entropy_coding=false", "b_down=4", "eval_every=1000000", "cohorts=1",
        "log_level=WARNING"
    ]).config
    simulate(settings, "run", TableLearner())
    return 0


def start_role(arguments):
    """What a master does on that folder before it answers."""
    from flq.master.run.opening import recover
    from flq.master.store.run_store import RunStore
    from flq.master.stored.stored_run import stored_config
    learner = TableLearner()
    before, started = _bytes_read(), time.perf_counter()
    store = RunStore(Path("run"))
    meta = store.meta()
    run = recover(stored_config(meta["config"]), learner, store, meta["run_id"], None, 0.0).run
    seconds = time.perf_counter() - started
    assert run.model.version == arguments.rounds[0]
    Path("start.json").write_text(
        json.dumps({
            "seconds": seconds, "read": _bytes_read() - before,
            "resident": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        }))
    store.close()
    return 0


def _bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])


def history(arguments):
    workers = arguments.workers[0]
    print(f"{workers} workers\n\n"
          "| rounds | run.db, MB | start s, median (all) | read at the start, MB | resident, MB |\n"
          "|---|---|---|---|---|")
    for rounds in arguments.rounds:
        with tempfile.TemporaryDirectory(prefix="recovery-", dir=arguments.folder) as folder:
            base = [sys.executable, __file__, "history", "--workers", str(workers), "--rounds",
                    str(rounds), "--role"]
            subprocess.run(base + ["play"], cwd=folder, check=True)
            found = []
            for _ in range(arguments.repeat):
                subprocess.run(base + ["start"], cwd=folder, check=True)
                found.append(json.loads((Path(folder) / "start.json").read_text()))
            size = (Path(folder) / "run" / "run.db").stat().st_size
        print("| {:,} | {:,.1f} | {:.2f} ({}) | {:.1f} | {:.0f} |".format(
            rounds, size / 1e6, statistics.median(told["seconds"] for told in found),
            ", ".join(f"{told['seconds']:.2f}" for told in found),
            statistics.median(told["read"] for told in found) / 1e6,
            max(told["resident"] for told in found) / 1e6), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description="how soon a killed program is back, and what being durable costs a round")
    parser.add_argument("what", choices=("times", "writes", "history"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+",
                        help="default: 4 20; history: 2")
    parser.add_argument("--rounds", type=int, nargs="+",
                        help="default: 160; history: 10 100 1000")
    parser.add_argument("--folder",
                        help="on the disk to measure (default: where temporary files are)")
    parser.add_argument("--levels", choices=LEVELS, default="coded", help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--role", choices=("master", "worker", "play", "start"),
                        help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    long = arguments.what == "history"
    arguments.workers = arguments.workers or ([2] if long else [4, 20])
    arguments.rounds = arguments.rounds or ([10, 100, 1000] if long else [160])
    if arguments.role:
        return {
            "master": master_role, "worker": worker_role, "play": play_role, "start": start_role
        }[arguments.role](arguments)
    {"times": times, "writes": writes, "history": history}[arguments.what](arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
