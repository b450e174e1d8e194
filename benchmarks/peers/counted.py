"""What travels between a system that is not ours and its clients, from one round to the next: all
that a proxy on each client's connections saw.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from benchmarks.peers.processes import Group
from tests.system.counting_proxy import CountingProxy

ROOT = Path(__file__).resolve().parents[2]


class CountedGroup(Group):
    """The processes of a system whose clients stand behind proxies. Where a round ends one of them
    appends [time, accuracy] to ROUNDS_FILE, a JSON line each.
    """

    def __init__(self, folder, environment):
        self._rounds_file, self.proxies = Path(folder) / "rounds.jsonl", []
        super().__init__(folder, Path(sys.executable).parent, {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ROUNDS_FILE": str(self._rounds_file),
            **environment
        })

    def stand_before(self, port, nodes):
        """A proxy for each client, in front of the server at this port."""
        self.proxies = [CountingProxy(port) for _ in range(nodes)]

    def notes(self):
        if not self._rounds_file.exists():
            return []
        return [json.loads(line) for line in self._rounds_file.read_text().splitlines()]

    def count(self, wanted, has_failed):
        """(seconds, accuracy, bytes up, bytes down) at each of so many notes. has_failed() tells
        that none will come any more.
        """
        found = []
        while len(found) < wanted:
            notes = self.notes()
            if len(notes) > len(found):
                found.append((*notes[len(found)], sum(proxy.up for proxy in self.proxies),
                              sum(proxy.down for proxy in self.proxies)))
            elif has_failed():
                raise SystemExit((self.folder / "log-0").read_text()[-3000:])
            time.sleep(0.02)
        return found

    def end(self):
        super().end()
        for proxy in self.proxies:
            proxy.close()


def print_head(time_of="s"):
    """The head of a Markdown table. time_of: in what a round's duration is."""
    print(f"| updates | bytes up | bytes down | {time_of} a round | accuracy at the end |\n"
          "|---|---|---|---|---|")


def print_row(updates, ends, nodes):
    """A row of it, for each node: means of the bytes and the median of the time between two ends.
    ends: as `CountedGroup.count` gives them; the first round, which also brings the program and the
    whole model, is left out.
    """
    ends = ends[1:]
    spans = list(zip(ends, ends[1:]))
    up, down = (statistics.mean((after[way] - before[way]) / nodes for before, after in spans)
                for way in (2, 3))
    seconds = statistics.median(after[0] - before[0] for before, after in spans)
    print(f"| {updates} | {up:,.0f} | {down:,.0f} | {seconds:.2f} | {ends[-1][1]:.3f} |",
          flush=True)
