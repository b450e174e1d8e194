"""One real run with this Python as the master and a worker process for each Python named: `python -m tests.compat.one_run PYTHON...`.

Three rounds of the digits over HTTP. Prints one line and ends with 0, or raises what went wrong.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.system.processes import ROOT, Site

ROUNDS = 3


def run(pythons, directory):
    """The history of a run in which worker k is started by pythons[k]."""
    site = Site(directory)
    try:
        master = site.master("total_workers={}".format(len(pythons)), "max_rounds={}".format(ROUNDS), "quorum=all", "model.name=cnn_small",
                             script=(ROOT / "flq_master.py",))
        workers = [site.worker(k, master, python=python, script=(ROOT / "flq_worker.py",)) for k, python in enumerate(pythons)]
        codes = [program.wait() for program in workers + [master]]
        assert codes == [0] * len(codes), "exit codes {}\n{}".format(codes, site.tails())
        return json.loads((master.run_dir / "history.json").read_text())
    finally:
        site.close()


def main():
    with tempfile.TemporaryDirectory() as directory:
        history = run(sys.argv[1:], Path(directory))
    rounds, uploads = history["rounds"], [row for row in history["workers"] if row["state"] == "accepted"]
    assert len(rounds) == ROUNDS and len(uploads) == ROUNDS * len(sys.argv[1:]), history
    print("{} rounds, {} uploads, accuracy {:.3f}".format(len(rounds), len(uploads), rounds[-1]["accuracy"]))


if __name__ == "__main__":
    main()
