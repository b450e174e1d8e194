"""python -m flq: simulate, sweep, replay, check-data, status, report, compare, export, rollback,
backup, compact, token, certs, audit.

Each command imports what it needs when it runs.
"""

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from flq import (
    command_line,
    identity_commands,
    report_commands,
    run_commands,
    sweep_commands,
    tokens,
)
from flq.errors import UnreachableError
from flq.host import signals, variables

if TYPE_CHECKING:
    from flq.worker.master_client import HttpClient

# what a worker's machine, its Python and its packages can do as well
_OF_WORKERS = ("status", "token", "check-data")

# a master without room for its last test waits for some; who watches does not
_LAST_TESTS_S = 600.0


def main() -> int:
    variables.set_missing()
    installed = os.path.splitext(os.path.basename(sys.argv[0]))[0] == "flq"  # pip's script
    parser = command_line.Parser(prog="flq" if installed else "python -m flq",
                                 description="FLQ's commands.")
    command_line.add_common(parser, "flq")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    for add in (run_commands.add, sweep_commands.add, _add_status, report_commands.add,
                _add_rollback, _add_backup, _add_compact, identity_commands.add):
        add(commands)
    arguments = parser.parse_args()
    role = "worker" if arguments.command in _OF_WORKERS else "master"
    code = command_line.run(role, lambda: _run(arguments))
    if arguments.command == "simulate":
        signals.end_now(code)  # after a signal its workers' threads may still train
    return code


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command not in _OF_WORKERS:
        command_line.need_python(3, 9)
    code: int = arguments.run(arguments)
    return code


def _add_status(commands: "command_line.Commands") -> None:
    command = commands.add_parser("status", help="what a master says of its run")
    command.add_argument("--master_url", default="http://127.0.0.1:5000",
                         help="default: %(default)s")
    command_line.add_tls(command, "those that Python's requests brings")
    command.add_argument("--watch", action="store_true", help="a live bar until the run is over")
    command.add_argument("--verbose", action="store_true",
                         help="with --watch, where there is no terminal: a line for each round")
    command.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    from flq.worker.master_client import HttpClient
    client = HttpClient(arguments.master_url, arguments.cafile, arguments.cert, arguments.key)
    shown = client.status()
    if not arguments.watch:
        print(json.dumps(shown, indent=2))
        return 0
    _watch(client, shown, arguments)
    return 0


def _watch(client: "HttpClient", shown: Dict[str, Any], arguments: argparse.Namespace) -> None:
    """The live bar, until the last status of the run; after its last round a master may end, or
    have no room for its last test. Whom a round waits for too long is a line of its own, once.
    """
    from flq.reports.progress import ProgressBar, is_over
    bar = ProgressBar(sys.stderr, shown["max_rounds"], arguments.verbose)
    give_up, told = float("inf"), None
    try:
        while True:
            stall = shown.get("stall")
            overdue = stall and (shown["current_round"], stall["workers"])
            if stall and overdue != told:
                for line in _stalled(stall, arguments):
                    bar.say(line)
            told = overdue
            bar.update(shown)
            if is_over(shown) or time.monotonic() >= give_up:
                return
            if shown["phase"] == "FINISHED":
                give_up = min(give_up, time.monotonic() + _LAST_TESTS_S)
            time.sleep(0.3)
            try:
                shown = client.status()
            except UnreachableError:
                if shown["phase"] != "FINISHED":
                    raise
                return
    finally:
        bar.close()


def _stalled(stall: Dict[str, Any], arguments: argparse.Namespace) -> List[str]:
    """Whom the round waits for, and the commands after which it goes on without them.

    They are made here, of numbers alone: a line for a shell is not taken from a network.
    """
    from flq.protocol import endpoints
    from flq.reports.terminal import clip, format_duration
    url, lines = arguments.master_url.rstrip("/"), ["warning: " + clip(stall["text"], 1000)]
    asked: List[Tuple[endpoints.Endpoint, Dict[str, int], Optional[Dict[str, int]]]] = [
        (endpoints.REMOVE, {"worker": worker}, None) for worker in stall["remove"]
        if isinstance(worker, int)
    ]
    change = {
        key: value for key, value in stall["change"].items() if isinstance(value, int)
        and key in ("system.min_workers", "system.start_workers")
    }
    if change:
        asked = [(endpoints.PATCH_CONFIG, {}, change)]
    if asked:
        lines.append("to continue without:")
    elif stall["goes_on_in_s"] is not None:
        lines.append(f"the round goes on after {format_duration(float(stall['goes_on_in_s']))}")
    for endpoint, place, body in asked:
        lines.append("  " + tokens.operator_command(
            endpoint.method, url + endpoint.path.format(**place), body, cafile=arguments.cafile,
            cert=arguments.cert, key=arguments.key))
    return lines


def _add_rollback(commands: "command_line.Commands") -> None:
    command = commands.add_parser("rollback", help="let a run go on from an earlier round")
    command.add_argument("run_dir", help="of a run that no master serves")
    command.add_argument("--round", type=int, required=True, metavar="K",
                         help="the model that round K started from is the run's model again")
    command.add_argument("--without", type=command_line.worker_id, action="append", default=[],
                         metavar="WORKER", help="remove this worker too; may be repeated")
    command.set_defaults(run=_rollback)


def _rollback(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from flq.learning.learner import build_learner
    from flq.master.stored.rollback import rollback
    version = rollback(Path(arguments.run_dir),
                       lambda settings: build_learner(settings, (), evaluate=False),
                       arguments.round, arguments.without)
    print(f"version {version} is that of round {arguments.round} again: start the master with "
          f"--run_dir {arguments.run_dir}")
    return 0


def _add_backup(commands: "command_line.Commands") -> None:
    command = commands.add_parser("backup",
                                  help="copy the store of a run, also while it is written")
    command.add_argument("run_dir")
    command.add_argument("file",
                         help="the copy, a new file; as run.db of a directory it can be continued")
    command.set_defaults(run=_backup)


def _backup(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from flq.master.store.run_store import backup
    backup(Path(arguments.run_dir), Path(arguments.file))
    print(f"saved: {arguments.file}")
    return 0


def _add_compact(commands: "command_line.Commands") -> None:
    command = commands.add_parser(
        "compact", help="drop the uploads of a run that its continuation does not need")
    command.add_argument("run_dir", help="of a run that no master serves")
    command.set_defaults(run=_compact)


def _compact(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from flq.learning.learner import build_learner
    from flq.master.stored.compaction import compact
    store = Path(arguments.run_dir) / "run.db"
    before = store.stat().st_size if store.exists() else 0
    version = compact(store.parent, lambda settings: build_learner(settings, (), evaluate=False))
    print(f"compacted at version {version}: {store.stat().st_size} bytes, {before} before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
