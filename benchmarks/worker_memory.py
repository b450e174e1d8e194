#!/usr/bin/env python3
"""How much memory a worker takes beyond `import tensorflow`: the cnn, batch 32, a quarter of
Fashion-MNIST.

    python benchmarks/worker_memory.py [--data_dir D] [--model cnn] [--workers 4] [--rounds 5] \\
        [--master_python PYTHON]

Worker 0 of a real run over HTTP, alone with its master, against a process that imports NumPy,
requests and TensorFlow and ends. Measured is the largest resident size that the system saw of each
process (ru_maxrss). Runs on Python 3.6 too, where --master_python names a newer one for the master.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
IMPORTS = "import numpy, requests, tensorflow\nprint(tensorflow.__version__, numpy.__version__)"


def peak_mb(command, environment):
    """Run a command to its end: (largest resident size in MB, output)."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, universal_newlines=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status  # the process is gone: nothing waits for it again
    process.stdout.close()
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{output}")
    return usage.ru_maxrss * 1024 / 1e6, output


def measure_worker(arguments, directory, environment):
    settings = [
        "dataset.name=fmnist", "model.name=" + arguments.model,
        f"total_workers={arguments.workers}", "min_workers=1", f"max_rounds={arguments.rounds}",
        "batch_size=32", "mode=laq8", "save_results=false", "log_dir=" + directory
    ]
    port_file = os.path.join(directory, "port")
    command = [
        arguments.master_python,
        os.path.join(ROOT, "flq_master.py"), "--port", "0", "--port_file", port_file,
        "--exit_when_done", "--run_dir",
        os.path.join(directory, "run")
    ]
    for setting in settings:
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
        worker = [
            sys.executable,
            os.path.join(ROOT, "flq_worker.py"), "--worker_id", "0", "--master_url", url, "--set",
            "log_dir=" + directory
        ]
        return peak_mb(worker, environment)[0]
    finally:
        master.terminate()
        master.wait()


def main():
    parser = argparse.ArgumentParser(
        description="resident memory of a worker beyond import tensorflow")
    parser.add_argument("--data_dir", help="where fmnist.npz lies (default: FLQ_DATA_DIR)")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--workers", type=int, default=4, help="the shard is one part of as many")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--master_python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2", OMP_NUM_THREADS="1",
                           CUDA_VISIBLE_DEVICES="", FLQ_TOKEN=os.path.join(directory, "token"),
                           FLQ_STATE_DIR=os.path.join(directory, "state"))
        if arguments.data_dir:
            environment["FLQ_DATA_DIR"] = arguments.data_dir
        base, versions = peak_mb([sys.executable, "-W", "ignore", "-c", IMPORTS], environment)
        whole = measure_worker(arguments, directory, environment)
    tensorflow, numpy = versions.split()[-2:]
    print(
        "| Python | TensorFlow | NumPy | model | import tensorflow, MB | worker, MB | beyond, MB |")
    print("|---|---|---|---|---|---|---|")
    print("| {}.{}.{} | {} | {} | `{}` | {:.0f} | {:.0f} | {:.0f} |".format(
        *(sys.version_info[:3] + (tensorflow, numpy, arguments.model, base, whole, whole - base))))


if __name__ == "__main__":
    main()
