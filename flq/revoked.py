"""What was revoked: tokens by their holder and client certificates by their fingerprint, in a file
beside the operator's secret (protocol.md 6).

It is no certificate revocation list: such a list ends with a date, after which nobody is let in,
and OpenSSL looks at it once, when a connection begins. This one counts for every request, also on
connections that are open.
"""

import contextlib
import json
import os
import re
import time
from typing import Any, Callable, Dict, Iterator, NamedTuple

from flq.errors import ConfigError
from flq.host import durable

MOST_TIMES = 1000
KEY = re.compile(r"(0|[1-9][0-9]{0,4}|(operator|viewer)-[a-z0-9][a-z0-9_-]{0,31})\Z")
"""The form of a holder's key (tokens.Holder)."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")


class Revoked(NamedTuple):
    """tokens: how often those of a holder were revoked, by its key. certificates: by SHA-256.

    Both with the time and the user of this machine who did it, for people: `{"times": 1, "at":
    1764547200, "by": "ann"}`.
    """

    tokens: Dict[str, Dict[str, Any]]
    certificates: Dict[str, Dict[str, Any]]

    def times(self, key: str) -> int:
        """How many tokens of a holder are void."""
        count = self.tokens.get(key, {}).get("times", 0)
        assert isinstance(count, int)
        return count


NOTHING = Revoked({}, {})


def beside(token_file: str) -> str:
    """The list's file, of a token file."""
    return token_file + ".revoked"


def read(path: str) -> Revoked:
    """What the file says; nothing where there is none. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        return NOTHING
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or "no JSON")
    if not isinstance(document, dict):
        raise _unreadable(path, "no object")
    tokens, certificates = document.get("tokens"), document.get("certificates")
    if not isinstance(tokens, dict) or not isinstance(certificates, dict) or not all(
            isinstance(note, dict) for group in (tokens, certificates) for note in group.values()):
        raise _unreadable(path, "other JSON")
    if not all(map(KEY.match, tokens)) or not all(map(_FINGERPRINT.match, certificates)):
        raise _unreadable(path, "a name of nobody")
    if not all(
            type(note.get("times")) is int and 0 < note["times"] <= MOST_TIMES
            for note in tokens.values()):
        raise _unreadable(path, "a wrong number of times")
    return Revoked(tokens, certificates)


def revoke_token(token_file: str, key: str) -> int:
    """The tokens of a holder that were made so far are void; gives how many those are. Raises
    ConfigError.
    """
    def add(now: Revoked) -> None:
        times = now.times(key) + 1
        if times > MOST_TIMES:
            raise ConfigError(f"the tokens of {key} were revoked {MOST_TIMES} times",
                              hint="`python -m flq token --rotate` voids all tokens")
        now.tokens[key] = dict(_note(), times=times)

    return _change(token_file, add).times(key)


def revoke_certificate(token_file: str, fingerprint: str) -> None:
    """The certificate with this SHA-256 opens no connection any more. Raises ConfigError."""
    if not _FINGERPRINT.match(fingerprint):
        raise ConfigError("that is no certificate", "a PEM file, or the 64 hex digits of its "
                          "SHA-256", fingerprint[:80])
    _change(token_file, lambda now: now.certificates.setdefault(fingerprint, _note()))


def _change(token_file: str, change: Callable[[Revoked], Any]) -> Revoked:
    path = beside(token_file)
    try:
        with _alone(token_file):
            now = read(path)
            now = Revoked(dict(now.tokens), dict(now.certificates))
            change(now)
            data = json.dumps(now._asdict(), indent=1, sort_keys=True).encode("utf-8") + b"\n"
            durable.replace_file(path, [data], "revoked")
            _give_to_the_owner(path, token_file)
    except OSError as error:
        raise ConfigError(f"cannot write {path}", got=error.strerror)
    return now


def _give_to_the_owner(path: str, token_file: str) -> None:
    """Where root revokes, a master of another user must be able to read it."""
    if os.name == "posix" and os.geteuid() == 0:
        owner = os.stat(token_file)
        os.chown(path, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def _alone(token_file: str) -> Iterator[None]:
    """One change at a time: of two at once none may be lost."""
    with open(token_file, "rb") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _note() -> Dict[str, Any]:
    return {"at": int(time.time()), "by": login_name()}


def login_name() -> str:
    """Who is logged in here, for people; `unknown` where the system has no name for it."""
    import getpass
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def _unreadable(path: str, got: str) -> ConfigError:
    return ConfigError(f"cannot read the list of what was revoked, {path}",
                       "what `python -m flq token --revoke` wrote", got,
                       "bring it back from a backup, or move it away and revoke again")
