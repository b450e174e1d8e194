"""python -m flq report, compare and export: what is made of runs that were played, or are.

Each command imports what it needs when it runs.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

from flq import command_line
from flq.errors import ConfigError, printable

if TYPE_CHECKING:
    from flq.reports.tensorboard import EventFile

_LOOK_EVERY_S = 2.0
_TESTED_LATE = 200  # rounds: so far behind a test may be


def add(commands: "command_line.Commands") -> None:
    """Add the three commands."""
    _add_report(commands)
    _add_compare(commands)
    _add_export(commands)


def _add_report(commands: "command_line.Commands") -> None:
    command = commands.add_parser("report", help="the table, the workbook and the plots of a run")
    command.add_argument("run_dir")
    command.add_argument("--html", action="store_true",
                         help="report.html too: one page that opens offline")
    command.add_argument("--out", help="directory for the files (default: that of the run)")
    add_targets(command)
    command.set_defaults(run=_report)


def add_targets(command: command_line.Parser) -> None:
    command.add_argument(
        "--targets", nargs="+", metavar="ACCURACY",
        type=command_line.number("an accuracy above 0 and at most 1", lambda value: 0 < value <= 1),
        help="say what it cost to reach them, as 0.85 0.9 (default: the highest multiple of 0.05 "
        "that every run reached)")


def _report(arguments: argparse.Namespace) -> int:
    from flq.master.store.results import read_run
    from flq.reports.compare import summary_table
    from flq.reports.files import write_reports
    run = read_run(Path(arguments.run_dir))
    out = Path(arguments.out or arguments.run_dir)
    print(printable(summary_table(run)))
    paths = write_reports(out, run)
    if arguments.html:
        from flq.reports.html_report import write_report
        paths.append(write_report(out / "report.html", run, arguments.targets))
    for path in paths:
        print(f"saved: {path}")
    return 0


def _add_compare(commands: "command_line.Commands") -> None:
    command = commands.add_parser(
        "compare", help="several runs in tables, a picture and a workbook; runs that differ only "
        "in their seeds are one row")
    command.add_argument("run_dirs", nargs="+")
    command.add_argument("--out", help="directory for the pictures and the workbook")
    command.add_argument("--html", action="store_true",
                         help="comparison.html too: one page that opens offline")
    command.add_argument("--json", action="store_true", help="print JSON, and no table")
    add_targets(command)
    command.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from flq.master.store.results import read_run
    from flq.reports.compare import comparison_tables
    from flq.reports.comparison import compare_runs, to_json
    if arguments.html and not arguments.out:
        raise ConfigError("--html needs a folder", "--out DIRECTORY", "none")
    runs = [(Path(path), read_run(Path(path))) for path in arguments.run_dirs]
    comparison = compare_runs(runs, arguments.targets)
    print(json.dumps(to_json(comparison), indent=2) if arguments.json else printable(
        comparison_tables(comparison)))
    paths: List[Path] = []
    if arguments.out:
        from flq.reports.comparison_files import write_comparison
        paths += write_comparison(arguments.out, comparison)
    if arguments.html:
        from flq.reports.html_report import write_comparison_page
        paths.append(write_comparison_page(Path(arguments.out) / "comparison.html", comparison))
    if not arguments.json:
        for path in paths:
            print(f"saved: {path}")
    return 0


def _add_export(commands: "command_line.Commands") -> None:
    command = commands.add_parser("export", help="runs in the form of another program")
    command.add_argument("run_dirs", nargs="+", metavar="RUN",
                         help="the folder of a run, or one with many, such as results")
    command.add_argument(
        "--tensorboard", action="store_true", required=True,
        help="an event file in each run's folder, for tensorboard --logdir")
    command.add_argument("--follow", action="store_true",
                         help="go on with the rounds that close, until the runs are over")
    command.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    try:
        from flq.reports.tensorboard import write_events
    except ModuleNotFoundError as error:
        if error.name != "tensorboardX":
            raise
        raise ConfigError("the package tensorboardX is missing", "it, to write event files",
                          sys.executable,
                          f"install it: {sys.executable} -m pip install tensorboardX")
    from flq.master.store.results import read_run
    folders = [run for path in arguments.run_dirs for run in _runs_in(Path(path))]
    if arguments.follow:
        _follow(folders)
        return 0
    for folder in folders:
        print(f"saved: {write_events(folder, read_run(folder))}")
    return 0


def _runs_in(folder: Path) -> List[Path]:
    """The folder of a run, or those of all runs that are in a folder and have a round."""
    from flq.master.store.run_store import RunReader
    if any((folder / name).exists() for name in ("run.db", "history.json")):
        return [folder]
    found = []
    for path in sorted(folder.glob("*/run.db")):
        with RunReader(path.parent) as reader:
            if reader.num_rounds():
                found.append(path.parent)
    return found or [folder]  # whose reader says what is missing


def _follow(folders: List[Path]) -> None:
    """Look at every run again and again; Ctrl-C ends it at any time."""
    waiting = [_Follower(folder) for folder in folders]
    try:
        while waiting:
            waiting = [follower for follower in waiting if not follower.look()]
            if waiting:
                time.sleep(_LOOK_EVERY_S)
    except KeyboardInterrupt:
        print("stopped; the event files are whole as far as they go")
    finally:
        for follower in waiting:
            follower.close()


class _Follower:
    """Writes the event file of a run that a master plays. A row can still grow after its round was
    closed, so that the newest one waits; at the end the whole file is made again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Optional[EventFile] = None
        self._next = 0

    def look(self) -> bool:
        """Write what is new; True when the run is over and its file whole."""
        from flq.master.store.results import read_run
        from flq.master.store.run_store import FINISHED, STOPPED, RunReader
        from flq.reports.tensorboard import EventFile, write_events
        if not (self._folder / "run.db").exists():
            print(f"saved: {write_events(self._folder, read_run(self._folder))}")
            return True
        with RunReader(self._folder) as reader:
            closed, ending = reader.num_rounds(), reader.ending()
            if ending is None or ending.phase not in (FINISHED, STOPPED):
                rows = [record.to_json() for record in reader.records(
                    max(0, min(self._next, closed) - _TESTED_LATE), max(0, closed - 1))]
                if self._file is None and rows:
                    self._file = EventFile(self._folder, read_run(self._folder))
                if self._file is not None:
                    self._file.add_tests(rows)
                    self._file.add([row for row in rows if row["round"] >= self._next])
                    self._next = closed - 1
                return False
        self.close()
        print(f"saved: {write_events(self._folder, read_run(self._folder))}")
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
