#!/usr/bin/env python3
"""What a worker takes beyond TensorFlow, in memory and at its start: the cnn, batches of 32, a
quarter of Fashion-MNIST.

    python benchmarks/worker_memory.py [--data_dir D] [--rounds 10] [--stages] \\
        [--master_python PYTHON]

Worker 0 of a real run over HTTP, alone with its master, beside a process without FLQ that builds
the same model and trains it on as many batches (worker_stages.py): FLQ's part is what the worker
has more. Both as largest resident size. That process runs twice, with glibc's own settings and with
those of flq/host/heap.py, because TensorFlow's threads leave gaps in memory of which these decide
the size. Start-up ends with the first round's answer, for the other process with as many steps. It
is counted in processor time too, which other work on the machine hardly changes. Runs on Python 3.6
too, where --master_python names a newer one for the master.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STAGES = os.path.join(ROOT, "benchmarks", "worker_stages.py")
SETTINGS = ("dataset.name=fmnist", "model.name=cnn", "total_workers=4", "min_workers=1",
            "round_deadline_s=2", "batch_size=32", "local_steps=5", "mode=laq8",
            "save_results=false")
AS_A_WORKER = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
               "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""glibc's names for what flq/host/heap.py sets."""


def staged(arguments, directory, environment):
    """The stages of a process, and what it wrote."""
    path = os.path.join(directory, "stages")
    process = subprocess.run([sys.executable, "-W", "ignore", STAGES, path] + arguments,
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{process.stdout}")
    with open(path) as file:
        return [json.loads(line) for line in file], process.stdout


def of_worker(arguments, directory, environment):
    port_file = os.path.join(directory, "port")
    command = [
        arguments.master_python,
        os.path.join(ROOT, "flq_master.py"), "--port", "0", "--port_file", port_file,
        "--exit_when_done", "--run_dir",
        os.path.join(directory, "run")
    ]
    for setting in SETTINGS + (f"max_rounds={arguments.rounds}", f"eval_every={arguments.rounds}",
                               "log_dir=" + directory):
        command += ["--set", setting]
    with open(os.path.join(directory, "master.out"), "w") as log:
        master = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while not os.path.exists(port_file):
            if master.poll() is not None:
                with open(os.path.join(directory, "master.out")) as log:
                    sys.exit("the master failed:\n" + log.read())
            time.sleep(0.1)
        with open(port_file) as file:
            url = "http://127.0.0.1:" + file.read().strip()
        options = ["--worker_id", "0", "--master_url", url, "--set", "log_dir=" + directory]
        return staged(["worker"] + options, directory, environment)[0]
    finally:
        master.terminate()
        master.wait()


def show(title, stages):
    """Every stage, of repeated ones the first, second and last."""
    names = [row["stage"] for row in stages]
    print(f"\n| {title} | s | processor s | anonymous MB | of files MB | largest MB |")
    print("|---|---|---|---|---|---|")
    for place, row in enumerate(stages):
        number, count = names[:place].count(row["stage"]), names.count(row["stage"])
        if number < 2 or number == count - 1:
            name = row["stage"] + (f" {number + 1}" if count > 1 else "")
            print("| {} | {s:.2f} | {processor_s:.2f} | {anonymous:.0f} | {file:.0f} | {peak:.0f} |"
                  .format(name, **row))


def first(stages, stage):
    return next(row for row in stages if row["stage"].startswith(stage))


def main():
    parser = argparse.ArgumentParser(
        description="memory and start-up time of a worker beyond import tensorflow")
    parser.add_argument("--data_dir", help="where fmnist.npz lies (default: FLQ_DATA_DIR)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--stages", action="store_true", help="print every stage too")
    parser.add_argument("--master_python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2", OMP_NUM_THREADS="1",
                           CUDA_VISIBLE_DEVICES="", FLQ_TOKEN=os.path.join(directory, "token"),
                           FLQ_STATE_DIR=os.path.join(directory, "state"))
        if arguments.data_dir:
            environment["FLQ_DATA_DIR"] = arguments.data_dir
        alone = ["model", str(arguments.rounds)]
        plain, said = staged(alone, directory, environment)
        model, _ = staged(alone, directory, dict(environment, **AS_A_WORKER))
        worker = of_worker(arguments, directory, environment)
    if arguments.stages:
        show("the model without FLQ", model)
        show("the worker", worker)
    base = first(model, "import tensorflow")["peak"]
    beyond = [stages[-1]["peak"] - base for stages in (plain, model, worker)]
    start = [first(stages, "round trained") for stages in (model, worker)]
    spent = [worker_s - model_s for model_s, worker_s in
             zip(*([row[unit] for unit in ("s", "processor_s")] for row in start))]
    print("\n| Python | TensorFlow | NumPy | import tensorflow, MB | the model beyond it, MB "
          "| with the worker's settings, MB | the worker, MB | FLQ's part, MB "
          "| FLQ's part of the start, s | in processor time, s |")
    print("|" + "---|" * 10)
    print("| {}.{}.{} | {} | {} | {:.0f} | {:.0f} | {:.0f} | {:.0f} | {:.0f} | {:.1f} | {:.1f} |"
          .format(*sys.version_info[:3], *said.split()[-2:], base, *beyond, beyond[2] - beyond[1],
                  *spent))


if __name__ == "__main__":
    main()
