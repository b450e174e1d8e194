#!/usr/bin/env python3
"""kill -9 again and again: whether a run ends as if nothing had happened.

    python benchmarks/kills.py --results kills.jsonl

Real programs, softmax on digits, three workers in two processes. Every mode with every memory it can have runs under `quorum: all`,
and every mode under `deadline`. In each run the master, the process of worker 0, or both are killed several times: at a crash point
(flq/crash_points.py) that is drawn, or at a random instant while rounds go on, never while a program loads. Whoever was killed is
started again at once. Under `all` the history (with its model hashes, payload and nominal bits) and the bits of the summary must be
those of the same run uninterrupted in one process; under `deadline` the run must end and `python -m flq replay` give its model again.

Each finished run is a line of the results file, and is not run again when the script is started again with it. Prints a Markdown
table; exits with 1 when a run failed. --programs quadratic takes the learner of tests/system/quadratic.py instead, which needs no
TensorFlow.
"""

import argparse
import contextlib
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq import config, keys  # noqa: E402
from tests.system.processes import QUADRATIC, Site, history_of, wait_until  # noqa: E402

PROGRAMS = {
    "real": {"master": (ROOT / "flq_master.py",), "worker": (ROOT / "flq_worker.py",), "simulate": ("-m", "flq", "simulate"),
             "replay": ("-m", "flq", "replay")},
    "quadratic": {name: (QUADRATIC, name) for name in ("master", "worker", "simulate", "replay")},
}
POINTS = {
    "master": ("commit.before", "commit.after", "adopt.before", "answer.before"),
    "worker": ("state.fsync.before", "state.rename.before", "state.rename.after", "answer.after"),
}
# Some modes also run what shapes a round: silent workers, or bids before uploads.
MORE = {("laq", "reference"): ["thr_scale=0.1"], ("bbit", "residual"): ["sel_clients=2"], ("rd", "reference"): ["sel_clients=2"]}
TASK = ["dataset.name=digits", "model.name=softmax", "total_workers=3"]
ROUNDS = 100
DEADLINE = ["quorum=deadline", "max_rounds=1000000", "min_workers=1", "round_deadline_s=1", "worker_timeout_s=15", "eval_every=20"]


class Cell(NamedTuple):
    """One run."""

    mode: str
    memory: str
    quorum: str

    def settings(self):
        quorum = ["quorum=all", "max_rounds={}".format(ROUNDS)] if self.quorum == "all" else DEADLINE
        return TASK + ["mode=" + self.mode, "memory=" + self.memory] + MORE.get((self.mode, self.memory), []) + quorum


class Failure(Exception):
    """What is not as it should be."""


def cells():
    pairs = [(mode, memory) for mode in ("fedavg", "laq", "bbit", "bin", "qsgd", "rd") for memory in keys.MEMORIES
             if mode != "qsgd" or memory == "none"]
    defaults = {mode: config.load(None, ["mode=" + mode]).config.flq_algorithm.memory for mode, _ in pairs}
    return [Cell(*pair, "all") for pair in pairs] + [Cell(mode, memory, "deadline") for mode, memory in defaults.items()]


def plan(cell, kills, seed):
    """[(victim, crash point or "" for a random instant)]: both are always killed at a random instant."""
    dice = random.Random("{} {} {} {}".format(*cell, seed))
    victims = list(itertools.islice(itertools.cycle(("master", "worker", "both")), kills))
    dice.shuffle(victims)
    planned = []
    for victim in victims:
        named = victim != "both" and dice.random() < 0.6
        planned.append((victim, "{}:{}".format(dice.choice(POINTS[victim]), dice.randint(2, 9)) if named else ""))
    return planned, dice


class Run:
    """The processes of one run, and who is killed next."""

    def __init__(self, site, scripts, cell, planned, dice):
        self._site, self._scripts, self._cell, self._dice = site, scripts, cell, dice
        self._settings = cell.settings()
        self._queues = {name: [kill for kill in enumerate(planned) if kill[1][0] in (name, "both")] for name in ("master", "worker")}
        self._starts = dict.fromkeys(self._queues, 0)
        self._port, self._training = 0, {} if scripts["master"][0] != QUADRATIC else {"SECONDS_OF_TRAINING": "0.02"}
        self.programs, self._wait_for = {}, {}
        self._start("master")
        self._port = self.programs["master"].port
        self.others = site.worker("1-2", self.programs["master"], script=scripts["worker"], **self._training)
        self._start("worker")

    def _start(self, name):
        self._starts[name] += 1
        queue, label = self._queues[name], "{}-{}".format(name, self._starts[name])
        armed = {"FLQ_CRASH_AT": queue[0][1][1]} if queue and queue[0][1][1] else {}
        if name == "master":
            program = self._site.master(*self._settings, name="master", port=self._port, script=self._scripts["master"], **armed)
        else:
            program = self._site.worker("0", self.programs["master"], name=label, script=self._scripts["worker"], **armed, **self._training)
        self.programs[name] = program
        self._wait_for[name] = None

    def kill_all(self):
        """Carry out the plan."""
        patience = time.monotonic() + 60.0 * (1 + sum(map(len, self._queues.values())))
        while any(self._queues.values()):
            if time.monotonic() > patience:
                raise Failure("the run does not go on, {} of the kills are left".format(sum(map(len, self._queues.values()))))
            status = self._status()
            due = [name for name in self._queues if self._is_due(name, status)]
            for name in due:
                if self._queues[name] and not self._is_waiting_for_the_other(name, due):
                    time.sleep(self._dice.uniform(0.0, 0.1))
                    self._kill(name)
            if self.others.process.poll() is not None:
                raise Failure("workers 1-2 ended with {}".format(self.others.process.poll()))
            time.sleep(0.02)

    def _is_due(self, name, status):
        """True when its next kill has come: it died at its point, or its random instant is there."""
        if not self._queues[name]:
            return False
        code = self.programs[name].process.poll()
        point = self._queues[name][0][1][1]
        if code is not None:
            if code != -9 or not point:
                raise Failure("the {} ended with {} before it was killed".format(name, code))
            return True
        if point or status is None:
            return False
        # Rounds in which it took part since it was started.
        row = status["worker_status"].get("0", {})
        done = status["current_round"] if name == "master" else sum(row.get(key, 0) for key in ("uploads", "skipped", "refused"))
        if self._wait_for[name] is None:
            self._wait_for[name] = done + self._dice.randint(2, 6)
        return done >= self._wait_for[name]

    def _is_waiting_for_the_other(self, name, due):
        number, (victim, _) = self._queues[name][0]
        return victim == "both" and any(not queue or queue[0][0] != number or other not in due for other, queue in self._queues.items())

    def _kill(self, name):
        victims = list(self._queues) if self._queues[name][0][1][0] == "both" else [name]
        for victim in victims:
            self.programs[victim].process.kill()
        for victim in victims:
            self.programs[victim].kill()
            self._queues[victim].pop(0)
        for victim in victims:
            self._start(victim)

    def _status(self):
        with contextlib.suppress(requests.RequestException):
            return self.programs["master"].status()
        return None

    def finish(self):
        """Wait for the end; a run with a deadline is told when that is."""
        master = self.programs["master"]
        if self._cell.quorum == "deadline":
            def answers():
                status = self._status()
                return status and status["worker_status"].get("0", {}).get("state") in ("training", "waiting", "uploading") and status

            status = wait_until(answers, "worker 0 is back")
            answer = master.order("PATCH", "/config", {"max_rounds": status["current_round"] + 30})
            if answer.status_code != 200:
                raise Failure(answer.text)
        codes = [program.wait() for program in (self.programs["worker"], self.others, master)]
        if codes != [0, 0, 0]:
            raise Failure("exit codes of worker 0, workers 1-2 and master: {}".format(codes))
        return master.run_dir


def bits_of(run_dir):
    bits = json.loads((run_dir / "summary.json").read_text())["bits"]
    return {(direction, kind): bits[direction][kind] for direction in bits for kind in ("nominal", "payload", "float32")}


def difference(run_dir, whole):
    """The first thing in which an interrupted run differs from the whole one, "" when there is none."""
    (rounds, rows), (expected_rounds, expected_rows) = history_of(run_dir), history_of(whole)
    for found, expected in zip(rounds, expected_rounds):
        for key, value in found.items():
            if value != expected[key]:
                return "round {}: {} is {}, not {}".format(found["round"], key, value, expected[key])
    if len(rounds) != len(expected_rounds) or rows != expected_rows:
        return "other rows: {} rounds, {} rows, not {} and {}".format(len(rounds), len(rows), len(expected_rounds), len(expected_rows))
    bits, expected_bits = bits_of(run_dir), bits_of(whole)
    return "" if bits == expected_bits else "other bits: {}, not {}".format(bits, expected_bits)


def run_cell(cell, scripts, planned, dice, site):
    whole = site.simulate(*cell.settings(), script=scripts["simulate"]) if cell.quorum == "all" else None
    run = Run(site, scripts, cell, planned, dice)
    run.kill_all()
    run_dir = run.finish()
    rounds, _ = history_of(run_dir)
    if whole is None:
        replay = site.start("replay", sys.executable, *scripts["replay"], run_dir)
        if replay.wait() != 0 or "the run is what its store says: model " + rounds[-1]["params_hash"] not in replay.text():
            raise Failure("replay: " + replay.tail())
    else:
        if whole.wait() != 0:
            raise Failure("the uninterrupted run: " + whole.tail())
        found = difference(run_dir, site.directory / "simulation-run")
        if found:
            raise Failure(found)
    return len(rounds)


def measure(cell, arguments):
    planned, dice = plan(cell, arguments.kills, arguments.seed)
    folder = tempfile.mkdtemp(prefix="kills-")
    site, started = Site(Path(folder)), time.monotonic()
    result = {"cell": list(cell), "programs": arguments.programs, "seed": arguments.seed, "kills": planned, "failure": "", "rounds": 0}
    try:
        result["rounds"] = run_cell(cell, PROGRAMS[arguments.programs], planned, dice, site)
    except (Failure, AssertionError) as failure:
        result["failure"] = str(failure)
        result["folder"] = folder
    finally:
        site.close()
    result["seconds"] = round(time.monotonic() - started, 1)
    if not result["failure"]:
        shutil.rmtree(folder)
    return result


def table(results):
    lines = ["| quorum | mode | memory | rounds | kills | master | worker | both | at a point | at random | as it should be |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    rows = []
    for result in results:
        mode, memory, quorum = result["cell"]
        kills = result["kills"]
        rows.append([result["rounds"], len(kills)] + [sum(victim == who for victim, _ in kills) for who in ("master", "worker", "both")]
                    + [sum(bool(point) for _, point in kills), sum(not point for _, point in kills)])
        lines.append("| {} | `{}` | `{}` | {} | {} |".format(quorum, mode, memory, " | ".join(map(str, rows[-1])),
                                                            "no: " + result["failure"] if result["failure"] else "yes"))
    failed = sum(bool(result["failure"]) for result in results)
    lines.append("| | | all | {} | {} of {} |".format(" | ".join(str(sum(column)) for column in zip(*rows)),
                                                     len(results) - failed, len(results)))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="kill -9 again and again: whether a run ends as if nothing had happened")
    parser.add_argument("--results", default="kills.jsonl", help="one line a run; what is in it is not run again (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=5, help="in each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the plan (default: %(default)s)")
    parser.add_argument("--programs", choices=sorted(PROGRAMS), default="real")
    parser.add_argument("--show", action="store_true", help="run nothing: the table of what is in the results file")
    parser.add_argument("--only", default="", help="only runs whose name, like 'laq reference all', holds these words")
    arguments = parser.parse_args()
    path = Path(arguments.results)
    lines = path.read_text().splitlines() if path.exists() else []
    known = {(*result["cell"], result["programs"], result["seed"]): result for result in map(json.loads, lines)}
    results = []
    for cell in cells():
        if arguments.only not in " ".join(cell):
            continue
        result = known.get((*cell, arguments.programs, arguments.seed))
        if result is None and arguments.show:
            continue
        if result is None:
            result = measure(cell, arguments)
            with open(path, "a") as file:
                file.write(json.dumps(result) + "\n")
            print("{}: {} kills, {} s{}".format(" ".join(cell), len(result["kills"]), result["seconds"],
                                                ": " + result["failure"] if result["failure"] else ""), file=sys.stderr, flush=True)
        results.append(result)
    print(table(results))
    return 1 if any(result["failure"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
