"""results/<run_id>/run.db: the round is the transaction (protocol.md 4). The only file that knows SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from flq.errors import FlqError
from flq.records import RoundRecord, WorkerRound

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rounds (round INTEGER PRIMARY KEY, record TEXT NOT NULL, broadcast BLOB NOT NULL);
CREATE TABLE answers (round INTEGER, worker INTEGER, row TEXT NOT NULL, epoch INTEGER NOT NULL, reference_hash BLOB NOT NULL,
                      frame BLOB, PRIMARY KEY (round, worker)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, round INTEGER NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE evaluations (round INTEGER PRIMARY KEY, accuracy REAL NOT NULL, loss REAL NOT NULL, samples INTEGER NOT NULL);
"""


class StoreError(FlqError):
    """The store cannot be opened, read or written."""


class Answer(NamedTuple):
    """One worker's row of a round. frame: the upload as received, None where nothing was uploaded.
    epoch and reference_hash: the worker's chain after the round."""

    row: WorkerRound
    epoch: int
    reference_hash: bytes
    frame: bytes | None


class Event(NamedTuple):
    """Something that changed the run at a round boundary: a departure, a changed key. detail is JSON."""

    round: int
    kind: str
    detail: dict[str, Any]


class RoundCommit(NamedTuple):
    """All that one closed round leaves behind."""

    record: RoundRecord
    answers: tuple[Answer, ...]
    events: tuple[Event, ...]
    broadcast: bytes


class RunStore:
    """One run's database. `commit_round` returns when the round would survive a power cut.

    Used from several threads; one connection writes, under a lock.
    """

    def __init__(self, directory: Path, meta: dict[str, Any]) -> None:
        """Make a new store in an existing directory. meta: JSON values (run id, configuration, layout)."""
        self.path = directory / "run.db"
        if self.path.exists():
            raise StoreError(f"{self.path} exists already", hint="name an empty directory with --run_dir")
        self._lock = threading.Lock()
        try:
            # Autocommit: every transaction below is written out, BEGIN to COMMIT.
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript("BEGIN;" + _SCHEMA + "COMMIT;")
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in meta.items()])
        except sqlite3.Error as error:
            raise StoreError(f"cannot write the run store {self.path}", got=str(error), hint="is the disk full or read-only?")

    def commit_round(self, commit: RoundCommit) -> None:
        """One transaction. Raises StoreError when it could not be written; nothing of it is there then."""
        number = commit.record.round
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("INSERT INTO rounds VALUES (?, ?, ?)", (number, json.dumps(commit.record.to_json()), commit.broadcast))
                self._db.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                                     [(number, answer.row.worker, json.dumps(answer.row._asdict()), answer.epoch, answer.reference_hash,
                                       answer.frame) for answer in commit.answers])
                self._db.executemany("INSERT INTO events (round, kind, detail) VALUES (?, ?, ?)",
                                     [(event.round, event.kind, json.dumps(event.detail)) for event in commit.events])
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise StoreError(f"cannot write round {number} to {self.path}", got=str(error), hint="make room; it is tried again")

    def add_evaluation(self, round_: int, accuracy: float, loss: float, samples: int) -> None:
        """The test of the model after a round. A row of its own: it comes when the next round is under way."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?)", (round_, accuracy, loss, samples))

    def frames_of(self, worker: int, epoch: int) -> Iterator[bytes]:
        """The committed uploads of one worker's epoch, in order: what its reference is the sum of."""
        with self._lock:
            rows = self._db.execute("SELECT frame FROM answers WHERE worker = ? AND epoch = ? AND frame IS NOT NULL ORDER BY round",
                                    (worker, epoch)).fetchall()
        return (frame for frame, in rows)

    def answer(self, round_: int, worker: int) -> tuple[WorkerRound, bytes] | None:
        """One worker's row of a closed round and its chain after it; None when it took no part."""
        with self._lock:
            found = self._db.execute("SELECT row, reference_hash FROM answers WHERE round = ? AND worker = ?", (round_, worker)).fetchone()
        return None if found is None else (WorkerRound(**json.loads(found[0])), found[1])

    def worker_rounds(self) -> list[dict[str, Any]]:
        """Every worker's row of every round, in order."""
        with self._lock:
            return [json.loads(row) for row, in self._db.execute("SELECT row FROM answers ORDER BY round, worker")]

    def close(self) -> None:
        with self._lock:
            self._db.close()
