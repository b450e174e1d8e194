#!/usr/bin/env python3
"""What open pages cost the master: its processor time with and without ten viewers.

    python benchmarks/viewers.py --seconds 60

Real masters and workers on loopback with the learner of tests/system/quadratic.py, whose training
takes half a second. A viewer asks what the page asks: /status for news, then the rounds and events
that are new, and two seconds later again. Spans with and without viewers take turns, so that
whatever else the machine does falls on both. Prints a Markdown table.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.recovery import processor_s  # noqa: E402
from tests.system.processes import Site, wait_until  # noqa: E402

CASES = ((4, "cnn"), (8, "cnn"), (64, "softmax"))
# as flq/master/http/page/page.js has them
WAIT_S, PAUSE_S, AFTER_NEWS_S, EVENTS_S = 5, 1.0, 2.0, 5.0
SPANS = 4


class Viewer(threading.Thread):
    """Asks as an open page does, until it is closed. asked: how many requests it made."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self._url, self._closed, self.asked = url, threading.Event(), 0
        self.start()

    def _ask(self, path):
        self.asked += 1
        with urllib.request.urlopen(f"{self._url}/{path}", timeout=60) as answer:
            return json.load(answer)

    def run(self):
        news, known, events_at = "", 0, 0.0
        while not self._closed.is_set():
            status = self._ask(f"status?seen={news}&wait={WAIT_S if news else 0}")
            pause_s = PAUSE_S
            if status["news"] != news:
                pause_s = AFTER_NEWS_S
                since = max(0, known - status["pending_tests"] - 2)
                self._ask(f"history?since={since}&limit=1000")
                news, known = status["news"], status["current_round"]
                if time.monotonic() >= events_at + EVENTS_S:
                    self._ask(f"events?since={since}")
                    events_at = time.monotonic()
            self._closed.wait(pause_s)

    def close(self):
        self._closed.set()
        self.join()


def span(master, seconds, viewers):
    """(rounds, seconds, processor seconds of the master, requests of the viewers)."""
    watching = [Viewer(master.url) for _ in range(viewers)]
    time.sleep(3.0)  # their first questions are over
    for viewer in watching:
        viewer.asked = 0
    before = master.status()["current_round"], time.monotonic(), processor_s(master.process.pid)
    time.sleep(seconds)
    after = master.status()["current_round"], time.monotonic(), processor_s(master.process.pid)
    asked = sum(viewer.asked for viewer in watching)
    for viewer in watching:
        viewer.close()
    return [end - start for start, end in zip(before, after)] + [asked]


def measure(workers, model, arguments):
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        try:
            master = site.master(f"total_workers={workers}", f"model.name={model}", "quorum=all",
                                 "max_rounds=1000000", "mode=laq", "eval_every=1")
            site.worker(f"0-{workers - 1}", master, SECONDS_OF_TRAINING="0.5")
            wait_until(lambda: master.status()["current_round"] >= 5, "rounds go on", 600.0)
            totals = {0: [0.0] * 4, arguments.viewers: [0.0] * 4}
            for _ in range(SPANS):
                for viewers in totals:
                    found = span(master, arguments.seconds / SPANS, viewers)
                    totals[viewers] = [old + new for old, new in zip(totals[viewers], found)]
        finally:
            site.close()
    return totals[0], totals[arguments.viewers]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each half of a row")
    parser.add_argument("--viewers", type=int, default=10)
    arguments = parser.parse_args()
    print(f"| workers | model | a round, s | the master's processor time a round, ms | the same "
          f"with {arguments.viewers} viewers, ms | viewers' requests a second | what they cost, "
          "% of a round |\n|" + "---|" * 7)
    for workers, model in CASES:
        alone, watched = measure(workers, model, arguments)
        round_s = alone[1] / alone[0]
        costs = [1000 * used / rounds for rounds, _, used, _ in (alone, watched)]
        share = (costs[1] - costs[0]) / (10 * round_s)
        print(f"| {workers} | {model} | {round_s:.2f} | {costs[0]:.1f} | {costs[1]:.1f} | "
              f"{watched[3] / watched[1]:.1f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
