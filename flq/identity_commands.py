"""python -m flq token, certs and audit: who may do what, and who did it.

Each command imports what it needs when it runs.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from flq import command_line, revoked, tokens
from flq.errors import ConfigError
from flq.tokens import OPERATOR, VIEWER, WORKER, Holder

_MOST_WORKERS = 256  # in one certificate, which travels with each connection


def add(commands: "command_line.Commands") -> None:
    """Add the three commands."""
    _add_token(commands)
    _add_certs(commands)
    _add_audit(commands)


def _add_token(commands: "command_line.Commands") -> None:
    command = commands.add_parser("token", help="the operator's token, or one that is made from it")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--worker", type=command_line.worker_id,
                      help="print the token of this worker")
    what.add_argument("--operator", metavar="NAME",
                      help="print the token of an operator of this name, who may do everything; "
                      "the history names who did what")
    what.add_argument("--viewer", metavar="NAME",
                      help="print the token of a viewer, who may read and change nothing")
    what.add_argument("--revoke", metavar="WHOSE",
                      help="from now on the tokens of a worker (its number), operator-NAME or "
                      "viewer-NAME that were made so far are void, and no others")
    what.add_argument("--rotate", action="store_true",
                      help="make a new secret: all tokens made before are void")
    command.add_argument("--token_file", help="default: FLQ_TOKEN, else ~/.flq/token")
    command.set_defaults(run=_token)


def _token(arguments: argparse.Namespace) -> int:
    path = tokens.token_path(arguments.token_file)
    if arguments.rotate:
        print(tokens.rotate_secret(path))
        return 0
    if arguments.revoke is not None:
        whose = tokens.holder(arguments.revoke)
        tokens.read_secret(path)  # a list beside another machine's token would do nothing
        times = revoked.revoke_token(path, whose.key)
        print(f"revoked: all tokens of {whose.role} {whose.name} so far ({times}), in "
              f"{revoked.beside(path)}\n"
              f"the next: python -m flq token --{whose.role} {whose.name}")
        return 0
    secret = tokens.make_secret(path)
    found = _holder(arguments)
    print(secret if found is None else tokens.token_of(secret, found,
                                                       revoked.read(revoked.beside(path))))
    return 0


def _holder(arguments: argparse.Namespace) -> Optional[Holder]:
    if arguments.worker is not None:
        return Holder(WORKER, str(arguments.worker))
    for role in (OPERATOR, VIEWER):
        name = getattr(arguments, role)
        if name is not None:
            return tokens.holder(f"{role}-{name}")
    return None


def _add_certs(commands: "command_line.Commands") -> None:
    command = commands.add_parser(
        "certs", help="an authority, and certificates for a master that serves TLS and its clients")
    command.add_argument("names", nargs="*", metavar="NAME",
                         help="every name and IP address by which workers reach the master: makes "
                         "its certificate")
    command.add_argument(
        "--out", help="folder for ca.pem, ca.key and what is made; an authority there signs again")
    command.add_argument("--worker", metavar="M",
                         help="a certificate for this worker; 0-3 for a process that runs these")
    command.add_argument("--operator", metavar="NAME", help="one for an operator of this name")
    command.add_argument("--viewer", metavar="NAME", help="one for a viewer")
    command.add_argument("--revoke", metavar="FILE",
                         help="a certificate, or its SHA-256, that a master lets in no more")
    command.add_argument("--token_file",
                         help="beside which the master finds what is revoked (default: FLQ_TOKEN, "
                         "else ~/.flq/token)")
    command.set_defaults(run=_certs)


def _certs(arguments: argparse.Namespace) -> int:
    from flq.master.http.certificates import fingerprint_of, make_certificates, make_client
    wanted = [(role, getattr(arguments, role)) for role in (WORKER, OPERATOR, VIEWER)
              if getattr(arguments, role) is not None]
    if arguments.revoke is not None:
        if wanted or arguments.names or arguments.out:
            raise ConfigError("--revoke makes no certificate", "it alone", "more options")
        path = tokens.token_path(arguments.token_file)
        tokens.read_secret(path)
        found = fingerprint_of(arguments.revoke)
        revoked.revoke_certificate(path, found)
        print(f"revoked: {found} in {revoked.beside(path)}")
        return 0
    if not arguments.out or not (wanted or arguments.names):
        raise ConfigError("what is to be made?",
                          "--out FOLDER with names of the master, --worker, --operator or --viewer",
                          "less")
    if arguments.names:
        ca, _, server, key = make_certificates(arguments.out, arguments.names)
        print(f"master:  --certfile {server} --keyfile {key}\nworkers: --cafile {ca}")
    for role, text in wanted:
        holders = _certified(role, text)
        cert, key = make_client(arguments.out, f"{role}-{text}", [held.key for held in holders])
        print(f"{role} {text}: --cert {cert} --key {key}")
    return 0


def _certified(role: str, text: str) -> List[Holder]:
    """Whom a certificate is for."""
    if role != WORKER:
        return [tokens.holder(f"{role}-{text}")]
    from flq.worker.process import parse_workers
    workers = parse_workers(text)
    if len(workers) > _MOST_WORKERS:
        raise ConfigError("a certificate is not for that many workers",
                          f"at most {_MOST_WORKERS}", len(workers), "make several")
    return [Holder(WORKER, str(worker)) for worker in workers]


def _add_audit(commands: "command_line.Commands") -> None:
    command = commands.add_parser("audit",
                                  help="what operators did to a run: who, when, from where")
    command.add_argument("run_dir")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from flq.master.store.events import NAMES, ORDERS
    from flq.master.store.run_store import RunReader
    with RunReader(Path(arguments.run_dir)) as reader:
        found = [(round_, event) for round_, event in reader.events_by_round()
                 if isinstance(event, ORDERS)]
    rows: List[Dict[str, Any]] = []
    for round_, event in found:
        detail = {"to" if name == "round" else name: value for name, value in asdict(event).items()
                  if name not in ("by", "at", "heals")}
        at = getattr(event, "at", 0.0) or None  # older versions wrote none
        rows.append({"round": round_, "at": at, "by": event.by or None,
                     "event": NAMES[type(event)], **detail})
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print("  ".join(_columns(row)))
    if not rows:
        print("no operator did anything")
    return 0


def _columns(row: Dict[str, Any]) -> Tuple[str, ...]:
    """Time in UTC, round, order, what it was about, whose it was."""
    moment = "-" if row["at"] is None else time.strftime("%Y-%m-%dT%H:%M:%SZ",
                                                         time.gmtime(row["at"]))
    about = ("" if "key" not in row else
             f"{row['key']}: {json.dumps(row['old'])} -> {json.dumps(row['new'])}")
    if "worker" in row:
        about = f"worker {row['worker']}"
    if "to" in row:
        about = f"to the model of round {row['to'] + 1}"
    return (f"{moment:20}", f"round {row['round'] + 1:<6}", f"{row['event']:8}", f"{about:40}",
            f"by {row['by'] or 'unknown'}")
