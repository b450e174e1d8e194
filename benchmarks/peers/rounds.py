#!/usr/bin/env python3
"""What a round costs without the training: Flower (both flows) and NVFlare beside FLQ, p = 467,818,
one machine, one process a worker.

    benchmarks/peers/install.sh flwr nvflare        # once
    python benchmarks/peers/rounds.py --workers 4 8 --rounds 30

Every client gets the model and answers with the model plus an update from a table (FLQ: the update,
benchmarks/round_time.py). The peers send float32 both ways, which is what they do by default.
Seconds from the end of one round to the end of the next, after the first three; processor time,
user and system, is that of all processes of the system in a round. Prints a Markdown table.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import round_time  # noqa: E402
from processes import Group, free_ports, listens, wait_for  # noqa: E402

SKIPPED = 3
LONGEST_S = 600.0


def flower_legacy(group, workers, rounds, file):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    server = group.start(group.bin / "python", HERE / "flower_legacy.py", "server", address,
                         workers, rounds, file)
    wait_for(lambda: listens(int(address.rpartition(":")[2])) or server.poll() is not None,
             "Flower's server", LONGEST_S)
    for _ in range(workers):
        group.start(group.bin / "python", HERE / "flower_legacy.py", "client", address)
    return server


def flower_messages(group, workers, rounds, file):
    port, *node_ports = free_ports(1 + workers)
    link = group.superlink(port)
    wait_for(lambda: listens(port) or link.poll() is not None, "Flower's SuperLink", LONGEST_S)
    for node_port in node_ports:
        group.start(group.bin / "flower-supernode", "--insecure", "--superlink",
                    f"127.0.0.1:{port}", "--port", node_port)
    values = f'workers={workers} rounds={rounds} file="{file}"'
    return group.start(group.bin / "flwr", "run", HERE / "flower_app", "local", "--stream",
                       "--run-config", values)


def nvflare(group, workers, rounds, file):
    return group.start(group.bin / "python", HERE / "nvflare_job.py", workers, rounds, file,
                       group.folder)


SYSTEMS = {
    "Flower, start_server": ("flwr", flower_legacy), "Flower, messages": ("flwr", flower_messages),
    "NVFlare, simulator": ("nvflare", nvflare)
}


def measure(name, workers, rounds, peers):
    """Seconds and processor seconds of each round, in a process whose descendants are the system's
    (--role).
    """
    environment_name, start = SYSTEMS[name]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "rounds.jsonl"
        settings = {
            "PYTHONPATH": str(HERE), "ROUNDS_ROOT": str(os.getpid()), "FLWR_HOME": folder,
            "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"
        }
        group = Group(folder, Path(peers).resolve() / environment_name / "bin", settings)
        try:
            last = start(group, workers, rounds, file)
            wait_for(lambda: last.poll() is not None or lines_of(file) >= rounds, name, LONGEST_S)
            with contextlib.suppress(subprocess.TimeoutExpired):
                last.wait(60)  # it ends its own children
        finally:
            group.end()
        if lines_of(file) < min(rounds, SKIPPED + 3):
            logs = "\n".join((Path(folder) / f"log-{index}").read_text()[-1500:]
                             for index in range(len(group.processes)))
            raise SystemExit(f"{name}: {lines_of(file)} of {rounds} rounds\n{logs}")
        notes = [json.loads(line) for line in file.read_text().splitlines()][SKIPPED - 1:]
    times, used = zip(*notes)
    return [after - before
            for before, after in zip(times, times[1:])], (used[-1] - used[0]) / (len(used) - 1)


def lines_of(file):
    return len(file.read_text().splitlines()) if file.exists() else 0


def row(name, version, workers, seconds, used):
    ordered = sorted(seconds)
    print(
        f"| {name} {version} | {workers} | {len(seconds)} | {statistics.median(seconds):.3f} | "
        f"{ordered[int(0.9 * len(ordered))]:.3f} | {used:.3f} |",
        flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--peers", default=str(HERE.parent.parent / "build" / "peers"))
    parser.add_argument("--systems", nargs="+", default=["FLQ"] + list(SYSTEMS),
                        choices=["FLQ"] + list(SYSTEMS))
    parser.add_argument("--role", choices=sorted(SYSTEMS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        print(
            json.dumps(
                measure(arguments.role, arguments.workers[0], arguments.rounds, arguments.peers)))
        return
    print(
        "| system | workers | rounds | median s | p90 s | processor s, all "
        "|\n|---|---|---|---|---|---|"
    )
    for workers in arguments.workers:
        for name in arguments.systems:
            if name == "FLQ":
                for mode, coded in (("laq", True), ("laq", False), ("bin", False),
                                    ("fedavg", False)):
                    ours = argparse.Namespace(rounds=arguments.rounds, mode=mode, sel_clients=0,
                                              cohorts=1, coded=coded, default_down=coded)
                    seconds, used, _ = round_time.measure(workers, ours)
                    row("FLQ", mode + ", as by default" * coded, workers, seconds, sum(used))
                continue
            command = [
                sys.executable,
                str(Path(__file__).resolve()), "--role", name, "--workers",
                str(workers), "--rounds",
                str(arguments.rounds), "--peers", arguments.peers
            ]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if process.returncode:
                print(f"not measured: {name} with {workers} workers", file=sys.stderr)
                continue
            seconds, used = json.loads(process.stdout.splitlines()[-1])
            row(name, version_of(arguments.peers, SYSTEMS[name][0]), workers, seconds, used)


def version_of(peers, name):
    folders = list((Path(peers) / name).glob("lib/python3*/site-packages"))
    found = importlib.metadata.distributions(name=name, path=[str(folder) for folder in folders])
    return next(iter(found)).version


if __name__ == "__main__":
    main()
