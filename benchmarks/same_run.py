#!/usr/bin/env python3
"""Drawn configurations, each played in one process and by a master and workers over HTTP: whether
it is one run.

    python benchmarks/same_run.py --results same.jsonl
    python benchmarks/same_run.py --seed 0 --only 17          # that configuration again

What is drawn: mode, b_up, memory and memory_rate, radius and block sizes, steps and target bits of
rd, coding, the downlink with all of these, cohorts, weighting, rules against bad workers, the
server's optimiser, budgets, laziness, corrections, local steps, clipping and scale_by_selected.
quorum is all; the learner is the quadratic of tests/system/quadratic.py, so that no TensorFlow is
needed. Master and workers are processes of their own (forks of this one, which has loaded
everything) with real sockets, stores and state files. In one configuration of four somebody is
ended once by kill -9, at a crash point (flq/host/crash_points.py) or at a random instant, and
started again: the master, the process of worker 0, or that of the others. Before every second new
master the run is compacted.

What must agree: config.json, history.json and summary.json but for times, wire bits and devices;
the rows with their totals and the store with the files; and the run that is computed again from its
store, before and after a compaction.

Each configuration is a line of the results file and is not played again when the script is started
again with it. Prints a Markdown table of counts, and for each configuration that differs what does
and the command that plays it again; exits with 1 where there is one.
"""

import argparse
import collections
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.kills import OF_A_STATE, WHOLE, Failure, check_folder, check_same  # noqa: E402
from flq import config as configuration  # noqa: E402
from flq.algorithm import uplink  # noqa: E402
from flq.errors import ConfigError, FlqError  # noqa: E402
from flq.host import crash_points  # noqa: E402
from flq.master import process as master_process  # noqa: E402
from flq.master.run.checks import check_budget  # noqa: E402
from flq.master.stored.audit import replay  # noqa: E402
from flq.master.stored.compaction import compact  # noqa: E402
from flq.modes import AGGREGATIONS, BLOCK, DOWNLINKS, MODES, RADII_DOWN  # noqa: E402
from flq.simulation.run import simulate  # noqa: E402
from flq.worker import process as worker_process  # noqa: E402
from tests.system.processes import history_of  # noqa: E402
from tests.system.quadratic import Quadratic  # noqa: E402

POINTS = {
    "master": ("commit.before", "commit.after", "adopt.before", "answer.before"),
    "worker": (*OF_A_STATE, "answer.after"),
}
VICTIMS = {"master": "master", "worker": "worker", "others": "worker"}
TRAINING_S = "0.005,0.015"  # so that an open round has some answers and not all
PATIENCE_S = 120.0
BLOCKS = (16, 32, 64)
# What the table counts the configurations by.
COLUMNS = ("mode", "memory", "memory_rate", "radius", "rd_target_bits", "downlink", "radius_down",
           "entropy_coding", "entropy_coding_down", "cohorts", "server_optimizer", "budget",
           "thr_scale", "correction", "kill")


class Kill(NamedTuple):
    """Who is ended once. point: of which the process dies; "": round and seconds of a random
    instant. compacted: the run, before its next master.
    """

    victim: str
    point: str
    round: int
    seconds: float
    compacted: bool


class Case(NamedTuple):
    """One configuration: keys that are set, by path, and a Kill or None."""

    number: int
    keys: dict
    kill: Kill

    @property
    def settings(self):
        return [f"{key}={json.dumps(value)}" for key, value in self.keys.items()]

    def load(self):
        return configuration.load(None, self.settings)


def draw_case(seed, number):
    """The configuration of that number; what the keys refuse together is drawn again."""
    dice = random.Random(f"{seed} {number}")
    while True:
        case = Case(number, _draw_keys(dice), _draw_kill(dice, number))
        try:
            config = case.load().config
            learner = Quadratic(config)
            check_budget(config, uplink.settings_from(config, learner.layout), learner.layout)
        except ConfigError:
            continue
        return case


def _draw_keys(dice):
    pick = dice.choice
    mode = MODES[pick(list(MODES))]
    keys = {
        "system.quorum": "all", "system.total_workers": pick((3, 3, 3, 4, 5)),
        "system.max_rounds": dice.randint(6, 9), "system.cohorts": pick((1, 1, 2, 2, 3)),
        "dataset.seed": dice.randint(0, 99), "dataset.batch_size": pick((0, 32)),
        "model.name": pick(("mlp", "softmax", "tests.quadratic:wide")),
        "model.init": pick(("glorot_uniform", "zeros")),
        "model.server_optimizer": pick(("sgd", "momentum", "adam")),
        "model.local_lr": pick((0.05, 0.2)), "logging.eval_every": pick((1, 1, 3)),
        "logging.save_results": False,
        "flq_algorithm.weighting": pick((None, "samples", "uniform")),
        "flq_algorithm.aggregation": pick(("mean", "mean", "mean", *AGGREGATIONS)),
        "flq_algorithm.clip_global": pick((0.0, 0.0, 0.5)),
        "flq_algorithm.scale_by_selected": pick((False, False, True)),
        "flq_algorithm.sel_ref": pick((0, 1, 2)), "flq_algorithm.scale_max": pick((1.0, 1.5)),
        "lazy_selection.thr_scale": pick((0.0, 0.0, 1.0, 100.0)),
        "lazy_selection.C": pick((2, 100)), "lazy_selection.D": pick((1, 3, 10)),
        "budget_selection.sel_clients": pick((0, 0, 0, 1, 2)),
        "budget_selection.up_budget_bits": pick((0, 0, 0, 150, 400, 2000)),
        "flq_algorithm.correction": pick((None, None, "bids", "count", "none")),
        "flq_algorithm.rho_max": pick((None, 1.5)),
        **pick(({"model.local_steps": 1}, {"model.local_steps": 3}, {"model.local_epochs": 1})),
    }
    keys.update(_draw_quantizer(dice, mode, ""))
    memory = pick((None, *mode.memories))
    keys.update({
        "flq_algorithm.mode": mode.name, "flq_algorithm.memory": memory,
        "flq_algorithm.memory_rate": pick((None, None, 1.0, 0.5, 0.1, 1e-3)),
        "flq_algorithm.radius": pick((None, *mode.radii, mode.radii[-1])),
        "flq_algorithm.b_up": pick((None, dice.randint(mode.min_bits, mode.max_bits))),
        "flq_algorithm.entropy_coding": pick((None, True, False, "context", "context", "context")),
        "system.master_side_information_mb": pick((256, 256, 256, 0)),
    })
    down = MODES[pick(DOWNLINKS)]
    keys.update(_draw_quantizer(dice, down, "_down"))
    keys.update({
        "flq_algorithm.downlink": down.name,
        "flq_algorithm.b_down": pick((None, None, 0, dice.randint(down.min_bits, down.max_bits))),
        "flq_algorithm.radius_down": pick(
            [radius for radius in RADII_DOWN if radius in down.radii]),
        "flq_algorithm.entropy_coding_down": pick((True, False, "context", "context")),
    })
    return keys


def _draw_quantizer(dice, mode, way):
    """Block size, and the parameters that only this mode reads."""
    keys = {f"flq_algorithm.block_size{way}": dice.choice(BLOCKS)}
    if mode.name == "rd":
        keys[f"flq_algorithm.rd_step{way}"] = dice.choice((0.5, 1.5, 4.0))
        keys[f"flq_algorithm.rd_target_bits{way}"] = dice.choice((None, 0.5, 2, 5))
    return keys


def _draw_kill(dice, number):
    """In every fourth configuration."""
    victim = dice.choice(list(VICTIMS))
    point, count = dice.choice(POINTS[VICTIMS[victim]]), dice.randint(1, 4)
    if point in WHOLE:
        count = 1  # a run this short writes a worker's state whole once
    kill = Kill(victim, dice.choice((f"{point}:{count}", "")), dice.randint(0, 4),
                dice.uniform(0.0, 0.03), dice.random() < 0.5)
    return kill if number % 4 == 3 else None


class Child:
    """A program of this run: a fork of this process. body() returns its exit code."""

    def __init__(self, folder, name, body, **variables):
        self.name, self.code, self._output = name, None, folder / f"{name}.out"
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be(body, folder, variables)

    def _be(self, body, folder, variables):
        code = 70
        try:
            output = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(folder)
            os.environ.update(variables)
            importlib.reload(crash_points)  # which looked into the environment when it was loaded
            code = body()
        except BaseException:  # whatever it is, this process ends here and not in its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self):
        """The exit code, minus the number of the signal that ended it; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(
                    status)
        return self.code

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: self.poll() is not None, f"{self.name} is gone")

    def tail(self):
        text = self._output.read_text(errors="replace") if self._output.exists() else ""
        return f"{self.name} ({self.code}): " + " / ".join(text.splitlines()[-8:])


def wait_until(condition, what):
    """condition() again and again until it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"waited {PATIENCE_S:.0f} s in vain until {what}")
        time.sleep(0.005)


class OverHttp:
    """A master, the process of worker 0, that of the others, and who is ended."""

    def __init__(self, folder, case):
        self._folder, self._case, self._loaded = folder, case, case.load()
        self.run_dir, self._token = folder / "http", folder / "token"
        self._port_file = folder / "port"
        self._children, self.killed = {}, False
        self._session = requests.Session()
        self._session.trust_env = False

    def play(self):
        try:
            for name in ("master", *list(VICTIMS)[1:]):
                self._start(name, self._case.kill)
            self._watch()
        finally:
            self._session.close()
            for child in self._children.values():
                child.kill()

    def _start(self, name, kill=None):
        armed = {"FLQ_CRASH_AT": kill.point} if kill and kill.victim == name and kill.point else {}
        body = self._master if name == "master" else lambda: self._worker(name)
        self._children[name] = Child(self._folder, name, body, SECONDS_OF_TRAINING=TRAINING_S,
                                     **armed)
        if name == "master":
            wait_until(lambda: self._port_file.exists() or self._children[name].poll() is not None,
                       "the master listens")
            if self._children[name].poll() is None:
                self._port = int(self._port_file.read_text())

    def _master(self):
        port = getattr(self, "_port", 0)
        return master_process.run(
            master_process.Options(
                self._loaded.config, self._loaded.explicit, "127.0.0.1", port, str(self.run_dir),
                False, True, str(self._token), str(self._port_file)), Quadratic, None)

    def _worker(self, name):
        last = self._loaded.config.system.total_workers
        return worker_process.run(
            worker_process.Options([0] if name == "worker" else list(range(1, last)),
                                   f"http://127.0.0.1:{self._port}", configuration.load(),
                                   str(self._token), None, False, str(self._folder / "state"),
                                   None, allow=("tests.quadratic",)),
            lambda config, workers: Quadratic(config))

    def _watch(self):
        """Until all have ended; whoever died as it should is started again."""
        kill, deadline = self._case.kill, time.monotonic() + PATIENCE_S
        while any(child.poll() is None for child in self._children.values()):
            if time.monotonic() > deadline:
                raise Failure("the run does not end: " + self._tails())
            if kill and not self.killed and not kill.point and self._rounds() >= kill.round:
                time.sleep(kill.seconds)
                self._children[kill.victim].kill()
            for name, child in list(self._children.items()):
                code = child.poll()
                if code is None or code == 0:
                    continue
                if code != -signal.SIGKILL or not kill or name != kill.victim or self.killed:
                    raise Failure(f"{name} ended with {code}: " + self._tails())
                self.killed = True
                if name == "master":
                    self._port_file.unlink()
                    if kill.compacted:
                        compact(self.run_dir, Quadratic)
                self._start(name)
            time.sleep(0.005)

    def _rounds(self):
        try:
            return self._session.get(f"http://127.0.0.1:{self._port}/status",
                                     timeout=5).json()["current_round"]
        except requests.RequestException:
            return -1

    def _tails(self):
        return "; ".join(child.tail() for child in self._children.values())


def play(case, folder, result):
    """Both runs and what is computed again. result["killed"]: whether somebody was ended. Raises
    Failure.
    """
    loaded, simulated = case.load(), folder / "simulation"

    def body():
        simulate(loaded.config, str(simulated), Quadratic(loaded.config))
        return 0

    simulation = Child(folder, "simulate", body)
    wait_until(lambda: simulation.poll() is not None, "the simulation is over")
    if simulation.code:
        raise Failure(simulation.tail())
    http = OverHttp(folder, case)
    try:
        http.play()
    finally:
        result["killed"] = http.killed
    check_same(http.run_dir, simulated)
    for run_dir in (http.run_dir, simulated):
        check_folder(run_dir, wired=run_dir is http.run_dir)
        _compute_again(run_dir)
    for run_dir in (http.run_dir, simulated):
        compact(run_dir, Quadratic)
        check_folder(run_dir, wired=run_dir is http.run_dir)
        _compute_again(run_dir)


def _compute_again(run_dir):
    rounds, _ = history_of(run_dir)
    found = replay(run_dir, Quadratic, True, lambda line: None, lambda *row: None)
    if found != rounds[-1]["params_hash"]:
        raise Failure(f"replay of {run_dir.name} gives {found}, not {rounds[-1]['params_hash']}")


def measure(case):
    folder, started = Path(tempfile.mkdtemp(prefix="same-run-")), time.monotonic()
    result = {"number": case.number, "failure": "", "killed": False}
    try:
        play(case, folder, result)
    except (Failure, FlqError, OSError) as failure:
        result.update(failure=str(failure), folder=str(folder))
    result["seconds"] = round(time.monotonic() - started, 1)
    if not result["failure"]:
        shutil.rmtree(folder)
    return result


def facts(case, result):
    """What the table counts of a configuration."""
    config = case.load().config
    algorithm, budget = config.flq_algorithm, config.budget_selection
    kill = "none" if not case.kill else case.kill.victim if result["killed"] else "came too late"
    return {
        **{name: getattr(algorithm, name) for name in COLUMNS if hasattr(algorithm, name)},
        "memory_rate": algorithm.memory_rate if algorithm.memory == "reference" else "no reference",
        "rd_target_bits": algorithm.rd_target_bits if algorithm.mode == "rd" else "not rd",
        "radius_down": algorithm.radius_down + (f" {algorithm.block_size_down}"
                                                if algorithm.radius_down == BLOCK else ""),
        "cohorts": config.system.cohorts, "server_optimizer": config.model.server_optimizer,
        "budget": " and ".join(name for name in ("sel_clients", "up_budget_bits")
                               if getattr(budget, name)) or "none",
        "thr_scale": config.lazy_selection.thr_scale, "kill": kill,
    }


def table(played):
    """played: (case, result) of each configuration."""
    lines = ["| key | configurations | differ |", "|---|---|---|"]
    rows = [(facts(case, result), bool(result["failure"])) for case, result in played]
    for name in COLUMNS:
        all_, bad = (collections.Counter(str(row[name]) for row, differs in rows
                                         if differs or not only) for only in (False, True))
        words = ", ".join(f"{value}: {count}" for value, count in sorted(all_.items()))
        differ = ", ".join(f"{value}: {count}" for value, count in sorted(bad.items())) or "0"
        lines.append(f"| {name} | {words} | {differ} |")
    lines.append(f"| all | {len(rows)} | {sum(differs for _, differs in rows)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description="drawn configurations, in one process and over HTTP: whether it is one run")
    parser.add_argument("--results", default="same.jsonl",
                        help="one line a configuration; what is in it is not played again "
                        "(default: %(default)s)")
    parser.add_argument("--configurations", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--only", type=int, metavar="NUMBER",
                        help="play this one, whatever the results file says, and keep no result")
    arguments = parser.parse_args()
    numbers = range(
        arguments.configurations) if arguments.only is None else [arguments.only]
    path = Path(arguments.results)
    known = {}
    if arguments.only is None and path.exists():
        found = (json.loads(line) for line in path.read_text().splitlines())
        known = {result["number"]: result for result in found if result["seed"] == arguments.seed}
    played = []
    for number in numbers:
        case = draw_case(arguments.seed, number)
        result = known.get(number)
        if result is None:
            result = {"seed": arguments.seed, **measure(case)}
            if arguments.only is None:
                with open(path, "a") as file:
                    file.write(json.dumps(result) + "\n")
            if result["failure"] or arguments.only is not None:
                print(f"{number}: {result['failure'] or 'the same'}\n    {case.kill}\n    "
                      f"{' '.join(case.settings)}", file=sys.stderr, flush=True)
        played.append((case, result))
    print(table(played))
    differ = [result for _, result in played if result["failure"]]
    for result in differ:
        print(f"\n{result['number']}: {result['failure']}\n    python benchmarks/same_run.py "
              f"--seed {arguments.seed} --only {result['number']}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
