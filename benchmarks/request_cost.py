#!/usr/bin/env python3
"""What one request of a worker costs beside what is computed: processor time of the master's
process and of the worker's thread.

    python benchmarks/request_cost.py [--workers 8] [--requests 100]

The server, the API, its checks of tokens and the worker's client are the real ones; the run behind
them answers at once. Each worker keeps its connection and asks in turn. The sizes are those of
benchmarks/round_time.py with `laq` as by default. Prints a Markdown table.
"""

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq import config  # noqa: E402
from flq.master.http.guard import Access  # noqa: E402
from flq.master.http.http_api import create_app  # noqa: E402
from flq.master.http.server import Server  # noqa: E402
from flq.records import HeldModel, Outcome  # noqa: E402
from flq.worker.master_client import HttpClient  # noqa: E402

UP, DOWN = 163768, 101000  # bytes of an upload and of a broadcast
BLOCK = 10  # requests of each worker between two looks at the clock
HELD = HeldModel(0, bytes(8))
LONGEST = 1 << 22


class Answering:
    """A service that has each answer at once. Its frames are no frames: nobody reads them here."""

    def __init__(self):
        self.run = SimpleNamespace(config=config.load(None, []).config,
                                   sessions=SimpleNamespace(worker_of=lambda token: 0,
                                                            knows=lambda token: True))
        self._outcome, self._frames = Outcome(0, "accepted", 3, "ab" * 32), bytes(DOWN)

    def upload(self, token, data, wait_s, then=None, held=None):
        return self._outcome._replace(frames=self._frames) if held else self._outcome

    def broadcast(self, token, held, wait_s, then=None):
        return self._frames


CASES = {
    "upload, outcome": lambda client: client.upload(bytes(UP), 25.0),
    "model": lambda client: client.fetch_model(HELD, 25.0),
    "upload, outcome with the model": lambda client: client.upload(bytes(UP), 25.0, HELD),
}


def measure(url, workers, requests):
    """{case: (master, worker)} processor seconds of a request, medians of blocks; the cases take
    turns, so that each meets the same load."""
    clients = [HttpClient(url, longest=LONGEST) for _ in range(workers)]
    for client in clients:
        client.authorize("session")
        client.upload(b"", 25.0)  # connects
    spent = {name: [] for name in CASES}
    for _ in range(max(1, requests // BLOCK)):
        for name, case in CASES.items():
            before, client_before = used_s(), time.thread_time()
            for client in clients * BLOCK:
                case(client)
            mine = time.thread_time() - client_before
            spent[name].append((used_s() - before - mine, mine))
    for client in clients:
        client.close()
    return {
        name: [statistics.median(side) / (BLOCK * workers) for side in zip(*blocks)]
        for name, blocks in spent.items()
    }


def used_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--requests", type=int, default=100, help="of each worker and kind")
    arguments = parser.parse_args()
    server = Server("127.0.0.1", 0, arguments.workers)
    server.start(create_app(Answering(), Access("secret", True), None), LONGEST)
    found = measure(f"http://127.0.0.1:{server.port}", arguments.workers, arguments.requests)
    server.close()
    print("| request | master, ms | worker, ms |\n|---|---|---|")
    for name, (master, worker) in found.items():
        print(f"| {name} | {1e3 * master:.2f} | {1e3 * worker:.2f} |")


if __name__ == "__main__":
    main()
