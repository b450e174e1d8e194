"""The runs of a sweep as processes of this machine, so many at a time."""

from __future__ import annotations

import collections
import multiprocessing
from multiprocessing import connection
from pathlib import Path
from typing import Any, Callable, Deque, NamedTuple, Sequence

from flq.host import signals
from flq.sweep.plan import LOGS, Planned
from flq.sweep.play import play_as_process

_LOOK_EVERY_S = 1.0
_LONGEST_LINE = 300


class Ended(NamedTuple):
    """A run whose process has ended. problem: what its log says last where it failed."""

    planned: Planned
    problem: str | None


Watch = Callable[[Sequence[Planned], Sequence[Ended]], None]
"""watch(running, newly ended): called about once a second and whenever one ends."""


def play_all(plan: Sequence[Planned], folder: Path, jobs: int, watch: Watch) -> bool:
    """Play the runs in their order, `jobs` at a time, each in folder/NAME with its log in
    folder/logs. A run that fails does not end the others.

    Returns False where SIGTERM or Ctrl-C ended it early; every round that is stored stays. To be
    called in the main thread.
    """
    context = multiprocessing.get_context("spawn")
    waiting: Deque[Planned] = collections.deque(plan)
    running: dict[Any, Planned] = {}
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        for process in running:
            process.terminate()

    with signals.calling(stop):
        try:
            while running or (waiting and not stopping):
                while waiting and not stopping and len(running) < jobs:
                    planned = waiting.popleft()
                    process = context.Process(
                        target=play_as_process, name=planned.name, args=(planned, folder))
                    process.start()
                    running[process] = planned
                    if stopping:  # asked to while it was started
                        process.terminate()
                watch(list(running.values()), [])
                connection.wait([process.sentinel for process in running], _LOOK_EVERY_S)
                for process in [process for process in running if not process.is_alive()]:
                    process.join()
                    planned = running.pop(process)
                    watch(list(running.values()), [Ended(planned, _problem(
                        process, folder / LOGS))])
        finally:
            for process in running:  # where watch failed: Python waits for each before it ends
                process.terminate()
    return not stopping


def _problem(process: Any, logs: Path) -> str | None:
    if not process.exitcode:
        return None
    # Process ids come again, so the name counts, and of its logs the newest.
    found = sorted(logs.glob(f"{process.name}-{'[0-9]' * 8}-{'[0-9]' * 6}-{process.pid}.log"))
    lines = found[-1].read_text("utf-8", "replace").split("\n") if found else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    how = (f"exit code {process.exitcode}" if process.exitcode > 0 else
           f"ended by signal {-process.exitcode}")
    where = f"; {found[-1]}" if found else ""
    return f"{how}: {last[:_LONGEST_LINE]}{where}"
