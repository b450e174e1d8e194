#!/usr/bin/env python3
"""An FLQ worker: trains on its own data and sends what is worth sending.

`python flq_worker.py --help` lists the options.
"""

import argparse
import os
import sys

from flq import command_line, config
from flq.host import log, signals, variables


def parse() -> argparse.Namespace:
    parser = command_line.Parser(
        description="An FLQ worker: trains on its own data and sends what is worth sending.")
    command_line.add_common(parser, "flq-worker")
    parser.add_argument(
        "--config", help="JSON file with this machine's own keys; shared keys come from the master")
    parser.add_argument("--worker_id", required=True,
                        help="a number, or a range like 0-15 for many workers in one process")
    parser.add_argument("--master_url", help="http://HOST:PORT (default: system.master_url)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="change one local key; may be repeated")
    parser.add_argument("--allow", action="append", default=[], metavar="NAME",
                        help="what the master may name: package.module, package.module:NAME or "
                        "KIND:PATH of data such as npz:FILE; may be repeated (security.allow)")
    parser.add_argument("--retry_for", type=command_line.seconds, metavar="S",
                        help="give up when the master is away for S seconds (default: never)")
    parser.add_argument("--token_file",
                        help="this worker's token (default: FLQ_TOKEN, else ~/.flq/token)")
    command_line.add_tls(parser, "security.cafile")
    parser.add_argument(
        "--state_dir",
        help="where this worker's state survives (default: FLQ_STATE_DIR, else ~/.flq/state)")
    parser.add_argument("--take_over", action="store_true",
                        help="claim the worker id from a process that still holds it")
    return parser.parse_args()


def main() -> int:
    variables.set_missing()
    arguments = parse()
    signals.end_on_request()
    return command_line.run("worker", lambda: work(arguments))


def work(arguments: argparse.Namespace) -> int:
    from flq.worker import process
    workers = process.parse_workers(arguments.worker_id)
    own = config.load(arguments.config, arguments.set)
    log.start("worker-" + arguments.worker_id, own.config.logging.log_dir,
              own.config.logging.log_level)
    from flq.learning.learner import build_learner
    from flq.learning.limits import Limits
    replicas = min(len(workers), os.cpu_count() or 1)
    options = process.Options(workers=workers, master_url=arguments.master_url
                              or own.config.system.master_url, own=own,
                              token_file=arguments.token_file, retry_for_s=arguments.retry_for,
                              take_over=arguments.take_over, state_dir=arguments.state_dir,
                              cafile=arguments.cafile or own.config.security.cafile,
                              cert=arguments.cert, key=arguments.key, allow=arguments.allow)
    limits = Limits.of(own.config)
    return process.run(
        options, lambda resolved, ids: build_learner(resolved, ids, evaluate=False,
                                                     replicas=replicas, limits=limits))


if __name__ == "__main__":
    sys.exit(main())
