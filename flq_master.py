#!/usr/bin/env python3
"""The FLQ master: holds the global model and runs the rounds.

`python flq_master.py --help` lists the options.
"""

import argparse
import sys

from flq import command_line, config
from flq.host import log, signals, variables


def parse() -> argparse.Namespace:
    parser = command_line.Parser(
        description="The FLQ master: holds the global model and runs the rounds.")
    command_line.add_common(parser, "flq-master")
    parser.add_argument("--config", help="JSON file; without it the defaults count")
    parser.add_argument("--host", default="127.0.0.1",
                        help="address to listen on; 0.0.0.0 for all (default: %(default)s)")
    parser.add_argument("--port", type=command_line.port, default=5000,
                        help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--run_dir", help="directory of the run (default: RESULT_DIR/<run id>)")
    parser.add_argument("--resume", action="store_true",
                        help="without --run_dir: go on with the newest unfinished run of this "
                        "configuration in RESULT_DIR, if there is one")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="change one key; may be repeated")
    parser.add_argument("--exit_when_done", action="store_true",
                        help="exit when the run is over and its workers have heard it")
    parser.add_argument("--token_file",
                        help="the operator's token (default: FLQ_TOKEN, else ~/.flq/token)")
    parser.add_argument("--certfile", help="serve TLS only, with this PEM certificate (flq certs)")
    parser.add_argument("--keyfile",
                        help="the key of --certfile, where it does not stand in the same file")
    parser.add_argument("--client_ca", help="let nobody in without a certificate that this "
                        "authority signed (`python -m flq certs --worker M` makes one)")
    parser.add_argument("--port_file", help="write the port there once the master answers")
    arguments = parser.parse_args()
    if arguments.keyfile and not arguments.certfile:
        parser.error("--keyfile is the key of a --certfile, and there is none")
    return arguments


def main() -> int:
    variables.set_missing()
    arguments = parse()
    signals.end_on_request()
    return command_line.run("master", lambda: serve(arguments))


def serve(arguments: argparse.Namespace) -> int:
    command_line.need_python(3, 9)
    loaded = config.load(arguments.config, arguments.set)
    settings = loaded.config
    log.start("master", settings.logging.log_dir, settings.logging.log_level)
    from flq.learning.learner import build_learner
    from flq.master import process
    reports = None
    # what draws takes a second to load, and must not be found missing at the end of the run
    if settings.logging.save_results:
        from flq.reports.files import write_reports as reports
    options = process.Options(config=loaded.config, explicit=loaded.explicit, host=arguments.host,
                              port=arguments.port, run_dir=arguments.run_dir,
                              resume=arguments.resume, exit_when_done=arguments.exit_when_done,
                              token_file=arguments.token_file, port_file=arguments.port_file,
                              certfile=arguments.certfile, keyfile=arguments.keyfile,
                              client_ca=arguments.client_ca)
    return process.run(options, lambda resolved: build_learner(resolved, (), evaluate=True),
                       reports)


if __name__ == "__main__":
    sys.exit(main())
