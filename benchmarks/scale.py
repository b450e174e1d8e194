#!/usr/bin/env python3
"""What a round costs against the number of workers M and of weights p, without the training; and
what one master can carry by that.

    python benchmarks/scale.py --file scale.jsonl --plot docs/scale.png
    python benchmarks/scale.py --file scale.jsonl --show

A master and one process with all workers, on loopback: the real protocol, the run store, the
workers' state files, `laq` as by default both ways, one cohort, updates from a table (normal, of
which coding saves less than of real ones). Processor time is user and system; seconds depend on who
else uses the machine, so none are printed. Each cell of M and p is a line of --file, and is not
measured again. Prints a Markdown table, the fits

    y = a + b M + c p + d M p        a, b, c, d >= 0, least squares of relative errors

with the largest error of each, and what of the network, the processor, the memory and the disk ends
a master first. --show measures nothing.
"""

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.round_time import CNN, TableLearner  # noqa: E402
from flq import config  # noqa: E402
from flq.parameters import Layout  # noqa: E402

MODELS = {
    "softmax": Layout(((64, 10), (10,))),  # on 8x8 pixels
    "cnn_small": Layout(((3, 3, 1, 16), (16,), (3, 3, 16, 32), (32,), (1568, 32), (32,), (32, 10),
                         (10,))),  # on 28x28
    "cnn": CNN,
}
MEASURED = {
    "master_s": "the master's processor time, s",
    "worker_s": "a worker's processor time, s",
    "up": "on the wire, bytes up a worker",
    "down": "down",
    "resident": "the master's memory beyond its start, bytes",
    "stored": "in run.db, bytes",
    "written": "what the master has the disk write, bytes",
}
# of 1, M, p and M p; a worker's own cost does not know M
FEATURES = {name: (0, 2) if name in ("worker_s", "up", "down") else (0, 1, 2, 3)
            for name in MEASURED}
SETUPS = {
    "a PC, 1 Gbit/s": {"slower": 1, "bytes_s": 1e9 / 8, "memory": 16e9, "disk": 2e8, "room": 1e12},
    "a PC, 100 Mbit/s": {"slower": 1, "bytes_s": 1e8 / 8, "memory": 16e9, "disk": 2e8,
                         "room": 1e12},
    "a Nano, 100 Mbit/s, its card": {"slower": 6, "bytes_s": 1e8 / 8, "memory": 3e9, "disk": 1e7,
                                     "room": 3.2e10},
}


def resident():
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmRSS:")[1].split()[0])


def written():
    text = Path("/proc/self/io").read_text()
    return int(text.split("\nwrite_bytes:")[1].split()[0])


def master_role(arguments):
    from flq.master import process
    settings = config.load(None, [
        f"total_workers={arguments.workers[0]}", f"max_rounds={arguments.rounds}", "quorum=all",
        "partition=local", "save_results=false", "cohorts=1", "log_level=WARNING"]).config
    options = process.Options(settings, set(), "127.0.0.1", 0, "run", False, True, "token", "port")
    learner, before, wrote = TableLearner(MODELS[arguments.models[0]]), resident(), written()
    code = process.run(options, lambda _: learner, None)
    largest = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with sqlite3.connect(os.path.join("run", "run.db")) as store:
        stored = sum(store.execute(query).fetchone()[0] for query in (
            "SELECT sum(length(record) + length(accounting) + length(broadcast)) FROM rounds",
            "SELECT sum(length(row) + length(reference_hash) + length(frame)) FROM answers"))
    Path("master.json").write_text(json.dumps({
        "master_s": learner.used_a_round_s(), "resident": largest - before,
        "stored": stored / arguments.rounds, "written": (written() - wrote) / arguments.rounds}))
    return code


def worker_role(arguments):
    from flq.worker import process
    learner = TableLearner(MODELS[arguments.models[0]])
    options = process.Options(range(arguments.workers[0]),
                              "http://127.0.0.1:" + Path("port").read_text().strip(),
                              config.load(None, []), "token", 600.0, False, "state", None)
    code = process.run(options, lambda *_: learner)
    # The updates of all workers are one after the other in its notes.
    Path("worker.json").write_text(json.dumps({"worker_s": learner.used_a_round_s()}))
    return code


def measure(workers, model, arguments):
    """The line of one cell."""
    with tempfile.TemporaryDirectory(prefix="scale-", dir=arguments.folder) as folder:
        base = [sys.executable, os.path.abspath(__file__), "--workers", str(workers), "--models",
                model, "--rounds", str(arguments.rounds), "--file", "unused", "--role"]
        master = subprocess.Popen(base + ["master"], cwd=folder, stdout=subprocess.DEVNULL)
        while not Path(folder, "port").exists() and master.poll() is None:
            time.sleep(0.05)
        processes = [master, subprocess.Popen(base + ["worker"], cwd=folder,
                                              stderr=subprocess.DEVNULL)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"a process failed: exit codes {codes}")
        told = [json.loads(Path(folder, name).read_text())
                for name in ("master.json", "worker.json")]
        history = json.loads(Path(folder, "run", "history.json").read_text())["rounds"]
    # In the first rounds workers come and fetch; the last broadcast is fetched after the last one.
    wires = {name: statistics.median(record[f"wire_bits_{name}"] for record in history[2:-1])
             / 8 / workers for name in ("up", "down")}
    return {"workers": workers, "model": model, "p": MODELS[model].num_params,
            "load": os.getloadavg()[0], **told[0], **told[1], **wires}


def fit(lines, name):
    """(the four coefficients, the largest relative error). Those that would be negative are 0."""
    workers, p = (np.array([line[key] for line in lines], float) for key in ("workers", "p"))
    y = np.array([line[name] for line in lines])
    terms = np.stack([np.ones_like(p), workers, p, workers * p], axis=1) / y[:, None]
    chosen, found = list(FEATURES[name]), np.zeros(4)
    while True:
        scale = np.abs(terms[:, chosen]).max(axis=0)  # p is some thousand times as large as 1
        values = np.linalg.lstsq(terms[:, chosen] / scale, np.ones_like(y), rcond=None)[0] / scale
        if (values >= 0).all():
            break
        del chosen[int(values.argmin())]
    found[chosen] = values
    return found, float(np.abs(terms @ found - 1).max())


def predicted(fits, name, workers, p):
    return float(fits[name][0] @ [1, workers, p, workers * p])


def limits(fits, workers, p, setup):
    """Seconds of a round on each resource of a master, the part of its memory, and rounds until the
    disk is full. The uploads begin when the broadcast is there, so both take the network's time.
    The processor is that of the machine that was measured, `slower` times as slow.
    """
    wire = workers * sum(predicted(fits, way, workers, p) for way in ("up", "down"))
    return {
        "network_s": wire / setup["bytes_s"],
        "processor_s": setup["slower"] * predicted(fits, "master_s", workers, p),
        "disk_s": predicted(fits, "written", workers, p) / setup["disk"],
        "memory": predicted(fits, "resident", workers, p) / setup["memory"],
        "rounds": setup["room"] / predicted(fits, "stored", workers, p),
    }


def most_workers(fits, p, setup, round_s=10.0):
    """The largest M whose round takes round_s on no resource, in so much memory."""
    def fits_in(workers):
        found = limits(fits, workers, p, setup)
        return (max(found["network_s"], found["processor_s"], found["disk_s"]) <= round_s
                and found["memory"] <= 1)

    most, step = 0, 1 << 24
    while step:
        most, step = most + (step if fits_in(most + step) else 0), step // 2
    return most


def table(lines):
    print(f"| workers | model | {' | '.join(MEASURED.values())} |\n" + "|---" * 9 + "|")
    for line in lines:
        print(f"| {line['workers']} | `{line['model']}`, {line['p']:,} | "
              + " | ".join(f"{line[name]:.4f}" if name.endswith("_s") else f"{line[name]:,.0f}"
                           for name in MEASURED) + " |")


def fits_of(lines):
    fits = {name: fit(lines, name) for name in MEASURED}
    print("\n| of a round | a | b, a worker | c, a weight | d, a worker and weight "
          "| largest error |\n" + "|---" * 6 + "|")
    for name, (values, error) in fits.items():
        print(f"| {MEASURED[name]} | " + " | ".join(f"{value:.3g}" for value in values)
              + f" | {100 * error:.0f} % |")
    return fits


def endings(fits, workers=64):
    print("\n| master | model | network, s a round | processor, s | disk, s | memory, % of it "
          "| rounds until the disk is full | most workers at 10 s a round |\n" + "|---" * 8 + "|")
    for name, setup in SETUPS.items():
        for model, layout in MODELS.items():
            found = limits(fits, workers, layout.num_params, setup)
            print(f"| {name} | `{model}` | {found['network_s']:.2g} | {found['processor_s']:.2g} | "
                  f"{found['disk_s']:.2g} | {100 * found['memory']:.2g} | "
                  f"{found['rounds']:,.0f} | "
                  f"{most_workers(fits, layout.num_params, setup):,} |")


def plot(lines, fits, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, all_axes = pyplot.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    ticks = sorted({line["workers"] for line in lines})
    for axes, (name, title) in zip(all_axes, (
            ("master_s", "the master's processor, s a round"),
            ("resident", "the master's memory, MB"), ("stored", "run.db, MB a round"))):
        for model in MODELS:
            found = sorted((line["workers"], line[name]) for line in lines
                           if line["model"] == model)
            if found:
                workers, values = np.array(found).T
                unit = 1 if name == "master_s" else 1e6
                points = axes.loglog(workers, values / unit, "o", label=model)[0]
                smooth = np.geomspace(workers[0], workers[-1])
                p = MODELS[model].num_params
                axes.loglog(smooth, [predicted(fits, name, M, p) / unit for M in smooth],
                            color=points.get_color(), linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("workers")
        axes.minorticks_off()
        axes.set_xticks(ticks, labels=map(str, ticks))
        axes.grid(alpha=0.3)
    all_axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(given=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--file", type=Path, required=True, help="what was measured")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--folder", help="on the disk to measure")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--role", choices=("master", "worker"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.role:
        return {"master": master_role, "worker": worker_role}[arguments.role](arguments)
    text = arguments.file.read_text() if arguments.file.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    known = {(line["workers"], line["model"]) for line in lines}
    for model in () if arguments.show else arguments.models:
        for workers in arguments.workers:
            if (workers, model) not in known:
                lines.append(measure(workers, model, arguments))
                with open(arguments.file, "a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    table(lines)
    fits = fits_of(lines)
    endings(fits)
    if arguments.plot:
        plot(lines, fits, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
