#!/usr/bin/env python3
"""The configuration of 64 workers that stands in USAGE_GUIDE.md, played to its end: for 20 rounds
as it stands and with the cnn, and for 1,000 rounds with a kill -9 in the middle.

    FLQ_DATA_DIR=DIR python benchmarks/sixty_four.py --folder sixty_four [--runs long killed]

    short   as it stands, 20 rounds (the defaults: digits, cnn_small, five local steps)
    cnn     the cnn on Fashion-MNIST, 20 rounds
    long    as it stands with one local step, all its 1,000 rounds
    killed  the same; the process is killed by kill -9 once half of the rounds are stored, and the
            run goes on with --resume

Each run is `python -m flq simulate --resume --config FILE` in a folder below --folder. A command
that was interrupted goes on where it was, and a run that is over is not played again. Prints a
Markdown table, and whether `killed` is `long`, bit for bit: config.json, history.json and
summary.json with each other, all but times and devices. Exits with 1 when it is not.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.kills import Failure, check_same  # noqa: E402

FLAT = {"total_workers": 64, "max_rounds": 1000, "batch_size": 32, "mode": "bin", "sel_clients": 8}
ONE_STEP = {"model.name": "cnn_small", "local_steps": 1}
RUNS = {
    "short": {"max_rounds": 20},
    "cnn": {"max_rounds": 20, "dataset.name": "fmnist", "model.name": "cnn"},
    "long": ONE_STEP,
    "killed": ONE_STEP,
}
LOOK_EVERY_S = 0.1


class Measured:
    """One run in its folder: NAME, its files; NAME.log, what its processes said; NAME.json, how
    often it was started and killed, and what that took.
    """

    def __init__(self, folder, name, settings):
        self.run_dir, self._log = folder / name, folder / (name + ".log")
        self._told, self._config = folder / (name + ".json"), folder / (name + ".config.json")
        self._config.write_text(json.dumps(settings) + "\n")
        self.rounds = settings["max_rounds"]
        self.told = (json.loads(self._told.read_text()) if self._told.exists() else
                     {"starts": 0, "kills": 0, "killed_after": 0, "seconds": 0.0,
                      "processor_s": 0.0})

    def is_over(self):
        summary = self.run_dir / "summary.json"
        return summary.exists() and json.loads(summary.read_text())["phase"] == "FINISHED"

    def play(self, kill_after=None):
        """Start the run, or go on with it; with kill_after until so many rounds are stored."""
        environment = dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="2",
                           CUDA_VISIBLE_DEVICES="", PYTHONUNBUFFERED="1")
        command = [sys.executable, "-m", "flq", "simulate", "--resume", "--verbose", "--run_dir",
                   str(self.run_dir), "--config", str(self._config), "--set", "save_results=false",
                   "--set", f"log_dir={self._log.parent}"]
        started = time.monotonic()
        with open(self._log, "ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                code = None
                while code is None:
                    if kill_after is not None and self.stored() >= kill_after:
                        process.kill()
                    time.sleep(LOOK_EVERY_S)
                    pid, status, used = os.wait4(process.pid, os.WNOHANG)
                    code = status if pid else None
            except KeyboardInterrupt:
                process.wait()  # it ends by the same Ctrl-C, and keeps its rounds
                raise
        process.returncode = code  # waited for here, because of what it used
        self.told["starts"] += 1
        self.told["seconds"] += time.monotonic() - started
        self.told["processor_s"] += used.ru_utime + used.ru_stime
        killed = os.WIFSIGNALED(code) and kill_after is not None
        if killed:
            self.told["kills"] += 1
            self.told["killed_after"] = self.stored()
        elif code:
            raise SystemExit(f"{self.run_dir.name} failed: see {self._log}")
        self._told.write_text(json.dumps(self.told) + "\n")

    def stored(self):
        """How many rounds the log names as closed."""
        found = re.findall(rb"round (\d+): \d+ selected", self._log.read_bytes())
        return int(found[-1]) + 1 if found else 0

    def row(self):
        summary = json.loads((self.run_dir / "summary.json").read_text())
        last = json.loads((self.run_dir / "history.json").read_text())["rounds"][-1]
        sizes = [sum(path.stat().st_size for path in self.run_dir.glob(pattern))
                 for pattern in ("run.db", "workers/*")]
        payload = [summary["bits"][way]["payload"] / 8e6 for way in ("up", "down")]
        return (f"| {self.run_dir.name} | {summary['rounds']:,} | {self.told['kills']} | "
                f"{summary['accuracy']:.4f} | {payload[0]:.1f} | {payload[1]:.1f} | "
                f"{sizes[0] / 1e6:.1f} | {sizes[1] / 1e6:.1f} | {self.told['seconds']:,.0f} | "
                f"{self.told['processor_s'] / summary['rounds']:.2f} | "
                f"{last['params_hash'][:16]} |")


def play(name, settings, folder):
    """The run of that name, over."""
    run = Measured(folder, name, settings)
    if name == "killed" and not run.told["kills"] and not run.is_over():
        run.play(run.rounds // 2)
        if not run.told["kills"]:
            raise SystemExit(f"{run.run_dir.name} was over before it could be killed: let it have "
                             "more rounds, in another folder")
    while not run.is_over():
        run.play()
    return run


def main(given=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--runs", nargs="+", choices=tuple(RUNS), default=list(RUNS))
    parser.add_argument("--rounds", type=int, help="instead of those of each run")
    parser.add_argument("--workers", type=int, help="instead of 64")
    arguments = parser.parse_args(given)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    others = {"max_rounds": arguments.rounds, "total_workers": arguments.workers}
    others = {key: value for key, value in others.items() if value is not None}
    runs = {name: play(name, {**FLAT, **RUNS[name], **others}, arguments.folder)
            for name in arguments.runs}
    print("| run | rounds | kills | accuracy | payload up, MB | payload down, MB | run.db, MB "
          "| states, MB | s, with each start | processor s a round | model |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|")
    for run in runs.values():
        print(run.row())
    if {"long", "killed"} <= set(runs):
        try:
            check_same(runs["killed"].run_dir, runs["long"].run_dir)
        except Failure as failure:
            print(f"killed is not long: {failure}")
            return 1
        print(f"killed after {runs['killed'].told['killed_after']:,} rounds: "
              "the same run as long, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
