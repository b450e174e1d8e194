#!/usr/bin/env python3
"""A bad network: whether the run ends, what was acknowledged is stored, and the accuracy is that of
the undisturbed run.

    python benchmarks/faults.py --results faults.jsonl

Real programs, the mlp on digits (Dirichlet 0.5), three workers, each behind a proxy
(tests/system/misbehaving_proxy.py; `tc netem` needs a kernel module that not every machine has).
Every exchange takes 200 ms longer. Then 5 % of all messages are lost (half of these arrive 1 s
late, of the other half a piece arrives and the connection is cut) and 5 % of the requests arrive
twice; or nothing of one worker, or of all of them, passes for 60 s. Under `quorum: all` the history
must be that of the same run simulated in one process, bit for bit; under `deadline` the accuracy
must lie within three standard errors of a proportion of the simulated one's, and replay must give
the model again. Every upload that a worker was told is accepted must be in the store, with the
chain that the worker was told.

Each finished run is a line of the results file, and is not run again. Prints a Markdown table;
exits with 1 when a run failed.
"""

import argparse
import contextlib
import json
import math
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.kills import PROGRAMS, Failure, difference  # noqa: E402
from flq.master.store.run_store import RunStore  # noqa: E402
from tests.system.misbehaving_proxy import MisbehavingProxy  # noqa: E402
from tests.system.processes import Site, history_of  # noqa: E402

WORKERS = 3
TASK = [
    "dataset.name=digits", "model.name=mlp", "partition=non_iid", f"total_workers={WORKERS}",
    "mode=laq", "eval_every=20"
]
DEADLINE = ["quorum=deadline", "min_workers=2", "worker_timeout_s=20"]
TROUBLES = {
    "200 ms": {}, "200 ms, 5 % lost, 5 % twice": {"loss": 0.05, "duplicates": 0.05},
    "200 ms, one worker cut off": {"cut": (0,)},
    "200 ms, the master cut off": {"cut": tuple(range(WORKERS))},
}
TEST_IMAGES = 360  # a fifth of the digits


def disturbed(quorum, trouble, arguments, site):
    """Run it to its end; returns what the table says."""
    scripts = PROGRAMS["real"]
    settings = TASK + [f"max_rounds={arguments.rounds}"
                       ] + (["quorum=all"] if quorum == "all" else DEADLINE)
    whole = site.simulate(*settings[:len(TASK) + 1], "quorum=all", script=scripts["simulate"])
    if whole.wait(600) != 0:
        raise Failure("the undisturbed run: " + whole.tail())
    master = site.master(*settings, script=scripts["master"])
    cut = trouble.get("cut", ())
    network = {name: value for name, value in trouble.items() if name != "cut"}
    proxies = [
        MisbehavingProxy(master.port, 0.2, seed=worker, **network) for worker in range(WORKERS)
    ]
    workers = [
        site.worker(worker, master, url=proxies[worker].url, script=scripts["worker"])
        for worker in range(WORKERS)
    ]
    cut_rounds = 0
    if cut:
        master.wait_for_round(10)
        with contextlib.ExitStack() as partitions:
            for worker in cut:
                partitions.enter_context(proxies[worker].partition())
            before = master.status()["current_round"]
            time.sleep(arguments.partition_s)  # the length of the partition
            cut_rounds = master.status()["current_round"] - before
    codes = [program.wait(900) for program in workers + [master]]
    if codes != [0] * (WORKERS + 1):
        raise Failure(f"exit codes of the workers and the master: {codes}")
    acknowledged = check_acknowledged(master.run_dir, proxies)
    for proxy in proxies:
        proxy.close()
    rounds, rows = history_of(master.run_dir)
    undisturbed = history_of(site.directory / "simulation-run")[0]
    accuracy, expected = rounds[-1]["accuracy"], undisturbed[-1]["accuracy"]
    if quorum == "all":
        found = difference(master.run_dir, site.directory / "simulation-run")
        if found:
            raise Failure(found)
    else:
        noise = 3 * math.sqrt(2 * expected * (1 - expected) / TEST_IMAGES)
        if abs(accuracy - expected) > noise:
            raise Failure(f"accuracy {accuracy:.4f}, undisturbed {expected:.4f}, noise {noise:.4f}")
        replay = site.start("replay", sys.executable, *scripts["replay"], master.run_dir)
        if replay.wait(600) != 0 or rounds[-1]["params_hash"] not in replay.text():
            raise Failure("replay: " + replay.tail())
    counts = sum((proxy.counts for proxy in proxies), type(proxies[0].counts)())
    return {
        "rounds": len(rounds), "accuracy": accuracy, "undisturbed": expected,
        "acknowledged": acknowledged, "missing": sum(row["state"] == "missing" for row in rows),
        "cut_rounds": cut_rounds, "messages": counts["messages"], "late": counts["late"],
        "cut": counts["cut request"] + counts["cut answer"], "duplicated": counts["duplicated"]
    }


def check_acknowledged(run_dir, proxies):
    """How many uploads were told to be accepted. Raises Failure when one is not in the store."""
    with contextlib.closing(RunStore(run_dir)) as store:
        for worker, proxy in enumerate(proxies):
            for round_, reference_hash in proxy.acknowledged.items():
                row, stored = store.answer(round_, worker)
                if (row.state, stored.hex()) != ("accepted", reference_hash):
                    raise Failure(
                        f"worker {worker} was told that round {round_} is accepted; the store says "
                        f"{row.state}"
                    )
    return sum(len(proxy.acknowledged) for proxy in proxies)


def measure(quorum, name, arguments):
    result, started = {"quorum": quorum, "network": name, "failure": ""}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        site = Site(Path(folder))
        try:
            result.update(disturbed(quorum, TROUBLES[name], arguments, site))
        except (Failure, AssertionError) as failure:
            result["failure"] = str(failure)
        finally:
            site.close()
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def table(results):
    lines = [
        "| quorum | network | rounds | messages | late | cut | twice | rounds while cut off | "
        "acknowledged, all stored "
        "| missed answers | accuracy | undisturbed | as it should be |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    ]
    for result in results:
        if result["failure"]:
            lines.append(
                "| {quorum} | {network} | | | | | | | | | | | no: {failure} |".format(**result))
        else:
            lines.append(
                "| {quorum} | {network} | {rounds} | {messages} | {late} | {cut} | {duplicated} | "
                "{cut_rounds} | {acknowledged} "
                "| {missing} | {accuracy:.4f} | {undisturbed:.4f} | yes |".format(**result))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="a bad network: what becomes of a run")
    parser.add_argument(
        "--results", default="faults.jsonl",
        help="one line a run; what is in it is not run again (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--partition_s", type=float, default=60.0)
    parser.add_argument("--only", default="",
                        help="only runs whose name, like 'all 200 ms', holds these words")
    arguments = parser.parse_args()
    path = Path(arguments.results)
    known = {(result["quorum"], result["network"]): result
             for result in map(json.loads, path.read_text().splitlines() if path.exists() else [])}
    results = []
    for quorum in ("all", "deadline"):
        for name in TROUBLES:
            if arguments.only not in f"{quorum} {name}":
                continue
            result = known.get((quorum, name))
            if result is None:
                result = measure(quorum, name, arguments)
                with open(path, "a") as file:
                    file.write(json.dumps(result) + "\n")
                print(f"{quorum} {name}: {result['seconds']} s {result['failure']}",
                      file=sys.stderr, flush=True)
            results.append(result)
    print(table(results))
    return 1 if any(result["failure"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
