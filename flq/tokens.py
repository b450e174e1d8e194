"""Who may do what: one secret of the operator, and a token of its own for every worker, further
operator and viewer (protocol.md 6).

The master makes the secret once (~/.flq/token, mode 0600). A worker's token is derived from it and
is valid for that worker and nothing else, so that a stolen Nano gives away one place only. Each can
be revoked by itself (`flq.revoked`): the next one of the same holder is another.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shlex
from typing import Any, Dict, NamedTuple, Optional

from flq import revoked
from flq.errors import ConfigError, UnreachableError
from flq.host import durable, private_files
from flq.revoked import NOTHING, Revoked

PREFIX = "flq1."
WORKER, OPERATOR, VIEWER = "worker", "operator", "viewer"
OWNER = "owner"
"""The name of who holds the secret itself."""

_SHORTEST, _FEWEST_LETTERS = 32, 8  # of a secret that nobody can guess


class Holder(NamedTuple):
    """Whom a token is for. role: worker, operator or viewer. name: a worker's number, or a name."""

    role: str
    name: str

    @property
    def key(self) -> str:
        """How a token and the list of what was revoked name its holder: 3, operator-ann."""
        return self.name if self.role == WORKER else f"{self.role}-{self.name}"


def holder(key: str) -> Holder:
    """The holder that `Holder.key` names. Raises ConfigError."""
    if revoked.KEY.match(key):
        role, dash, name = key.partition("-")
        if dash and name != OWNER:
            return Holder(role, name)
        if not dash and int(key) <= 65535:
            return Holder(WORKER, key)
    raise ConfigError("nobody has a token by that name",
                      "a worker's number, operator-NAME or viewer-NAME, with a name of at most 32 "
                      f"small letters, digits, - and _ that is not {OWNER}", key[:60])


def token_path(given: Optional[str] = None) -> str:
    """The token file: --token_file, else FLQ_TOKEN, else ~/.flq/token."""
    return given or os.environ.get("FLQ_TOKEN") or os.path.join(os.path.expanduser("~"), ".flq",
                                                                "token")


def operator_command(method: str, url: str, body: Optional[Dict[str, Any]] = None,
                     token_file: Optional[str] = None, cafile: Optional[str] = None,
                     cert: Optional[str] = None, key: Optional[str] = None) -> str:
    """A line for a shell that asks a master for something in the operator's name.

    The shell's own printf gives curl the token: in curl's arguments every user of this machine
    could read it.
    """
    words = ["curl"]
    for option, file in (("--cacert", cafile), ("--cert", cert), ("--key", key)):
        words += [option, file] if file else []
    words += ["-K", "-", "-X", method]
    if body is not None:
        words += ["-d", json.dumps(body)]
    token = shlex.quote(token_path(token_file))
    return (f"printf 'header = \"Authorization: Bearer %s\"' \"$(cat {token})\" | "
            + " ".join(shlex.quote(word) for word in words + [url]))


def make_secret(path: str) -> str:
    """Read the operator's secret, or make it: of two masters that start at once one makes it.

    The file is there whole or not at all, also after a kill and on a full disk. Raises ConfigError.
    """
    if not os.path.exists(path):
        mine = f"{path}.{secrets.token_hex(8)}"
        try:
            _write_new_secret(mine)
            try:
                os.link(mine, path)  # where the other was first, its file stays
            except FileExistsError:
                pass
            finally:
                os.unlink(mine)
            durable.sync_directory(os.path.dirname(path) or ".")
        except OSError as error:
            raise _cannot_write(path, error)
    return read_secret(path)


def rotate_secret(path: str) -> str:
    """A new secret in place of the old one; every token made from the old one is void. Raises
    ConfigError; the old one then stays.
    """
    try:
        _write_new_secret(path)
    except OSError as error:
        raise _cannot_write(path, error)
    return read_secret(path)


def _write_new_secret(path: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".new")  # a rotation was cut off, perhaps with another mode
    durable.replace_file(path, [secrets.token_hex(32).encode("ascii") + b"\n"], "token")


def read_secret(path: str) -> str:
    """The operator's secret. Raises ConfigError when the file is missing, empty or a worker's, or
    others may read it.
    """
    text = _read(path)
    if not text or text.startswith(PREFIX):
        raise ConfigError(f"{path} does not hold the operator's token", "what the master wrote",
                          "a derived token" if text else "nothing",
                          "start the master first, or name its file with --token_file")
    private_files.check(path, "the operator's token")
    return text


def weakness(secret: str) -> Optional[str]:
    """A line for the log where a secret can be guessed: from any token that is derived from it, and
    without asking the master. What FLQ makes has 256 random bits.
    """
    if len(secret) >= _SHORTEST and len(set(secret)) >= _FEWEST_LETTERS:
        return None
    return ("the operator's token can be guessed by any worker: it is shorter than "
            f"{_SHORTEST} letters or has few different ones; `python -m flq token --rotate` makes "
            "a strong one")


def token_of(secret: str, whose: Holder, revoked: Revoked = NOTHING) -> str:
    """The token that is valid now: `flq1.<key>.` + HMAC-SHA256(secret, its role and name), with the
    number of those before it that were revoked."""
    return _token(secret, whose, revoked.times(whose.key))


def worker_token(secret: str, worker: int, revoked: Revoked = NOTHING) -> str:
    """`flq1.<m>.` + HMAC-SHA256(secret, "worker m"), for the first token of a worker."""
    return token_of(secret, Holder(WORKER, str(worker)), revoked)


def _token(secret: str, whose: Holder, generation: int) -> str:
    message = f"{whose.role} {whose.name}" + (f" {generation}" if generation else "")
    mac = hmac.new(secret.encode("ascii"), message.encode("ascii"), hashlib.sha256).hexdigest()
    return f"{PREFIX}{whose.key}.{mac}"


def token_for_worker(path: str, worker: int) -> Optional[str]:
    """The token in the file, derived where the file is the operator's; None while there is no file.

    Raises UnreachableError where the disk does not give it now, and ConfigError where it holds
    another worker's, or no token, or a secret that others may read.
    """
    if not os.path.exists(path):
        return None
    try:
        text = _read(path)
    except _Unreadable as error:
        raise UnreachableError(error.message, got=error.got, hint=error.hint)
    if not text:
        return None
    if not text.startswith(PREFIX):
        private_files.check(path, "the operator's token")
        return worker_token(text, worker, revoked.read(revoked.beside(path)))
    owner = text.split(".")[1]
    if owner != str(worker):
        raise ConfigError(
            f"{path} holds the token of another worker", f"worker {worker}",
            f"worker {owner}" if owner.isdecimal() else owner[:60],
            f"copy the file that `python -m flq token --worker {worker}` prints on the master")
    return text


def holder_of(secret: str, token: str, revoked: Revoked = NOTHING) -> Optional[Holder]:
    """Whom a derived token belongs to, None when it is not valid. Compares in constant time."""
    whose = _claimed(token)
    return whose if whose is not None and _same(token, token_of(secret, whose, revoked)) else None


def worker_of(secret: str, token: str, revoked: Revoked = NOTHING) -> Optional[int]:
    """The worker that a token belongs to, None when it is not valid. Compares in constant time."""
    whose = holder_of(secret, token, revoked)
    return int(whose.name) if whose is not None and whose.role == WORKER else None


def was_revoked(secret: str, token: str, revoked: Revoked) -> bool:
    """Whether a token was valid once."""
    whose = _claimed(token)
    return whose is not None and any(
        _same(token, _token(secret, whose, before)) for before in range(revoked.times(whose.key)))


def _claimed(token: str) -> Optional[Holder]:
    """Whom a token speaks of, unchecked; None for what is no derived token."""
    parts = token.split(".")
    try:
        return holder(parts[1]) if len(parts) == 3 else None
    except ConfigError:
        return None


def is_operator(secret: str, token: str) -> bool:
    """True for the operator's own secret. Compares in constant time."""
    return _same(token, secret)


def _same(token: str, right: str) -> bool:
    return hmac.compare_digest(token.encode("utf-8"), right.encode("utf-8"))


def _cannot_write(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write the token file {path}", got=error.strerror,
                       hint="name another one with --token_file")


class _Unreadable(ConfigError):
    """The disk does not give a file, which may pass."""


def _read(path: str) -> str:
    hint = "start the master on this machine, or copy the worker's token here"
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except OSError as error:
        raise _Unreadable(f"cannot read the token file {path}", got=error.strerror, hint=hint)
    except UnicodeDecodeError:
        text = "\n"
    if not text.isprintable() or " " in text:
        raise ConfigError(f"{path} holds no token", "one line of letters and digits", "other bytes",
                          hint)
    return text
