"""python -m flq sweep: many simulations, and a table of what they reached.

It imports what it needs when it runs.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Sequence, Tuple

from flq import command_line
from flq.errors import ConfigError, FlqError, in_one_line
from flq.report_commands import add_targets
from flq.run_commands import add_engine_options, add_output_options

if TYPE_CHECKING:
    from flq.reports.shown import Shown
    from flq.sweep.plan import Planned
    from flq.sweep.play import Progress
    from flq.sweep.processes import Ended


def add(commands: "command_line.Commands") -> None:
    """Add the command."""
    command = commands.add_parser(
        "sweep", help="many simulations from one file, and a table of what they reached")
    command.add_argument("file", help="JSON: config, variants and grid (docs/sweep.md)")
    command.add_argument("--out", required=True, metavar="DIRECTORY",
                         help="a folder for each run, and the comparison; a run that is over there "
                         "is not played again, and one that was interrupted goes on")
    command.add_argument("--jobs", type=command_line.whole_number(1, 1024), default=1,
                         help="runs at a time (default: 1, which uses all processors)")
    command.add_argument("--list", action="store_true", help="say what there is to do, and end")
    add_engine_options(command, "play on", "one run")
    add_targets(command)
    add_output_options(command, "the comparison")
    command.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    from flq.reports.shown import Shown
    from flq.sweep import processes
    from flq.sweep.plan import read_plan
    plan, folder = read_plan(Path(arguments.file)), Path(arguments.out)
    found, damaged = _look_at(plan, folder)
    if arguments.list:
        for planned in plan:
            print(f"{planned.name}: " + (damaged.get(planned.name)
                                         or _how_far(planned, found[planned.name])))
        return 0
    with Shown(arguments) as shown:
        watcher = _Watcher(plan, folder, found, shown)
        for name, problem in damaged.items():
            watcher.fail(name, problem)
        todo = [planned for planned in plan
                if planned.name in found and not found[planned.name].over]
        if arguments.engine == "ray":
            from flq.cluster import tasks
            from flq.cluster.nodes import Share
            whole = tasks.play_all(todo, folder, arguments.address,
                                   Share(arguments.cpus, arguments.gpus), watcher.watch)
        else:
            whole = processes.play_all(todo, folder, arguments.jobs, watcher.watch)
    _compare(watcher, folder, arguments, shown)
    over = [name for name, reached in found.items() if reached.over and name not in watcher.failed]
    if not whole:
        shown.result(f"interrupted when {len(over)} of {len(plan)} runs were over; the same "
                     "command goes on")
    elif len(over) < len(plan):
        raise FlqError(f"{len(plan) - len(over)} of {len(plan)} runs failed", hint="what they said "
                       "stands above; mend it, and the same command plays them again")
    return 0


def _look_at(plan: Sequence["Planned"],
             folder: Path) -> Tuple[Dict[str, "Progress"], Dict[str, str]]:
    """Where each run stands, and what is wrong with those that cannot be read, by name.

    Raises ConfigError where a folder holds a run with another configuration.
    """
    from flq.sweep.play import progress, refuse_another_run
    found, damaged = {}, {}
    for planned in plan:
        try:
            refuse_another_run(planned, folder)
            found[planned.name] = progress(planned, folder)
        except ConfigError:
            raise
        except FlqError as error:  # the others can be played
            damaged[planned.name] = in_one_line(error)
    return found, damaged


def _how_far(planned: "Planned", reached: "Progress") -> str:
    rounds = f"{reached.rounds} of {planned.config.system.max_rounds} rounds"
    return f"over after {rounds}" if reached.over else f"to do, {rounds} are there"


class _Watcher:
    """Shows how far a sweep is: the rounds of all its runs, and a line for each that ends.

    found: where each run stands, by name in the plan's order, which is kept up to date.
    `failed`: what went wrong, by name.
    """

    def __init__(self, plan: Sequence["Planned"], folder: Path, found: Dict[str, "Progress"],
                 shown: "Shown") -> None:
        self._folder, self.found, self._shown = folder, found, shown
        self.failed: Dict[str, str] = {}
        self._total = sum(planned.config.system.max_rounds for planned in plan)

    def watch(self, running: Sequence["Planned"], ended: Sequence["Ended"]) -> None:
        """What processes.play_all tells."""
        for planned in running:
            self._look(planned)
        for planned, problem in ended:
            self._look(planned)
            reached = self.found[planned.name]
            if problem is not None:
                self.fail(planned.name, problem)
            elif not self._shown.quiet:
                self._shown.say(f"{planned.name}: {_how_far(planned, reached)}")

    def fail(self, name: str, problem: str) -> None:
        """A run is not what it should be."""
        self.failed[name] = problem
        self._shown.say(f"error: {name}: {problem}")

    def _look(self, planned: "Planned") -> None:
        from flq.sweep.play import progress
        before = self.found[planned.name]
        try:
            reached = self.found[planned.name] = progress(planned, self._folder)
        except FlqError:
            return  # the run's own process says what is wrong, and the others go on
        if reached.rounds > before.rounds:
            self._shown.step("round", sum(one.rounds for one in self.found.values()), self._total,
                             f"{planned.name}: round {reached.rounds} of "
                             f"{planned.config.system.max_rounds}")


def _compare(watcher: _Watcher, folder: Path, arguments: argparse.Namespace,
             shown: "Shown") -> None:
    """The table, the picture and the workbook of all runs that have a round and can be read. Their
    warnings name those that failed.
    """
    from flq.master.store.results import read_run
    from flq.reports.compare import comparison_tables
    from flq.reports.comparison import compare_runs, to_json
    from flq.reports.comparison_files import write_comparison
    runs = []
    for name in [name for name, reached in watcher.found.items() if reached.rounds]:
        try:
            runs.append((folder / name, read_run(folder / name)))
        except FlqError as error:
            if name not in watcher.failed:
                watcher.fail(name, in_one_line(error))
    if not runs:
        return
    comparison = compare_runs(runs, arguments.targets)
    comparison = comparison._replace(warnings=comparison.warnings + [
        f"{name} failed: {problem}" for name, problem in watcher.failed.items()])
    paths: List[Path] = write_comparison(folder, comparison)
    if arguments.json:
        print(json.dumps(to_json(comparison), indent=2))
    shown.result(comparison_tables(comparison))
    for path in paths:
        shown.result(f"saved: {path}")
