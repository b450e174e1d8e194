"""The runs of a sweep as tasks on a Ray cluster."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Sequence

from flq import command_line
from flq.cluster.nodes import Share, connected, room
from flq.errors import DataError, FlqError, in_one_line
from flq.host import log, signals
from flq.reports.run_files import FILES, STORE, replacing
from flq.sweep.plan import LOGS, Planned
from flq.sweep.processes import Ended, Watch

_LOOK_EVERY_S = 1.0
_LONGEST_END_S = 60.0
# A run whose node dies begins again on another, or goes on where both see its folder.
_TRIES_AGAIN = 5


def play_all(plan: Sequence[Planned], folder: Path, address: str | None, share: Share,
             watch: Watch) -> bool:
    """processes.play_all on the nodes of a cluster, as many at a time as fit.

    A run is played in the same folder on its node. Where that is not this machine's, its files for
    people come back, and its store stays there. Raises ConfigError where there is no cluster.
    """
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True

    with signals.calling(stop), connected(address) as ray:
        room(ray, share)
        # a process for each: TensorFlow keeps the settings of the first run of a process
        task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_calls=1,
                          max_retries=_TRIES_AGAIN)(play_on_node)
        where = str(folder.resolve())
        asked = {task.remote(planned, where): planned for planned in plan}
        while asked and not stopping:
            watch(list(asked.values()), [])
            for answer in ray.wait(list(asked), timeout=_LOOK_EVERY_S)[0]:
                planned = asked.pop(answer)
                watch(list(asked.values()), [_ended(ray, answer, planned, folder)])
        for answer in asked:
            ray.cancel(answer)
        deadline = time.monotonic() + _LONGEST_END_S
        while asked and time.monotonic() < deadline:
            for answer in ray.wait(list(asked), timeout=_LOOK_EVERY_S)[0]:
                del asked[answer]
    return not stopping


def play_on_node(planned: Planned, folder: str) -> tuple[str | None, dict[str, bytes]]:
    """On a node: the run's problem, if it has one, and its files for people by name."""
    from flq.sweep.play import play
    there = Path(folder)
    logging.getLogger("flq").handlers.clear()
    path = log.start(planned.name, str(there / LOGS), planned.config.logging.log_level,
                     logging.NullHandler())
    try:
        command_line.need_python(3, 9)
        play(planned, there, take_signals=False)
    except FlqError as error:
        logging.getLogger("flq.sweep").error("%s", error)
        return f"{in_one_line(error)}; {path} on {os.uname().nodename}", {}
    return None, {name: (there / planned.name / name).read_bytes() for name in FILES}


def _ended(ray: Any, answer: Any, planned: Planned, folder: Path) -> Ended:
    try:
        problem, files = ray.get(answer)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).split("\n") if line.strip()]
        return Ended(planned, in_one_line(lines[-1] if lines else error))
    directory = folder / planned.name
    if not (directory / STORE).exists():
        try:
            for name, content in files.items():
                with replacing(directory / name) as file:
                    file.write(content)
        except DataError as error:
            return Ended(planned, str(error))
    return Ended(planned, problem)
