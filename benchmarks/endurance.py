#!/usr/bin/env python3
"""A long run of a tiny model: whether memory grows and files stay bounded.

    python benchmarks/endurance.py --rounds 10000

A master and one process with two workers, real programs: softmax on digits (650 weights), one local
step, `laq`, every tenth model tested. Samples the resident memory (VmRSS) of both processes and the
sizes of their files while the run goes on, and prints a Markdown table and what one round adds. The
run store keeps every round, so it grows; the script then compacts it and says to what size.
--programs quadratic takes the learner of tests/system/quadratic.py, which needs no TensorFlow.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.kills import PROGRAMS  # noqa: E402
from tests.system.processes import QUADRATIC, Site  # noqa: E402


def resident_kb(program):
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))


def size_of(directory, pattern):
    return sum(path.stat().st_size for path in directory.glob(pattern))


def sample(site, master, workers, round_):
    return {
        "round": round_, "master, MB": resident_kb(master) / 1024,
        "workers, MB": resident_kb(workers) / 1024,
        "run.db, MB": size_of(master.run_dir, "run.db") / 1e6,
        "write-ahead log, MB": size_of(master.run_dir, "run.db-wal") / 1e6,
        "state files, kB": size_of(site.directory, "state/*.state") / 1e3,
        "logs, MB": size_of(site.directory, "logs/*") / 1e6
    }


def measure(arguments, site):
    scripts = PROGRAMS[arguments.programs]
    master = site.master("dataset.name=digits", "model.name=softmax", "total_workers=2",
                         "quorum=all", "mode=laq", "local_steps=1", "eval_every=10",
                         f"max_rounds={arguments.rounds}", script=scripts["master"])
    workers = site.worker("0-1", master, script=scripts["worker"])
    samples, started, next_ = [], None, arguments.rounds // 10
    while next_ <= arguments.rounds * 19 // 20:
        round_ = master.status()["current_round"]
        started = started or (round_ and (time.monotonic(), round_))
        if round_ >= next_:
            samples.append(sample(site, master, workers, round_))
            seconds, done = time.monotonic() - started[0], round_ - started[1]
            print(f"round {round_}: {seconds / done:.4f} s a round", file=sys.stderr, flush=True)
            next_ += arguments.rounds // 10
        time.sleep(0.2)
    # The last sample just before the end, while both processes are there.
    master.wait_for_round(arguments.rounds * 99 // 100)
    samples.append(sample(site, master, workers, master.status()["current_round"]))
    codes = [program.wait() for program in (workers, master)]
    if codes != [0, 0]:
        raise SystemExit(f"a process failed: exit codes {codes}\n{site.tails()}")
    compact = (QUADRATIC, "compact") if arguments.programs == "quadratic" else ("-m", "flq",
                                                                                "compact")
    compaction = site.start("compact", sys.executable, *compact, master.run_dir)
    if compaction.wait() != 0:
        raise SystemExit(compaction.tail())
    return samples, compaction.text().splitlines()[-1]


def main():
    parser = argparse.ArgumentParser(
        description="a long run of a tiny model: whether memory grows and files stay bounded")
    parser.add_argument("--rounds", type=int, default=10000)
    parser.add_argument("--programs", choices=sorted(PROGRAMS), default="real")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        site = Site(Path(folder))
        try:
            samples, compacted = measure(arguments, site)
        finally:
            site.close()
    names = list(samples[0])
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for row in samples:
        print(f"| {row['round']} | " + " | ".join(f"{row[name]:.1f}" for name in names[1:]) + " |")
    # From the second sample on: what a process loads and makes once is there by then.
    first, last = samples[1], samples[-1]
    for name in names[1:]:
        unit = 1024 ** 2 if name in ("master, MB", "workers, MB") else 1e3 if "kB" in name else 1e6
        growth = (last[name] - first[name]) * unit / (last["round"] - first["round"])
        print(f"{name.split(',')[0]}: {growth:.0f} bytes a round more")
    print(compacted)


if __name__ == "__main__":
    main()
