#!/usr/bin/env python3
"""What a simulation of many workers costs, beside Flower's on Ray: the same data, model and local
update, each run in a process of its own, one after another.

    python benchmarks/simulate_scale.py --workers 64 256 1000 --rounds 3 --file scale.jsonl \\
        [--flower_python build/peers/flwr_simulation/bin/python]

Of each run, medians of the rounds after the first one: seconds, and processor seconds of all its
processes, which other work on the machine changes little. And the largest memory of its processes
together, once what is their own (anonymous pages and shared memory) and once with the pages of
mapped files that are in memory; a page that several of them share counts once (Pss). The third is
what it takes on the disk at most, files without a name included. What is measured is written to
--file at once, and not measured again: a command that was interrupted goes on where it was. Prints
a Markdown table.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TASK = ("dataset.name=fmnist", "model.name=cnn", "local_steps=1", "batch_size=32", "quorum=all",
        "cohorts=1", "log_level=WARNING")
SYSTEMS = ("FLQ laq", "FLQ fedavg", "Flower, Ray")
LOOK_EVERY_S = 0.5
TICKS = os.sysconf("SC_CLK_TCK")


def settings_of(system, workers, rounds, task):
    mode = "fedavg" if system == "Flower, Ray" else system.split()[1]
    return [*task, f"total_workers={workers}", f"max_rounds={rounds}", "mode=" + mode]


def command_of(system, settings, folder, arguments):
    if system == "Flower, Ray":
        return [arguments.flower_python, str(HERE / "peers" / "flower_simulation.py"),
                os.path.join(folder, "ends"), str(os.cpu_count()), *settings]
    command = [arguments.python or sys.executable, "-m", "flq", "simulate", "--quiet", "--run_dir",
               os.path.join(folder, "run")]
    for setting in [*settings, "save_results=false", "log_dir=" + folder]:
        command += ["--set", setting]
    return command


def measure(system, workers, arguments):
    """The line of one run."""
    settings = settings_of(system, workers, arguments.rounds, arguments.task)
    with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as folder:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="2",
                           CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", FLWR_HOME=folder,
                           FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")
        started = time.monotonic()
        with open(os.path.join(folder, "log"), "w", encoding="utf-8") as log:
            process = subprocess.Popen(command_of(system, settings, folder, arguments), cwd=ROOT,
                                       env=environment, stdout=log, stderr=log)
            watched = Watched(process.pid, folder)
            while process.poll() is None:
                watched.look()
                time.sleep(LOOK_EVERY_S)
        watched.look()  # a short run may have come and gone since the last look: its files are left
        ends = [] if process.returncode else ends_of(system, folder)
        if len(ends) < 2:
            raise SystemExit(f"{system} with {workers} workers failed, or had no two rounds:\n"
                             + Path(folder, "log").read_text(encoding="utf-8")[-2000:])
    return {
        "system": system, "workers": workers, "rounds": len(ends), "settings": settings,
        "round_s": of_a_round(ends), "round_cpu_s": of_a_round(map(watched.cpu_until, ends)),
        "whole_s": time.monotonic() - started, "own_mb": watched.own_kb / 1e3,
        "with_mapped_mb": watched.with_files_kb / 1e3, "disk_mb": watched.disk_kb / 1e3
    }


def ends_of(system, folder):
    """When each round ended, as Unix times."""
    if system == "Flower, Ray":
        file = Path(folder, "ends")
        return [float(line) for line in file.read_text().split()] if file.exists() else []
    history = json.loads(Path(folder, "run", "history.json").read_text())
    return [record["closed_at"] for record in history["rounds"]]


def of_a_round(totals):
    totals = list(totals)
    return statistics.median(after - before for before, after in zip(totals, totals[1:]))


class Watched:
    """A process with all of its descendants; Ray's daemons and actors are started there too."""

    def __init__(self, pid, folder):
        self._pid, self._folder = pid, folder
        self.looks = []  # (Unix time, processor seconds until then)
        self._cpu_s = {}  # of each process, also of those that have ended
        self.own_kb = self.with_files_kb = self.disk_kb = 0

    def look(self):
        own = files = 0
        for process, cpu_s in self._processes():
            self._cpu_s[process] = cpu_s
            found = memory_kb(process)
            own, files = own + found["Pss_Anon"] + found["Pss_Shmem"], files + found["Pss_File"]
        self.looks.append((time.time(), sum(self._cpu_s.values())))
        self.own_kb = max(self.own_kb, own)
        self.with_files_kb = max(self.with_files_kb, own + files)
        self.disk_kb = max(self.disk_kb, on_disk_kb(self._pid, self._folder))

    def cpu_until(self, moment):
        """Processor seconds until then, between two looks in proportion to the time."""
        return float(np.interp(moment, *zip(*self.looks)))

    def _processes(self):
        """[(pid, processor seconds)]."""
        of, children = {}, {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # it has ended meanwhile
                of[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found, more = [], [self._pid]
        while more:
            found += [(pid, of[pid]) for pid in more if pid in of]
            more = [child for pid in more for child in children.get(pid, ())]
        return found


def memory_kb(pid):
    """{field: kB} of smaps_rollup; all 0 when the process has ended."""
    found = dict.fromkeys(("Pss_Anon", "Pss_Shmem", "Pss_File"), 0)
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return found
    return dict(found, **{name: int(rest.split()[0])
                          for name, rest in (line.split(":") for line in lines)})


def on_disk_kb(pid, folder):
    """What lies in the folder, and what the process has mapped there without a name."""
    used = 0.0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it may be gone
                used += os.lstat(os.path.join(parent, name)).st_blocks / 2
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            pages, *_, path = line.split(None, 5)
            if path.startswith(os.path.realpath(folder)) and path.endswith(" (deleted)"):
                first, end = (int(address, 16) for address in pages.split("-"))
                used += (end - first) / 1024
    return used


def known(file):
    if not os.path.exists(file):
        return []
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def table(lines):
    print("| workers | system | rounds | a round, s | of processors, s | memory of its own, MB "
          "| with mapped files, MB | disk, MB |\n|---|---|---|---|---|---|---|---|")
    for line in lines:
        print(f"| {line['workers']:,} | {line['system']} | {line['rounds']} | "
              f"{line['round_s']:.1f} | {line['round_cpu_s']:.1f} | {line['own_mb']:,.0f} | "
              f"{line['with_mapped_mb']:,.0f} | {line['disk_mb']:,.0f} |")


def main(given=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[64, 256, 1000])
    parser.add_argument("--rounds", type=int, default=3, help="at least 2")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--file", default="simulate_scale.jsonl", help="what was measured")
    parser.add_argument("--folder", help="where the runs lie (default: that of temporary files)")
    parser.add_argument("--python", help="of FLQ's runs (default: this one)")
    parser.add_argument("--flower_python", help="one with flwr[simulation] and FLQ's packages")
    parser.add_argument("--set", dest="task", action="extend", nargs="+", default=list(TASK),
                        help="keys beside, or in the place of, those of the task")
    arguments = parser.parse_args(given)
    lines = known(arguments.file)
    for workers in arguments.workers:
        for system in arguments.systems:
            if system == "Flower, Ray" and not arguments.flower_python:
                continue
            settings = settings_of(system, workers, arguments.rounds, arguments.task)
            if not any((line["system"], line["settings"]) == (system, settings) for line in lines):
                lines.append(measure(system, workers, arguments))
                with open(arguments.file, "a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    table(lines)


if __name__ == "__main__":
    main()
