"""Who may do what: one secret of the operator, and a token of its own for every worker (protocol.md
6).

The master makes the secret once (~/.flq/token, mode 0600). A worker's token is derived from it and
is valid for that worker and nothing else, so that a stolen Nano gives away one place only.
"""

import hashlib
import hmac
import json
import os
import secrets
import shlex
from typing import Any, Dict, Optional

from flq.errors import ConfigError, UnreachableError

PREFIX = "flq1."


def token_path(given: Optional[str] = None) -> str:
    """The token file: --token_file, else FLQ_TOKEN, else ~/.flq/token."""
    return given or os.environ.get("FLQ_TOKEN") or os.path.join(os.path.expanduser("~"), ".flq",
                                                                "token")


def operator_command(method: str, url: str, body: Optional[Dict[str, Any]] = None,
                     token_file: Optional[str] = None, cafile: Optional[str] = None) -> str:
    """A line for a shell that asks a master for something in the operator's name.

    The shell's own printf gives curl the token: in curl's arguments every user of this machine
    could read it.
    """
    words = ["curl"] + (["--cacert", cafile] if cafile else []) + ["-K", "-", "-X", method]
    if body is not None:
        words += ["-d", json.dumps(body)]
    token = shlex.quote(token_path(token_file))
    return (f"printf 'header = \"Authorization: Bearer %s\"' \"$(cat {token})\" | "
            + " ".join(shlex.quote(word) for word in words + [url]))


def make_secret(path: str) -> str:
    """Read the operator's secret, or make it.

    O_EXCL: of two masters that start at once one makes it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_secret(path)
    except FileNotFoundError:
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise _cannot_write(path, error)
        return make_secret(path)
    except OSError as error:
        raise _cannot_write(path, error)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return read_secret(path)


def rotate_secret(path: str) -> str:
    """A new secret in place of the old one; every token made from the old one is void."""
    fresh = path + ".new"
    if os.path.exists(fresh):
        os.unlink(fresh)
    secret = make_secret(fresh)
    os.replace(fresh, path)
    return secret


def read_secret(path: str) -> str:
    """The operator's secret. Raises ConfigError when the file is missing, empty or a worker's."""
    text = _read(path)
    if not text or text.startswith(PREFIX):
        raise ConfigError(f"{path} does not hold the operator's token", "what the master wrote",
                          "a worker's token" if text else "nothing",
                          "start the master first, or name its file with --token_file")
    return text


def worker_token(secret: str, worker: int) -> str:
    """`flq1.<m>.` + HMAC-SHA256(secret, "worker m")."""
    mac = hmac.new(secret.encode("ascii"), f"worker {worker}".encode("ascii"),
                   hashlib.sha256).hexdigest()
    return f"{PREFIX}{worker}.{mac}"


def token_for_worker(path: str, worker: int) -> Optional[str]:
    """The token in the file, derived where the file is the operator's; None while there is no file.

    Raises UnreachableError where the disk does not give it now, and ConfigError where it holds
    another worker's, or no token.
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
        return worker_token(text, worker)
    owner = text.split(".")[1]
    if owner != str(worker):
        raise ConfigError(
            f"{path} holds the token of another worker", f"worker {worker}", f"worker {owner}",
            f"copy the file that `python -m flq token --worker {worker}` prints on the master")
    return text


def worker_of(secret: str, token: str) -> Optional[int]:
    """The worker that a token belongs to, None when it is not valid. Compares in constant time."""
    parts = token.split(".")
    if len(parts) != 3 or not parts[1].isdecimal() or len(parts[1]) > 5:
        return None
    worker = int(parts[1])
    return worker if hmac.compare_digest(token.encode("utf-8"),
                                         worker_token(secret, worker).encode("utf-8")) else None


def is_operator(secret: str, token: str) -> bool:
    """True for the operator's own secret. Compares in constant time."""
    return hmac.compare_digest(token.encode("utf-8"), secret.encode("utf-8"))


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
