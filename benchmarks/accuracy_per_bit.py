#!/usr/bin/env python3
"""Bits, rounds and seconds to a test accuracy, every receiver counted: Fashion-MNIST, 20 workers,
Dirichlet 0.1, the cnn.

    # hours: measures what is not there yet
    python benchmarks/accuracy_per_bit.py --out build/accuracy
    python benchmarks/accuracy_per_bit.py --out build/accuracy --table \\
        --plot docs/accuracy_per_bit.png
    # minutes: cnn_small, 10 workers
    python benchmarks/accuracy_per_bit.py --out build/small --small

Each variant and seed is one simulated run. It may be killed at any time and goes on where it ended
when it is started again; what it showed is kept as OUT/NAME-SEED.json. A run ends when the mean of
its last three tests (--mean) has reached --until, when it has spent --bits in total, or played all
rounds. Batches of 64, all workers wait for each other, the whole test set. Bits are up + down, to
and from every worker: the encoded bodies of the simulation plus what frames and HTTP add on a wire,
measured once a folder with real processes on loopback.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq import config  # noqa: E402

LEVELS = (0.80, 0.85, 0.88)
BUDGETS = (3e8, 1e9)
COMMON = ["partition=non_iid", "dir_alpha=0.1", "batch_size=64", "quorum=all", "log_level=ERROR"]


class Size(NamedTuple):
    """settings: of the task. rates: for every variant that does not name its own."""

    settings: str
    rates: str
    seeds: tuple
    rounds: int


_RATES = "local_steps=5 local_lr=0.1 server_optimizer=momentum lr=0.3"

SIZES = {
    "full": Size("total_workers=20 model.name=cnn eval_every=5", _RATES, (0, 1, 2), 220),
    "small": Size("total_workers=10 model.name=cnn_small eval_every=2", _RATES, (0,), 50),
}

# Half of the workers play a round, the reference takes in a part of what was committed, levels are
# coded beside the history of their stream, and the server's rate is the one that suits this.
_COHORTS, _MEMORY = "cohorts=2 lr=0.4", "memory=reference memory_rate=0.4"
_CONTEXTS = "entropy_coding=context entropy_coding_down=context"
_ALL = " ".join((_COHORTS, _MEMORY, _CONTEXTS))
_RD, _DOWN = "mode=rd rd_step=2.5 radius=vector", "downlink=bbit b_down=3"
_NONE = "cohorts=1 memory_rate=1 entropy_coding=true entropy_coding_down=true averaging=0"

# name -> settings of the modes before there was any of these, whatever the defaults are now.
BEFORE = {
    name: f"{settings} {_NONE}" for name, settings in {
        "float32": "mode=fedavg b_down=32",
        "bin": f"mode=bin entropy_coding=false {_DOWN}",
        "laq": "mode=laq b_up=4 downlink=bbit b_down=4",
        "rd": f"{_RD} {_DOWN}",
        "laq8": "mode=laq8 downlink=bbit b_down=4",
        "bbit": "mode=bbit b_up=4 downlink=bbit b_down=4",
        "qsgd": "mode=qsgd b_up=4 downlink=bbit b_down=4",
        "rd of 30 %": f"{_RD} {_DOWN} sel_clients={{selected}}",
    }.items()
}

# name -> settings; those of ALL_SEEDS are compared over all seeds, the others over the first one.
VARIANTS = {
    "float32": "mode=fedavg b_down=32",
    "bin": f"mode=bin {_DOWN} {_COHORTS} memory_rate=0.1 {_CONTEXTS}",
    "laq": f"mode=laq b_up=4 {_DOWN} {_ALL}",
    "rd": f"{_RD} {_DOWN} {_ALL}",
    "rd, all workers": f"{_RD} {_DOWN} cohorts=1 lr=0.4 {_MEMORY} {_CONTEXTS}",
    "rd, memory rate 1": f"{_RD} {_DOWN} {_COHORTS} memory_rate=1 {_CONTEXTS}",
    "rd, blocks down": f"{_RD} {_DOWN} radius_down=block block_size_down=256 {_ALL}",
    "rd, no contexts": f"{_RD} {_DOWN} {_ALL} entropy_coding=true entropy_coding_down=true",
    "rd, no average": f"{_RD} {_DOWN} {_ALL} averaging=0",
    "rd, none of these": BEFORE["rd"],
    "laq, none of these": BEFORE["laq"],
    "bbit": f"mode=bbit b_up=4 {_DOWN} {_ALL}",
    "qsgd": f"mode=qsgd b_up=4 {_DOWN} {_CONTEXTS}",
    "rd of 30 %": f"{_RD} {_DOWN} {_MEMORY} {_CONTEXTS} sel_clients={{selected}}",
}
_OVER_ALL_SEEDS = ("float32", "bin", "laq", "rd")
ALL_SEEDS = tuple(name for name in VARIANTS if name.partition(",")[0] in _OVER_ALL_SEEDS)

# Local steps, local rate and the server's rate, in float32 both ways.
SWEEP = [
    "local_steps={} local_lr={} server_optimizer={} lr={}".format(*values)
    for values in ((5, 0.1, "momentum", 0.1), (5, 0.1, "momentum", 0.2), (10, 0.1, "sgd", 1.0),
                   (10, 0.2, "sgd", 2.0), (20, 0.1, "sgd", 2.0), (20, 0.2, "sgd", 4.0))
]


# Parts of what was committed that the reference takes in, beside each other.
MEMORY_RATES = {
    f"{name}, a = {rate}": f"{BEFORE[name]} memory_rate={rate}" for name in ("bin", "rd", "laq")
    for rate in (1, 0.3, 0.1)
}


def settings_of(size, variant, extra, dataset, seed, rounds):
    """The configuration of one run; what stands later counts."""
    task = COMMON + ["dataset.name=" + dataset, f"seed={seed}", f"max_rounds={rounds}"
                     ] + size.settings.split()
    workers = config.load(None, task).config.system.total_workers
    words = (size.rates + " " + variant.format(selected=max(1, round(0.3 * workers)))).split()
    return config.load(None, task + words + extra).config


def overhead(two_phase, folder):
    """Bytes that a worker's round adds on a wire to the encoded bodies, up and down: real
    processes, real HTTP.

    The long polls of slow rounds and heartbeats add to it; rounds here take a fraction of a second.
    """
    workers, rounds = 4, 20
    words = [
        f"total_workers={workers}", f"max_rounds={rounds}", "quorum=all", "eval_every=100",
        "model.name=mlp", "save_results=false", "log_level=ERROR",
        "logging.log_dir=" + str(folder / "logs")
    ] + (["sel_clients=4"] if two_phase else [])
    sets = [part for word in words for part in ("--set", word)]
    port, token = folder / "port", folder / "token"
    python = [sys.executable]
    master = subprocess.Popen(
        python + [
            str(ROOT / "flq_master.py"), "--port", "0", "--port_file",
            str(port), "--token_file",
            str(token), "--run_dir",
            str(folder / "run"), "--exit_when_done"
        ] + sets, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not port.exists() and master.poll() is None:
        time.sleep(0.1)
    worker = subprocess.run(
        python + [
            str(ROOT / "flq_worker.py"), "--master_url", "http://127.0.0.1:" +
            port.read_text().strip(), "--worker_id", f"0-{workers - 1}", "--token_file",
            str(token), "--allow", "benchmarks", "--state_dir",
            str(folder / "state")
        ], cwd=ROOT, stdout=subprocess.DEVNULL)
    if master.wait() or worker.returncode:
        raise SystemExit(
            f"the overhead could not be measured: exit codes {master.returncode} and "
            f"{worker.returncode}"
        )
    bits = json.loads((folder / "run" / "summary.json").read_text())["bits"]
    return {
        way: (bits[way]["wire"] - bits[way]["payload"]) / 8 / workers / rounds
        for way in ("up", "down")
    }


def best_mean(accuracies, tests):
    """The best mean of so many tests in a row; 0 before there are as many."""
    return max((statistics.mean(accuracies[end - tests:end])
                for end in range(tests, len(accuracies) + 1)), default=0.0)


def watcher(until, tests, bits, every_s=1.0):
    """watch for simulate: a thread that stops the run once the mean of so many tests or its bits
    are reached.
    """
    def watch(service):
        def look():
            while not service.wait_for_end(every_s):
                with service.locked():
                    tested = [
                        record.accuracy for record in service.run.history.rows()
                        if record.accuracy is not None
                    ]
                    spent = (service.run.history.accounting.up.payload +
                             service.run.history.accounting.down.payload)
                if best_mean(tested, tests) >= until or spent >= bits:
                    service.stop()
                    return
        threading.Thread(target=look, daemon=True).start()
    return watch


def measure(settings, folder, learners, until, tests, bits):
    """One run, from where it stands: its tested rounds as [rounds, accuracy, loss, bits up, bits
    down, seconds].
    """
    from flq.learning.learner import build_learner
    from flq.simulation.run import simulate
    key = (settings.dataset, settings.model, settings.system.total_workers)
    if key not in learners:
        learners.clear()  # one data set in memory at a time
        learners[key] = build_learner(settings, range(settings.system.total_workers), evaluate=True,
                                      replicas=os.cpu_count() or 1)
    watch = watcher(until, tests, bits)
    _, run = simulate(settings, str(folder), learners[key], watch, resume=True)
    tested = [record["accuracy"] for record in run.rounds if record["accuracy"] is not None]
    over = run.summary["phase"] == "FINISHED" or best_mean(tested, tests) >= until or \
        sum(run.summary["bits"][way]["payload"] for way in ("up", "down")) >= bits
    if not over:
        raise SystemExit(f"interrupted after {run.summary['rounds']} rounds; start again to go on")
    points, up, down, seconds = [], 0, 0, 0.0
    for record in run.rounds:
        up, down, seconds = up + record["payload_bits_up"], down + record[
            "payload_bits_down"], seconds + record["round_time_s"]
        if record["accuracy"] is not None:
            points.append(
                [record["round"] + 1, record["accuracy"], record["loss"], up, down, seconds])
    budget = settings.budget_selection
    return {
        "points": points, "two_phase": bool(budget.sel_clients or budget.up_budget_bits),
        "workers": settings.system.total_workers, "cohorts": settings.system.cohorts,
        "rounds": run.summary["rounds"],
        "float32_a_round": 2 * run.rounds[-1]["float32_bits_up"]
    }


def on_wire(result, overheads):
    """The points with the overhead of frames and HTTP added: [rounds, accuracy, bits up, bits down,
    seconds].
    """
    added = overheads["two_phase" if result["two_phase"] else "one_phase"]
    playing = result["workers"] / result.get("cohorts", 1)
    per_round = {way: 8 * added[way] * playing for way in ("up", "down")}
    return [[
        rounds, accuracy, up + rounds * per_round["up"], down + rounds * per_round["down"], seconds
    ] for rounds, accuracy, _, up, down, seconds in result["points"]]


def averaged(points, tests):
    """The points from the tests-th on, with the mean accuracy of the last `tests` tests each: one
    test that crosses a level by chance is no result.
    """
    return [[rounds, statistics.mean(point[1] for point in points[end - tests:end]), *rest]
            for end, (rounds, _, *rest) in enumerate(points, 1) if end >= tests]


def first_at(points, level):
    """The first tested round with at least that accuracy, or None."""
    return next((point for point in points if point[1] >= level), None)


def best_within(points, bits):
    """The best accuracy that was tested before the total passed `bits`; None where the run ended
    before it spent them.
    """
    within = [point[1] for point in points if point[2] + point[3] <= bits]
    return max(within) if within and (points[-1][2] + points[-1][3] > bits
                                      or points[-1][1] >= LEVELS[-1]) else None


def to_level(runs, level):
    """Mean rounds, bits and seconds of the runs that reached a level, as a cell of the table."""
    found = [point for point in (first_at(points, level) for points in runs) if point is not None]
    if not found:
        return "not reached"
    rounds, bits, seconds = (
        statistics.mean(values)
        for values in zip(*((rounds, up + down, s) for rounds, _, up, down, s in found)))
    mark = "" if len(found) == len(runs) else f" ({len(found)} of {len(runs)})"
    return f"{rounds:.0f}; {scientific(bits)}; {seconds:.0f}{mark}"


def spread(values):
    values = [value for value in values if value is not None]
    if not values:
        return ""
    return f"{values[0]:.3f}" if len(
        values) == 1 else f"{statistics.mean(values):.3f} ({statistics.stdev(values):.3f})"


def scientific(value):
    return f"{value:.2e}".replace("e+0", "e").replace("e+", "e")


def table(results, overheads, tests=1, levels=LEVELS, budgets=BUDGETS):
    """results: {name: [one result a seed]}. tests: that an accuracy is the mean of.

    Means over the seeds that reached a level; how many did stands behind it. The last level also
    for single tests.
    """
    heads = [f"to {level:.2f}: rounds; bits; s" for level in levels]
    heads.append(f"one test of {levels[-1]:.2f}: rounds; bits; s")
    heads += [f"best within {scientific(bits)} bits" for bits in budgets]
    print("| settings | seeds | " + " | ".join(heads) +
          " | best, after rounds | up, Mbit a round | down, Mbit a round |")
    print("|---|---|" + "---|" * (len(heads) + 3))
    for name, group in results.items():
        single = [on_wire(result, overheads) for result in group]
        runs = [averaged(points, tests) for points in single]
        cells = [to_level(runs, level) for level in levels] + [to_level(single, levels[-1])]
        cells += [spread([best_within(points, bits) for points in runs]) for bits in budgets]
        best = spread([max((point[1] for point in points), default=None) for points in runs])
        cells.append(f"{best}, {statistics.mean(points[-1][0] for points in single):.0f}")
        cells += [
            f"{statistics.mean(points[-1][k] / points[-1][0] for points in single) / 1e6:.2f}"
            for k in (2, 3)
        ]
        print(f"| {name} | {len(runs)} | {' | '.join(cells)} |")


def plot(results, overheads, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for number, (name, group) in enumerate(results.items()):
        for seed, result in enumerate(group):
            points = on_wire(result, overheads)
            style = {
                "color": f"C{number % 10}", "label": name if seed == 0 else None, "linewidth": 1.2,
                "alpha": 0.8, "linestyle": "-" if number < 10 else "--"
            }
            left.semilogx([point[2] + point[3] for point in points], [point[1] for point in points],
                          **style)
            right.plot([point[0] for point in points], [point[1] for point in points], **style)
    left.set(xlabel="bits up and down, all workers", ylabel="test accuracy")
    right.set(xlabel="rounds")
    for axes in (left, right):
        axes.grid(True, alpha=0.3)
        axes.set_ylim(bottom=0.5)
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def stored(folder):
    """{name: [results in the order of seeds]}, in the order of VARIANTS and then of names."""
    found = {}
    for path in sorted(folder.glob("*-[0-9]*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["name"], []).append(result)
    order = list(VARIANTS) + list(MEMORY_RATES)
    return dict(
        sorted(found.items(), key=lambda item: (order.index(item[0])
                                                if item[0] in order else len(order), item[0])))


def overheads_of(folder):
    """Measured once a folder."""
    path = folder / "overhead.json"
    if not path.exists():
        measured = {}
        for name in ("one_phase", "two_phase"):
            with tempfile.TemporaryDirectory() as temporary:
                measured[name] = overhead(name == "two_phase", Path(temporary))
        path.write_text(json.dumps(measured) + "\n")
    return json.loads(path.read_text())


def planned(arguments, size):
    """(name, settings, further overrides, seed) of the runs that were asked for."""
    first = arguments.seeds or size.seeds[:1]
    known = BEFORE if arguments.before else VARIANTS
    asked = arguments.variants or list(known)
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise SystemExit(f"{unknown[0]} is none of these variants: {', '.join(known)}")
    if arguments.name:
        return [(arguments.name, known[asked[0]], arguments.set, seed) for seed in first]
    if arguments.sweep:
        return [(rates, BEFORE["float32"] + " " + rates, arguments.set, seed) for seed in first
                for rates in SWEEP]
    if arguments.memory_rates:
        return [(name, variant, arguments.set, seed) for seed in first
                for name, variant in MEMORY_RATES.items() if name.partition(",")[0] in asked]
    runs = [(name, known[name], arguments.set, seed) for seed in size.seeds for name in asked
            if seed == size.seeds[0] or name in ALL_SEEDS]
    return [run for run in runs if not arguments.seeds or run[3] in arguments.seeds]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--small", action="store_const", const="small", dest="size", default="full",
                        help="cnn_small, 10 workers")
    parser.add_argument("--dataset", default="fmnist", help="default: %(default)s")
    parser.add_argument("--variants", nargs="+", help=f"of {', '.join(VARIANTS)} (default: all)")
    parser.add_argument("--before", action="store_true",
                        help=f"{', '.join(BEFORE)} without cohorts, memory rates, coding beside "
                        "histories and averages, whatever the defaults are")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--until", type=float, default=1.0,
                        help="a run ends when the mean of its last tests is this accurate")
    parser.add_argument("--bits", type=float, default=float("inf"),
                        help="a run ends when its bodies have these bits")
    parser.add_argument("--sweep", action="store_true",
                        help="the rates, in float32, instead of the variants")
    parser.add_argument("--memory_rates", action="store_true",
                        help="bin, rd and laq with memory_rate 1, 0.3 and 0.1")
    parser.add_argument("--set", action="append", default=[],
                        help="further overrides for every run")
    parser.add_argument("--name",
                        help="one run of the first of --variants with --set, under this name")
    parser.add_argument("--bfloat16", action="store_true",
                        help="products in bfloat16: faster where a processor has them")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--mean", type=int, default=3, metavar="TESTS",
                        help="an accuracy is the mean of so many tests in a row (default: 3)")
    parser.add_argument("--plot", metavar="FILE")
    arguments = parser.parse_args()
    folder, size = Path(arguments.out), SIZES[arguments.size]
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.table or arguments.plot:
        results, overheads = stored(folder), overheads_of(folder)
        if arguments.table:
            table(results, overheads, arguments.mean)
        if arguments.plot:
            plot(results, overheads, arguments.plot)
        return
    if arguments.bfloat16:
        import tensorflow
        tensorflow.config.optimizer.set_experimental_options(
            {"auto_mixed_precision_onednn_bfloat16": True})
    learners = {}
    for name, variant, extra, seed in planned(arguments, size):
        stem = "".join(letter if letter.isalnum() or letter in "._=" else "_"
                       for letter in name) + f"-{seed}"
        path, run_dir = folder / (stem + ".json"), folder / (stem + ".run")
        if path.exists():
            continue
        settings = settings_of(size, variant, extra, arguments.dataset, seed, arguments.rounds
                               or size.rounds)
        result = measure(settings, run_dir, learners, arguments.until,
                         arguments.mean, arguments.bits)
        overrides = size.rates.split() + variant.split() + extra
        result.update(
            name=name, seed=seed, size=arguments.size, bfloat16=arguments.bfloat16,
            dataset=arguments.dataset, overrides=" ".join(overrides), machine=
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        path.write_text(json.dumps(result) + "\n")
        shutil.rmtree(run_dir)  # the run's store holds every upload
        best = max(point[1] for point in result["points"])
        total = sum(result["points"][-1][3:5])
        print(
            f"{name} seed {seed}: best {best:.4f} after {result['rounds']} rounds, "
            f"{scientific(total)} bits",
            flush=True)


if __name__ == "__main__":
    main()
