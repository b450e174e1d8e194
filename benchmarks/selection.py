#!/usr/bin/env python3
"""What a selection among many bids costs a master: processor time of the bid that completes a
round, beside the other bids.

    python benchmarks/selection.py --bids 8 64 512 1000 2048

A service without HTTP, whose workers are moved by hand. With quorum all the last bid of a round has
all verdicts decided before it is answered, so what it takes beyond another bid is the decision:
weights, overdue workers, and the selection itself. Prints a Markdown table, the median of several
runs for each budget.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.master.hands import Run  # noqa: E402

BUDGETS = {
    "sel_clients": lambda bids: [f"sel_clients={max(1, bids // 4)}"],
    "up_budget_bits": lambda bids: [f"up_budget_bits={100 * bids}"],
    "both": lambda bids: [f"sel_clients={max(1, bids // 4)}", f"up_budget_bits={100 * bids}"],
}


def measure(bids, budget):
    """(an ordinary bid, the last one) of a round, in milliseconds of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), f"total_workers={bids}", "quorum=all", "cohorts=1", *budget)
        try:
            hands = run.hands(*range(bids))
            took = []
            for hand in hands:
                hand.train()
                started = time.thread_time()
                hand.bid()
                took.append(1e3 * (time.thread_time() - started))
            granted = sum(hand.ask().verdict == "granted" for hand in hands)
            if not 0 < granted < bids:
                raise SystemExit(f"{granted} of {bids} bids were granted: nothing was selected")
            return statistics.median(took[:-1]), took[-1]
        finally:
            run.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bids", type=int, nargs="+", default=[8, 64, 512, 1000, 2048])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print("| bids | budget | a bid, ms | the last bid, ms | decision, ms |\n|---|---|---|---|---|")
    for bids in arguments.bids:
        for name, budget in BUDGETS.items():
            found = [measure(bids, budget(bids)) for _ in range(arguments.runs)]
            one, last = (statistics.median(column) for column in zip(*found))
            print(f"| {bids} | {name} | {one:.2f} | {last:.2f} | {last - one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
