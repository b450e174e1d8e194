#!/usr/bin/env python3
"""Killed, interrupted, paused and held up again and again: whether a run ends as if nothing had
happened.

    python benchmarks/kills.py --results ends.jsonl

Real programs, softmax on digits, three workers in two processes. Every mode with every memory it
can have runs under `quorum: all`, and every mode under `deadline`. In each run the master, the
process of worker 0, or both come to an end several times: by kill -9 at a crash point
(flq/host/crash_points.py) that is drawn, or at a random instant while rounds go on, never while a
program loads; by SIGTERM; and the master while its operator has paused it. Whoever ended is started
again at once. Once the master stands still for a second or two (SIGSTOP). Every mode also runs as
one process, `python -m flq simulate --resume`, which kill -9, SIGTERM and SIGINT end.

What is compared, when the run is over: under `all` and in the simulation config.json, history.json
and summary.json with those of the same run uninterrupted in one process, all but times, wire bits
and devices; under `deadline` the run must end and `python -m flq replay` give its model again. Of
every run, and of each master that SIGTERM ended: the rows add up to the totals, and the store says
what the files say. Of every run: who is started again on it changes no byte of the files.

Each finished run is a line of the results file, and is not run again when the script is started
again with it. Prints a Markdown table; exits with 1 when a run failed. --programs quadratic takes
the learner of tests/system/quadratic.py instead, which needs no TensorFlow.
"""

import argparse
import contextlib
import itertools
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq import config  # noqa: E402
from flq.errors import FlqError  # noqa: E402
from flq.master.store.results import read_run  # noqa: E402
from flq.modes import QUANTIZER_ROWS  # noqa: E402
from flq.reports.run_files import DIRECTIONS, KINDS, load_run, write_run  # noqa: E402
from tests.system.processes import QUADRATIC, Site, history_of, wait_until  # noqa: E402

PROGRAMS = ({
    "real": {
        "master": (ROOT / "flq_master.py",), "worker": (ROOT / "flq_worker.py",),
        "simulate": ("-m", "flq", "simulate"), "replay": ("-m", "flq", "replay")
    },
    "quadratic": {name: (QUADRATIC, name) for name in ("master", "worker", "simulate", "replay")},
})
OFTEN_FOLDED = {name: (ROOT / "tests" / "system" / "often_folded.py", name)
                for name in ("worker", "simulate")}
MOST_STEPS = 2  # so that a worker's state is written whole often enough to be killed there
STEPS = ("state.append.before", "state.append.torn", "state.append.fsync.before",
         "state.append.after")
WHOLE = ("state.fsync.before", "state.rename.before", "state.rename.after")
OF_A_STATE = STEPS + WHOLE
POINTS = {
    "master": ("commit.before", "commit.after", "adopt.before", "answer.before"),
    "worker": (*OF_A_STATE, "answer.after"),
    "simulation": ("commit.before", "commit.after", "adopt.before", *OF_A_STATE, "answer.after"),
}
# (who, how) of the ends that a run is drawn from; each occurs when it has as many.
ENDS = (("master", "kill"), ("master", "kill"), ("worker", "kill"), ("worker", "kill"),
        ("both", "kill"), ("master", "term"), ("worker", "term"), ("master", "paused kill"),
        ("master", "paused term"), ("master", "stop"))
ENDS_OF_A_SIMULATION = (("simulation", "kill"), ("simulation", "term"), ("simulation", "int"))
SIGNALS = {"term": signal.SIGTERM, "int": signal.SIGINT}
CONTEXTS = ["entropy_coding=context", "entropy_coding_down=context"]
# Some modes also run what shapes a round: silent workers, bids before uploads, a slow reference,
# cohorts, or levels beside histories.
MORE = {("laq", "reference"): ["thr_scale=0.1"],
        ("bin", "reference"): ["memory_rate=0.3", "cohorts=2", "entropy_coding=context"],
        ("fedavg", "reference"): ["memory_rate=0.1"], ("bbit", "residual"): ["sel_clients=2"],
        ("rd", "reference"): ["memory_rate=0.3", "cohorts=2", *CONTEXTS],
        ("rd", "residual"): ["sel_clients=2", *CONTEXTS],
        ("rd", "none"): ["cohorts=3", "entropy_coding=context"],
        ("bbit", "reference"): ["cohorts=3", "thr_scale=0.1"]}
TASK = ["dataset.name=digits", "model.name=softmax", "total_workers=3"]
ROUNDS_PER_END = 20  # so that there are rounds left when the last end has come
DEADLINE = [
    "quorum=deadline", "max_rounds=1000000", "min_workers=1", "round_deadline_s=1",
    "worker_timeout_s=15", "eval_every=20"
]
PEOPLE = ("config.json", "history.json", "summary.json")
# a row's state -> the round's list
LISTS = {"accepted": "selected", "skipped": "skipped", "refused": "refused", "missing": "missing"}


class Cell(NamedTuple):
    """One run; its quorum is all, deadline, or simulate: all workers in one process."""

    mode: str
    memory: str
    quorum: str

    def settings(self, ends):
        quorum = DEADLINE if self.quorum == "deadline" else [
            "quorum=all", f"max_rounds={ROUNDS_PER_END * ends}"
        ]
        return TASK + ["mode=" + self.mode, "memory=" + self.memory] + MORE.get(
            (self.mode, self.memory), []) + quorum


class End(NamedTuple):
    """What happens to whom. point: where kill -9 comes, "" for a random instant."""

    victim: str
    how: str
    point: str


class Failure(Exception):
    """What is not as it should be."""


def cells():
    pairs = [(row.name, memory) for row in QUANTIZER_ROWS.values() for memory in row.memories]
    defaults = {
        mode: config.load(None, ["mode=" + mode]).config.flq_algorithm.memory for mode, _ in pairs
    }
    return (
        [Cell(*pair, "all") for pair in pairs] +
        [Cell(*pair, quorum) for quorum in ("deadline", "simulate") for pair in defaults.items()])


def plan(cell, ends, seed):
    """The ends of a run, and the dice for their instants.

    Both programs together are always killed at a random instant.
    """
    dice = random.Random("{} {} {} {}".format(*cell, seed))
    possible = list(ENDS_OF_A_SIMULATION if cell.quorum == "simulate" else ENDS)
    dice.shuffle(possible)
    planned, started_again = [], dict.fromkeys(("master", "worker", "simulation"), True)
    for victim, how in itertools.islice(itertools.cycle(possible), ends):
        # A point is armed when a program starts.
        named = how == "kill" and victim != "both" and started_again[victim] and dice.random() < 0.6
        point = dice.choice(POINTS[victim]) if named else ""
        count = dice.randint(2, 9) // (1 + MOST_STEPS if point in WHOLE else 1)
        planned.append(End(victim, how, f"{point}:{max(1, count)}" if named else ""))
        started_again.update(
            {who: how != "stop" for who in started_again if victim in (who, "both")})
    return planned, dice


def variables_of(scripts):
    """A learner that needs no time would have played its rounds before anything can happen to it.

    Most of the time an open round has some answers and not all.
    """
    often = {"MOST_STEPS": str(MOST_STEPS)}
    return dict(often, SECONDS_OF_TRAINING="0,0.02,0.05"
                ) if scripts["master"][0] == QUADRATIC else often


class Run:
    """The processes of one run, and who ends next."""

    def __init__(self, site, scripts, cell, planned, dice):
        self._site, self._scripts, self._cell, self._dice = site, scripts, cell, dice
        self._settings = cell.settings(len(planned))
        self._queues = {
            name: [(number, end) for number, end in enumerate(planned)
                   if end.victim in (name, "both")] for name in ("master", "worker")
        }
        self._starts = dict.fromkeys(self._queues, 0)
        self._port, self._variables = 0, variables_of(scripts)
        self.programs, self._wait_for = {}, {}
        self._start("master")
        self._port = self.programs["master"].port
        self.others = site.worker("1-2", self.programs["master"], script=scripts["worker"],
                                  **self._variables)
        self._start("worker")

    def _start(self, name):
        self._starts[name] += 1
        queue, label = self._queues[name], f"{name}-{self._starts[name]}"
        armed = {"FLQ_CRASH_AT": queue[0][1].point} if queue and queue[0][1].point else {}
        if name == "master":
            program = self._site.master(*self._settings, name="master", port=self._port,
                                        script=self._scripts["master"], **armed)
        else:
            program = self._site.worker("0", self.programs["master"], name=label,
                                        script=self._scripts["worker"], **armed, **self._variables)
        self.programs[name] = program
        self._wait_for[name] = None

    def play(self):
        """Carry out the plan and wait for the end; returns the folder of the run."""
        patience = time.monotonic() + 60.0 * (1 + sum(map(len, self._queues.values())))
        while any(self._queues.values()):
            if time.monotonic() > patience:
                raise Failure(
                    f"the run does not go on, {sum(map(len, self._queues.values()))} of the ends "
                    "are left"
                )
            status = self._status()
            due = [name for name in self._queues if self._is_due(name, status)]
            ready = [name for name in due if not self._is_waiting_for_the_other(name, due)]
            if ready:
                time.sleep(self._dice.uniform(0.0, 0.1))
                # the other's turn is looked at again: this end may have been its own
                self._carry_out(ready[0])
            if self.others.process.poll() is not None:
                raise Failure(f"workers 1-2 ended with {self.others.process.poll()}")
            time.sleep(0.02)
        return self._finish()

    def _is_due(self, name, status):
        """True when its next end has come: it died at its point, or its random instant is there."""
        if not self._queues[name]:
            return False
        code = self.programs[name].process.poll()
        point = self._queues[name][0][1].point
        if code is not None:
            if code != -signal.SIGKILL or not point:
                raise Failure(f"the {name} ended with {code} before it was asked to")
            return True
        if point or status is None:
            return False
        # Rounds in which it took part since it was started.
        row = status["worker_status"].get("0", {})
        done = status["current_round"] if name == "master" else sum(
            row.get(key, 0) for key in ("uploads", "skipped", "refused"))
        if self._wait_for[name] is None:
            self._wait_for[name] = done + self._dice.randint(2, 6)
        return done >= self._wait_for[name]

    def _is_waiting_for_the_other(self, name, due):
        number, end = self._queues[name][0]
        return end.victim == "both" and any(not queue or queue[0][0] != number or other not in due
                                            for other, queue in self._queues.items())

    def _carry_out(self, name):
        end = self._queues[name][0][1]
        victims = list(self._queues) if end.victim == "both" else [name]
        for victim in victims:
            self._queues[victim].pop(0)
        if end.how == "stop":
            self._stand_still(self.programs[name])
            self._wait_for[name] = None
            return
        if end.how.startswith("paused"):
            self._pause()
        if end.how.endswith("term"):
            end_by(signal.SIGTERM, self.programs[name])
            if name == "master":
                check_folder(self.programs[name].run_dir, wired=True)
        for victim in victims:
            self.programs[victim].process.kill()
        for victim in victims:
            self.programs[victim].kill()
        for victim in victims:
            self._start(victim)
        if end.how.startswith("paused"):
            self._resume()

    def _stand_still(self, program):
        program.process.send_signal(signal.SIGSTOP)
        time.sleep(self._dice.uniform(1.0, 2.0))
        program.process.send_signal(signal.SIGCONT)

    def _pause(self):
        answer = self.programs["master"].order("POST", "/pause")
        if answer.status_code != 200:
            raise Failure(answer.text)
        time.sleep(self._dice.uniform(0.0, 0.5))

    def _resume(self):
        """The next master found the run paused, as its operator had been told."""
        status = wait_until(self._status, "the master is back")
        if not status["paused"]:
            raise Failure("the master that came back has forgotten that the run is paused")
        answer = self.programs["master"].order("POST", "/resume")
        if answer.status_code != 200:
            raise Failure(answer.text)

    def _status(self):
        with contextlib.suppress(requests.RequestException):
            return self.programs["master"].status()
        return None

    def _finish(self):
        """A run with a deadline is told when its end is."""
        master = self.programs["master"]
        if self._cell.quorum == "deadline":
            def answers():
                status = self._status()
                return status and status["worker_status"].get(
                    "0", {}).get("state") in ("training", "waiting", "uploading") and status

            status = wait_until(answers, "worker 0 is back")
            answer = master.order("PATCH", "/config", {"max_rounds": status["current_round"] + 30})
            if answer.status_code != 200:
                raise Failure(answer.text)
        codes = [program.wait() for program in (self.programs["worker"], self.others, master)]
        if codes != [0, 0, 0]:
            raise Failure(f"exit codes of worker 0, workers 1-2 and master: {codes}")
        return master.run_dir

    def start_again(self):
        """A master on the run that is over, which is asked to end."""
        master = self._site.master(*self._settings, name="again", run_dir="master-run", options=(),
                                   script=self._scripts["master"])
        master.wait_for_phase("FINISHED")
        end_by(signal.SIGTERM, master)


class Simulation:
    """One run in one process, and how it ends."""

    def __init__(self, site, scripts, cell, planned, dice):
        self._site, self._scripts, self._settings = site, scripts, cell.settings(
            len(planned))
        self._planned, self._dice = planned, dice

    def _start(self, name, **variables):
        return self._site.simulate(*self._settings, name=name, run_dir="run",
                                   options=("--resume",), script=self._scripts["simulate"],
                                   **variables, **variables_of(self._scripts))

    def play(self):
        """Carry out the plan and wait for the end; returns the folder of the run."""
        for number, end in enumerate(self._planned):
            program = self._start(f"part-{number}",
                                  **({"FLQ_CRASH_AT": end.point} if end.point else {}))
            if not end.point:
                self._wait_for_rounds(program, self._dice.randint(2, 6))
                time.sleep(self._dice.uniform(0.0, 0.1))
            if end.how in SIGNALS:
                end_by(SIGNALS[end.how], program)
                check_folder(self._run_dir, wired=False)
            else:
                if not end.point:
                    program.process.kill()
                code = program.wait()
                if code != -signal.SIGKILL:
                    raise Failure(
                        f"part {number} of the simulation ended with {code} before it was killed")
        self._play_to_the_end("end")
        return self._run_dir

    @property
    def _run_dir(self):
        return self._site.directory / "run"

    def _wait_for_rounds(self, program, rounds):
        def played():
            if program.process.poll() is not None:
                raise Failure(
                    f"the simulation ended with {program.process.poll()} before it was asked to")
            return len(re.findall(r"round \d+: \d+ selected", program.text())) >= rounds

        wait_until(played, f"the simulation has played {rounds} rounds")

    def start_again(self):
        """The simulation of the run that is over."""
        self._play_to_the_end("again")

    def _play_to_the_end(self, name):
        code = self._start(name).wait()
        if code != 0:
            raise Failure(f"the simulation ended with {code}")


def end_by(number, program):
    """Ask a program to end."""
    code, _ = program.end(number)
    if code != 0:
        raise Failure(f"{program.name} ended with {code} when it was asked to: {program.tail()}")


def bits_of(run_dir):
    bits = json.loads((run_dir / "summary.json").read_text())["bits"]
    return {(direction, kind): bits[direction][kind] for direction in bits
            for kind in ("nominal", "payload", "float32")}


def difference(run_dir, whole):
    """The first thing in which an interrupted run differs from the whole one, "" when there is
    none.
    """
    (rounds, rows), (expected_rounds, expected_rows) = history_of(run_dir), history_of(whole)
    for found, expected in zip(rounds, expected_rounds):
        for key, value in found.items():
            if value != expected[key]:
                return f"round {found['round']}: {key} is {value}, not {expected[key]}"
    if len(rounds) != len(expected_rounds) or rows != expected_rows:
        return (
            f"other rows: {len(rounds)} rounds, {len(rows)} rows, not {len(expected_rounds)} and "
            f"{len(expected_rows)}"
        )
    bits, expected_bits = bits_of(run_dir), bits_of(whole)
    return "" if bits == expected_bits else f"other bits: {bits}, not {expected_bits}"


def check_same(run_dir, whole):
    """The files of a run are those of the whole one, but for what may vary."""
    found = difference(run_dir, whole)
    if found:
        raise Failure(found)
    for name, read in (("config.json", read_json), ("summary.json", summary_of)):
        values, expected = read(run_dir, name), read(whole, name)
        if values != expected:
            raise Failure(f"another {name}: {values}, not {expected}")


def read_json(run_dir, name):
    return json.loads((run_dir / name).read_text())


def summary_of(run_dir, name="summary.json"):
    """What it says without times, wire bits, and names."""
    summary = read_json(run_dir, name)
    for key in ("run_id", "devices", "seconds", "seconds_per_round"):
        del summary[key]
    for direction in DIRECTIONS:
        del summary["bits"][direction]["wire"], summary["compression"][direction]["wire"]
    return summary


def check_folder(run_dir, wired):
    """The rows add up to the totals, and whoever reads the store reads what the files say. wired:
    it has counted what travelled.
    """
    check_rows(read_json(run_dir, "history.json"), read_json(run_dir, "summary.json"), wired)
    with tempfile.TemporaryDirectory(prefix="kills-files-") as folder:
        for source, read in (("the store", read_run), ("a report of the files", load_run)):
            write_run(folder, read(run_dir))
            for name in PEOPLE:
                if (Path(folder) / name).read_bytes() != (run_dir / name).read_bytes():
                    raise Failure(f"{source} says something else than {name}")


def check_rows(history, summary, wired):
    """Every total is the sum of its rows."""
    rounds, answers = history["rounds"], {}
    for row in history["workers"]:
        answers.setdefault(row["round"], []).append(row)
    for direction, kind in itertools.product(DIRECTIONS, KINDS):
        values = [record[f"{kind}_bits_{direction}"] for record in rounds]
        expected = sum(values) if wired or kind != "wire" else None
        check_equal(summary["bits"][direction][kind], expected,
                    f"bits {kind} {direction} of the summary")
    for record in rounds:
        of_round, rows = f" of round {record['round']}", answers.pop(record["round"], [])
        for state, name in LISTS.items():
            check_equal(record[name], sorted(row["worker"] for row in rows
                                             if row["state"] == state), name + of_round)
        check_equal(len(rows), sum(len(record[name]) for name in LISTS.values()),
                    "the number of rows" + of_round)
        check_equal(record["payload_bits_up"], sum(row["payload_bits"] for row in rows),
                    "payload_bits_up" + of_round)
        check_equal(sorted(set(record["late"]) - set(record["missing"])), [],
                    "late and not missing" + of_round)
    check_equal(answers, {}, "rows of no round")
    for name in ("skipped", "refused", "missing", "late"):
        check_equal(summary[name], sum(len(record[name]) for record in rounds),
                    name + " of the summary")
    check_equal(summary["uploads"], sum(len(record["selected"]) for record in rounds),
                "uploads of the summary")
    check_equal(summary["rounds"], len(rounds), "rounds of the summary")


def check_equal(value, expected, what):
    if value != expected:
        raise Failure(f"{what}: {value}, not {expected}")


def run_cell(cell, scripts, planned, dice, site):
    """Play a run and check it; returns the number of its rounds."""
    whole = None
    if cell.quorum != "deadline":
        whole = site.simulate(*cell.settings(len(planned)), name="whole",
                              script=scripts["simulate"])
    run = (Simulation if cell.quorum == "simulate" else Run)(site, scripts, cell, planned, dice)
    run_dir = run.play()
    rounds, _ = history_of(run_dir)
    if whole is None:
        replay = site.start("replay", sys.executable, *scripts["replay"], run_dir)
        if replay.wait() != 0 or "the run is what its store says: model " + rounds[-1][
                "params_hash"] not in replay.text():
            raise Failure("replay: " + replay.tail())
    else:
        if whole.wait() != 0:
            raise Failure("the uninterrupted run: " + whole.tail())
        check_same(run_dir, site.directory / "whole-run")
    check_folder(run_dir, wired=cell.quorum != "simulate")
    before = [(run_dir / name).read_bytes() for name in PEOPLE]
    run.start_again()
    for name, content in zip(PEOPLE, before):
        if (run_dir / name).read_bytes() != content:
            raise Failure(f"{name} changed when the run that was over was started again")
    return len(rounds)


def measure(cell, arguments):
    planned, dice = plan(cell, arguments.ends, arguments.seed)
    folder = tempfile.mkdtemp(prefix="kills-")
    site, started = Site(Path(folder)), time.monotonic()
    result = {
        "cell": list(cell), "programs": arguments.programs, "seed": arguments.seed, "ends": planned,
        "failure": "", "rounds": 0
    }
    try:
        scripts = PROGRAMS[arguments.programs]
        if arguments.programs == "real":
            scripts = dict(scripts, **OFTEN_FOLDED)
        result["rounds"] = run_cell(cell, scripts, planned, dice, site)
    except (Failure, AssertionError, FlqError, requests.RequestException) as failure:
        result["failure"] = str(failure)
        result["folder"] = folder
    finally:
        site.close()
    result["seconds"] = round(time.monotonic() - started, 1)
    if not result["failure"]:
        shutil.rmtree(folder)
    return result


COLUMNS = {
    "kill -9 at a point": lambda end: bool(end.point),
    "kill -9 at random": lambda end: end.how == "kill" and not end.point and end.victim != "both",
    "kill -9 of both": lambda end: end.victim == "both",
    "SIGTERM": lambda end: end.how == "term",
    "SIGINT": lambda end: end.how == "int",
    "paused, kill -9": lambda end: end.how == "paused kill",
    "paused, SIGTERM": lambda end: end.how == "paused term",
    "SIGSTOP": lambda end: end.how == "stop",
}


def table(results):
    lines = [
        f"| quorum | mode | memory | rounds | ends | {' | '.join(COLUMNS)} | as it should be |",
        "|" + "---|" * (6 + len(COLUMNS))
    ]
    rows = []
    for result in results:
        mode, memory, quorum = result["cell"]
        ends = [End(*end) for end in result["ends"]]
        rows.append([result["rounds"], len(ends)] +
                    [sum(map(counts, ends)) for counts in COLUMNS.values()])
        lines.append(
            f"| {quorum} | `{mode}` | `{memory}` | {' | '.join(map(str, rows[-1]))} | "
            f"{'no: ' + result['failure'] if result['failure'] else 'yes'} |"
        )
    failed = sum(bool(result["failure"]) for result in results)
    lines.append(
        f"| | | all | {' | '.join((str(sum(column)) for column in zip(*rows)))} | "
        f"{len(results) - failed} of {len(results)} |"
    )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=
        "killed, interrupted, paused and held up: whether a run ends as if nothing had happened")
    parser.add_argument(
        "--results", default="ends.jsonl",
        help="one line a run; what is in it is not run again; files of when only "
        "kill -9 was drawn (kills.jsonl) are not read (default: %(default)s)")
    parser.add_argument("--ends", type=int, default=len(ENDS),
                        help="in each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the plan (default: %(default)s)")
    parser.add_argument("--programs", choices=sorted(PROGRAMS), default="real")
    parser.add_argument("--show", action="store_true",
                        help="run nothing: the table of what is in the results file")
    parser.add_argument("--only", default="",
                        help="only runs whose name, like 'laq reference all', holds these words")
    arguments = parser.parse_args()
    path = Path(arguments.results)
    lines = path.read_text().splitlines() if path.exists() else []
    known = {(*result["cell"], result["programs"], result["seed"]): result
             for result in map(json.loads, lines)}
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
            print(
                f"{' '.join(cell)}: {len(result['ends'])} ends, {result['seconds']} "
                f"s{': ' + result['failure'] if result['failure'] else ''}",
                file=sys.stderr, flush=True)
        results.append(result)
    print(table(results))
    return 1 if any(result["failure"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
