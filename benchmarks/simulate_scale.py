#!/usr/bin/env python3
"""What a simulation of many workers costs, beside Flower's on Ray: the same data, model and local
update, each run in a process of its own, one after another.

    python benchmarks/simulate_scale.py --workers 64 256 1000 --rounds 3 --file scale.jsonl \\
        [--flower_python build/peers/flwr_simulation/bin/python]

Of each run: seconds a round after the first one, and the largest memory of its processes together,
once what is their own (RssAnon and what they share, RssShmem) and once with the pages of mapped
files that are in memory. What is measured is written to --file at once, and not measured again: a
command that was interrupted goes on where it was. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TASK = ("dataset.name=fmnist", "model.name=cnn", "local_steps=1", "batch_size=32", "quorum=all",
        "cohorts=1", "log_level=WARNING")
SYSTEMS = ("FLQ laq", "FLQ fedavg", "Flower, Ray")
LOOK_EVERY_S = 0.2


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
            own = mapped = 0
            while process.poll() is None:
                found = memory_kb(process.pid)
                own, mapped = max(own, found[0]), max(mapped, sum(found))
                time.sleep(LOOK_EVERY_S)
        if process.returncode:
            raise SystemExit(f"{system} with {workers} workers failed:\n"
                             + Path(folder, "log").read_text(encoding="utf-8")[-2000:])
        ends = ends_of(system, folder)
    return {
        "system": system, "workers": workers, "rounds": len(ends), "settings": settings,
        "round_s": statistics.median(after - before for before, after in zip(ends, ends[1:])),
        "whole_s": time.monotonic() - started, "own_mb": own / 1e3, "with_mapped_mb": mapped / 1e3
    }


def ends_of(system, folder):
    """When each round ended, in seconds of some clock."""
    if system == "Flower, Ray":
        return [float(line) for line in Path(folder, "ends").read_text().split()]
    history = json.loads(Path(folder, "run", "history.json").read_text())
    return [record["closed_at"] for record in history["rounds"]]


def memory_kb(pid):
    """(what a process and its descendants hold of their own, pages of files beside it), in kB."""
    own = files = 0
    for process in [pid, *descendants(pid)]:
        try:
            text = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue  # it has ended meanwhile
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "RssAnon" in lines:
            own += sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem"))
            files += int(lines["RssFile"].split()[0])
    return own, files


def descendants(pid):
    """All processes below it; Ray's daemons and actors are started there too."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found, more = [], [pid]
    while more:
        more = [child for child, parent in parents.items() if parent in more]
        found += more
    return found


def known(file):
    if not os.path.exists(file):
        return []
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def table(lines):
    print("| workers | system | rounds | a round, s | memory of its own, MB "
          "| with mapped files, MB |\n|---|---|---|---|---|---|")
    for line in lines:
        print(f"| {line['workers']} | {line['system']} | {line['rounds']} | "
              f"{line['round_s']:.1f} | {line['own_mb']:.0f} | {line['with_mapped_mb']:.0f} |")


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
