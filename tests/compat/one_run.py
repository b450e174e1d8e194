"""One real run with this Python as the master and a worker process for each Python named: `python
-m tests.compat.one_run PYTHON...`.

Three rounds of the digits over HTTP; `simulate` in place of the Pythons: two workers in one
process. Prints one line and ends with 0, or raises what went wrong.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.system.processes import ROOT, Site

ROUNDS = 3
SETTINGS = (f"max_rounds={ROUNDS}", "quorum=all", "model.name=cnn_small")


def run(pythons, directory):
    """The history of a run in which worker k is started by pythons[k]."""
    site = Site(directory)
    try:
        master = site.master(f"total_workers={len(pythons)}", *SETTINGS,
                             script=(ROOT / "flq_master.py",))
        workers = [
            site.worker(k, master, python=python, script=(ROOT / "flq_worker.py",))
            for k, python in enumerate(pythons)
        ]
        codes = [program.wait() for program in workers + [master]]
        assert codes == [0] * len(codes), f"exit codes {codes}\n{site.tails()}"
        return json.loads((master.run_dir / "history.json").read_text())
    finally:
        site.close()


def simulate(directory):
    """The history of a simulation with two workers."""
    site = Site(directory)
    try:
        program = site.simulate("total_workers=2", *SETTINGS, script=("-m", "flq", "simulate"))
        assert program.wait() == 0, site.tails()
        return json.loads((directory / "simulation-run" / "history.json").read_text())
    finally:
        site.close()


def main():
    pythons = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        if pythons == ["simulate"]:
            history, workers = simulate(Path(directory)), 2
        else:
            history, workers = run(pythons, Path(directory)), len(pythons)
    rounds, uploads = history["rounds"], [
        row for row in history["workers"] if row["state"] == "accepted"
    ]
    assert len(rounds) == ROUNDS and len(uploads) == ROUNDS * workers, history
    print(f"{len(rounds)} rounds, {len(uploads)} uploads, accuracy {rounds[-1]['accuracy']:.3f}")


if __name__ == "__main__":
    main()
