"""Counts what travels in a run, in a small file that outlives a killed process (protocol.md 7)."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import threading
from pathlib import Path

_log = logging.getLogger("flq.master")


class WireCounter:
    """Bits that workers sent (up) and were sent (down) in a run, in whatever process of the master.

    Rounds store what travelled until they closed; what came since is in a small file that outlives
    a killed process.
    """

    _RECORD = struct.Struct("<16s2Q")  # whose run it is, bytes received, bytes sent

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._sent = 0
        self._run, self._file = b"", -1

    def keep(self, path: Path, run_id: str, in_rounds: tuple[int, int]) -> None:
        """Count on from the file, or from the bits in the run's rounds where that is more: a run
        that was moved has no file.

        Without room for the file what a killed master did not store is not counted.
        """
        self._run = hashlib.sha256(run_id.encode()).digest()[:16]
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            found = os.pread(self._file, self._RECORD.size, 0)
        except OSError as error:
            _log.warning(
                "cannot write %s (%s): a kill of this process loses the wire bits of its open "
                "round",
                path, error.strerror)
            found = b""
        run, received, sent = self._RECORD.unpack(found) if len(found) == self._RECORD.size else (
            b"", 0, 0)
        if run != self._run:
            received = sent = 0
        with self._lock:
            self._received += max(received, in_rounds[0] // 8)
            self._sent += max(sent, in_rounds[1] // 8)
            self._write()

    def received(self, count: int) -> None:
        with self._lock:
            self._received += count
            self._write()

    def sent(self, count: int) -> None:
        with self._lock:
            self._sent += count
            self._write()

    def bits(self) -> tuple[int, int]:
        with self._lock:
            return 8 * self._received, 8 * self._sent

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _write(self) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):  # without room the old numbers stay
                os.pwrite(self._file, self._RECORD.pack(self._run, self._received, self._sent), 0)
