"""python -m flq simulate, replay and check-data: what computes here, in this process, and takes a
while.

Each command imports what it needs when it runs.
"""

import argparse
import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flq import command_line, config, idle_keys
from flq.errors import ConfigError, DataError, printable
from flq.host import log, signals

if TYPE_CHECKING:
    from flq.learning.interface import Learner
    from flq.master.service import Service


def add(commands: "command_line.Commands") -> None:
    """Add the three commands."""
    _add_simulate(commands)
    _add_replay(commands)
    _add_check_data(commands)


def add_output_options(command: argparse.ArgumentParser, json: str) -> None:
    """--verbose, --quiet and --json. json: what is printed as JSON."""
    how = command.add_mutually_exclusive_group()
    how.add_argument("--verbose", action="store_true", help="a line for each round, and the log")
    how.add_argument("--quiet", action="store_true", help="only warnings and errors")
    command.add_argument("--json", action="store_true",
                         help=f"print {json} as JSON, and nothing else to standard output")


def add_engine_options(command: argparse.ArgumentParser, what: str, one: str) -> None:
    """--engine, --address, --cpus and --gpus. what: the engine is for. one: takes such a share."""
    command.add_argument("--engine", choices=("here", "ray"), default="here",
                         help=f"{what} this machine, or a Ray cluster (default: %(default)s)")
    command.add_argument(
        "--address", metavar="HOST:PORT",
        help="the cluster, auto for the one that this machine belongs to (default: one of this "
        "machine alone)")
    for resource, default in (("cpu", 1.0), ("gpu", 0.0)):
        command.add_argument(
            f"--{resource}s", type=command_line.share, metavar="N", default=default,
            help=f"{resource.upper()}s of a node that {one} takes, also a part of one (default: "
            "%(default)g)")


def _add_simulate(commands: "command_line.Commands") -> None:
    command = commands.add_parser("simulate", help="a whole run in this process")
    command.add_argument("--config", help="JSON file; without it the defaults count")
    command.add_argument("--run_dir", help="directory of the run (default: RESULT_DIR/<run id>)")
    command.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                         help="change one key; may be repeated")
    command.add_argument(
        "--resume", action="store_true",
        help="go on with the run in --run_dir where it ended; the workers' states are kept there")
    add_engine_options(command, "train on", "one trainer")
    add_output_options(command, "the summary")
    command.set_defaults(run=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    loaded = config.simulated(config.load(arguments.config, arguments.set))
    settings = loaded.config
    if arguments.resume and not arguments.run_dir:
        raise ConfigError("--resume needs to know which run", "--run_dir DIRECTORY", "none")
    signals.end_on_request()
    from flq.reports.shown import Shown
    with Shown(arguments) as shown:
        log.start("simulate", settings.logging.log_dir, settings.logging.log_level, shown.handler)
        for line in idle_keys.without_effect(settings, loaded.explicit):
            logging.getLogger("flq.simulate").warning("%s", line)
        from flq.master.status import status
        from flq.reports.compare import summary_table
        from flq.reports.files import write_reports
        from flq.simulation.run import simulate, simulation_learner

        def follow(service: "Service") -> None:
            shown.follow(lambda: status(service))

        learner: "Learner"
        with contextlib.ExitStack() as stack:
            with shown.loading():
                if arguments.engine == "ray":
                    from flq.cluster.trainers import cluster_learner
                    learner = stack.enter_context(cluster_learner(
                        settings, arguments.address, arguments.cpus, arguments.gpus))
                else:
                    learner = simulation_learner(settings)
            directory, run = simulate(
                settings, arguments.run_dir, learner, follow, resume=arguments.resume,
                write_reports=write_reports if settings.logging.save_results else None)
    if arguments.json:
        print(json.dumps(dict(run.summary, run_dir=str(directory)), indent=2))
    shown.result(summary_table(run))
    shown.result(f"saved: {directory / 'summary.json'}")
    if run.summary["phase"] == "UNFINISHED":
        go_on = f"; go on with --resume --run_dir {directory}" if arguments.resume else ""
        shown.result(
            f"interrupted after {run.summary['rounds']} of {settings.system.max_rounds} "
            f"rounds{go_on}"
        )
    return 0


def _add_replay(commands: "command_line.Commands") -> None:
    command = commands.add_parser("replay",
                                  help="compute a run again from its store and compare every round")
    command.add_argument("run_dir")
    command.add_argument("--no_evaluation", action="store_true",
                         help="do not test the models again")
    add_output_options(command, "what was found")
    command.set_defaults(run=_replay)


def _replay(arguments: argparse.Namespace) -> int:
    from flq.learning.learner import build_learner
    from flq.master.stored.audit import replay
    from flq.reports.shown import Shown
    evaluate = not arguments.no_evaluation
    compared = 0
    with Shown(arguments) as shown:

        def build(settings: Any) -> Any:
            with shown.loading():
                return build_learner(settings, (), evaluate=evaluate)

        def on_round(done: int, total: int, line: str) -> None:
            nonlocal compared
            compared += 1
            shown.step("round", done, total, line)

        last = replay(Path(arguments.run_dir), build, evaluate,
                      lambda text: None if shown.quiet else shown.say(text), on_round)
    if arguments.json:
        print(json.dumps({"run_dir": arguments.run_dir, "compared_rounds": compared,
                          "params_hash": last}))
    shown.result(f"the run is what its store says: model {last}")
    return 0


def _add_check_data(commands: "command_line.Commands") -> None:
    command = commands.add_parser(
        "check-data", help="a run's data: samples and labels of each worker, and what is wrong")
    command.add_argument("--config", help="JSON file; without it the defaults count")
    command.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                         help="change one key; may be repeated")
    command.add_argument("--picture", metavar="FILE", help="draw the partition as a PNG")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_check_data)


def _check_data(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config, arguments.set).config
    from flq.learning.data_check import check_data
    from flq.reports import data_report
    checked = check_data(settings)
    if arguments.json:
        print(json.dumps(data_report.to_json(settings, checked), indent=2))
    else:
        print(printable(data_report.text(settings, checked)))
    if arguments.picture and checked.counts is not None:
        data_report.draw(arguments.picture, settings, checked)
        print(f"saved: {arguments.picture}", file=sys.stderr)
    return DataError.exit_code if checked.errors else 0
