"""What was revoked, while a master serves: the list is read again when its file changes, and a
worker whose token it names loses its session (protocol.md 6).
"""

from __future__ import annotations

import logging
import os
import threading

from flq import revoked
from flq.errors import ConfigError
from flq.master.service import Service
from flq.revoked import Revoked

_log = logging.getLogger("flq.master")

LOOK_EVERY_S = 0.5


class Revocations:
    """The list beside a token file. Raises ConfigError where it cannot be read at the start.

    A file that cannot be read later, or is gone, changes nothing: what was revoked stays so.
    """

    def __init__(self, token_file: str) -> None:
        self._path = revoked.beside(token_file)
        self._lock = threading.Lock()
        self._seen = self._look()
        self._now = revoked.read(self._path)
        self._trouble = ""  # why it could not be read last
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def now(self) -> Revoked:
        """What is revoked at this moment."""
        with self._lock:
            seen = self._look()
            if seen != self._seen or self._trouble:
                self._seen = seen
                self._read()
            return self._now

    def start(self, service: Service) -> None:
        """From now on a session ends within LOOK_EVERY_S of the revocation."""
        first = self.now()
        _tell(service, first)
        self._thread = threading.Thread(target=self._watch, args=(service, first),
                                        name="revocations", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> None:
        before, self._trouble = self._trouble, ""
        if self._seen is None:
            self._trouble = f"{self._path} is gone"
        else:
            try:
                self._now = revoked.read(self._path)
            except ConfigError as error:
                self._trouble = str(error)
        if self._trouble and self._trouble != before:
            _log.error("%s; what it said before counts", self._trouble)

    def _watch(self, service: Service, before: Revoked) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            after = self.now()
            if after is before:
                continue
            _tell(service, after)
            for key in sorted(after.tokens):
                if after.times(key) > before.times(key):
                    _log.warning("the token of %s was revoked", key)
            for fingerprint in sorted(set(after.certificates) - set(before.certificates)):
                _log.warning("the certificate %s was revoked", fingerprint)
            before = after


def _tell(service: Service, now: Revoked) -> None:
    with service.locked() as run:
        run.note_revoked({int(key): now.times(key) for key in now.tokens if key.isdecimal()})
