"""results/<run_id>/run.db: the round is the transaction (protocol.md 4).

The only file that knows SQLite.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import secrets
import sqlite3
import threading
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

from flq.errors import ConfigError, FlqError
from flq.host import crash_points
from flq.host.durable import sync_directory
from flq.master.store import events as kinds
from flq.master.store.events import Event, Leave, Remove
from flq.records import Evaluation, RoundRecord, WorkerRound
from flq.reports.run_files import need_run

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rounds (round INTEGER PRIMARY KEY, record TEXT NOT NULL,
    accounting TEXT NOT NULL, broadcast BLOB NOT NULL);
CREATE TABLE answers (round INTEGER, worker INTEGER, row TEXT NOT NULL,
    epoch INTEGER NOT NULL, reference_hash BLOB NOT NULL, frame BLOB,
    PRIMARY KEY (round, worker)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, round INTEGER NOT NULL, kind TEXT NOT NULL,
    detail TEXT NOT NULL);
CREATE TABLE member_references (worker INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,
    sha256 BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE evaluations (round INTEGER PRIMARY KEY, accuracy REAL NOT NULL,
    loss REAL NOT NULL, samples INTEGER NOT NULL);
CREATE TABLE checkpoints (version INTEGER PRIMARY KEY, sha256 BLOB NOT NULL, data BLOB NOT NULL);
"""
# A row as it became after its round had closed. Not in the oldest stores, and not in the row of
# rounds, which is as long as a broadcast and would be written anew.
_LATER_SCHEMA = "{} final_records (round INTEGER PRIMARY KEY, record TEXT NOT NULL)"
# only for models with frozen layers
_CONSTANTS_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS constants (sha256 BLOB NOT NULL, data BLOB NOT NULL)")
_WITH_FRAMES = ("rounds", "answers")
_KEPT_CHECKPOINTS = 2

FINISHED, STOPPED, UNFINISHED, OPEN = "FINISHED", "STOPPED", "UNFINISHED", "OPEN"
"""How a run stands: it has all its rounds; its operator ended it; it may go on; it goes on, and
nobody has ended or interrupted it.
"""

# A row of an upload is some hundred kB. In SQLite's own pages of 4 kB and cache of 2 MB one round
# took three times as long: each upload was a chain of 60 pages, and a round that overflows the
# cache is written twice.
PAGE_BYTES = 16384
_CACHE_KB = 16384
_TABLE_PAGES, _LOG_PAGE_HEADER = 6, 24
_LONGEST_VALUE = 10**9  # of a row, where SQLite is built as by default


class StoreError(FlqError):
    """The store cannot be opened, read or written."""


class TooLong(StoreError):
    """What no row can hold, however much room the disk has."""


class Answer(NamedTuple):
    """One worker's row of a round. frame: the upload as received, None where nothing was uploaded.
    epoch and reference_hash: the worker's chain after the round."""

    row: WorkerRound
    epoch: int
    reference_hash: bytes
    frame: bytes | None


class Reference(NamedTuple):
    """g_m of a member where the store was compacted, as closing.pack_reference packs it."""

    worker: int
    epoch: int
    data: bytes


class RoundCommit(NamedTuple):
    """All that one closed round leaves behind. accounting: what has been delivered to whom until
    now, JSON.

    changed: rows of earlier rounds that are not what was stored any more.
    """

    record: RoundRecord
    answers: tuple[Answer, ...]
    events: tuple[Event, ...]
    accounting: dict[str, Any]
    broadcast: bytes
    changed: tuple[RoundRecord, ...] = ()


class StoredRound(NamedTuple):
    """A closed round as it lies in the store."""

    record: RoundRecord
    answers: tuple[Answer, ...]
    events: tuple[Event, ...]
    accounting: dict[str, Any]


class Ending(NamedTuple):
    """What is written when a run ends or is interrupted, and of one that goes on (OPEN) when
    something was counted that nobody would say again, beside the rows that changed. rounds: closed
    ones then; with more it does not hold any more. devices: as workers reported them last, {} while
    the run goes on."""

    rounds: int
    phase: str
    accounting: dict[str, Any]
    devices: dict[str, Any]


class StoredRows:
    """What can be read of a store. Used from several threads; one connection, under a lock."""

    path: Path
    _db: sqlite3.Connection

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def meta(self) -> dict[str, Any]:
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM meta")}

    def ending(self) -> Ending | None:
        """What was written after the newest round had closed, None where nothing was."""
        found = self._rows("SELECT value FROM meta WHERE key = 'ending'")
        ending = Ending(**json.loads(found[0][0])) if found else None
        return ending if ending is not None and ending.rounds == self.num_rounds() else None

    def num_rounds(self) -> int:
        """The number of closed rounds."""
        return int(self._rows("SELECT count(*) FROM rounds")[0][0])

    def newest_accounting(self) -> dict[str, Any]:
        """What the newest round kept of it, {} before there is one."""
        found = self._rows("SELECT accounting FROM rounds ORDER BY round DESC LIMIT 1")
        return dict(json.loads(found[0][0])) if found else {}

    def last_rows_down(self) -> list[tuple[int, list[int]]]:
        """(round, down bits of the round before it), which stores of before rows were written again
        kept there.
        """
        return [(round_, json.loads(bits)) for round_, bits in self._rows(
            "SELECT round, json_extract(accounting, '$.last_row_down') AS bits FROM rounds WHERE "
            "bits IS NOT NULL ORDER BY round"
        )]

    def compacted(self) -> int:
        """The version from which the run can be computed again, 0 when nothing was dropped."""
        found = self._rows("SELECT value FROM meta WHERE key = 'compacted'")
        return int(json.loads(found[0][0])) if found else 0

    def reference(self, worker: int, epoch: int) -> bytes | None:
        """What a compaction kept of a member's reference in that epoch.

        Raises StoreError when it is damaged.
        """
        found = self._rows(
            "SELECT sha256, data FROM member_references WHERE worker = ? AND epoch = ?",
            (worker, epoch))
        if found and hashlib.sha256(found[0][1]).digest() != found[0][0]:
            raise StoreError(f"the reference of worker {worker} in {self.path} is damaged",
                             hint="a backup can take its place")
        return found[0][1] if found else None

    def constants(self) -> bytes | None:
        """What add_constants kept, None where there is none.

        Raises StoreError when it is damaged.
        """
        kept = self._rows("SELECT name FROM sqlite_master WHERE name = 'constants'") and self._rows(
            "SELECT sha256, data FROM constants")
        if kept and hashlib.sha256(kept[0][1]).digest() != kept[0][0]:
            raise StoreError(f"the values of the frozen layers in {self.path} are damaged",
                             hint="a backup can take its place")
        return kept[0][1] if kept else None

    def rounds(self, since: int = 0) -> Iterator[StoredRound]:
        """Closed rounds from round `since` on, in order."""
        closed = self._rows(
            "SELECT round, record, accounting FROM rounds WHERE round >= ? ORDER BY round",
            (since,))
        for number, record, accounting in closed:
            answers = tuple(
                Answer(WorkerRound(**json.loads(row)), epoch, reference_hash, frame)
                for row, epoch, reference_hash, frame in self._rows(
                    "SELECT row, epoch, reference_hash, frame FROM answers WHERE round = ? ORDER "
                    "BY worker",
                    (number,)))
            yield StoredRound(_record(record), answers, tuple(self.events(number, number + 1)),
                              json.loads(accounting))

    def records(self, since: int = 0, until: int | None = None) -> list[RoundRecord]:
        """The records of the rounds from since to before until, as far as they are final, with what
        the tests found.
        """
        span = since, 2**62 if until is None else until
        tested = self.evaluations(*span)
        records = [
            _record(record) for record, in self._rows(
                "SELECT coalesce(final_records.record, rounds.record) FROM rounds LEFT JOIN "
                "final_records USING (round) "
                "WHERE round >= ? AND round < ? ORDER BY round", span)
        ]
        for round_, result in tested.items():
            records[round_ - since] = records[round_ - since]._replace(
                accuracy=result.accuracy, loss=result.loss)
        return records

    def evaluations(self, since: int = 0, until: int = 2**62) -> dict[int, Evaluation]:
        rows = self._rows(
            "SELECT round, accuracy, loss, samples FROM evaluations WHERE round >= ? AND round < ?",
            (since, until))
        return {
            round_: Evaluation(float(accuracy), float(loss), samples)
            for round_, accuracy, loss, samples in rows
        }

    def events(self, since: int = 0, until: int = 2**62) -> list[Event]:
        """What changed the run from round `since` to before `until`, in order.

        Those of the open round were answered already.
        """
        return [event for _, event in self.events_by_round(since, until)]

    def events_by_round(self, since: int = 0, until: int = 2**62) -> list[tuple[int, Event]]:
        """The same, each with its round."""
        return [(round_, self._event(kind, detail)) for round_, kind, detail in self._rows(
            "SELECT round, kind, detail FROM events WHERE round >= ? AND round < ? ORDER BY id", (
                since, until))]

    def _event(self, kind: str, detail: str) -> Event:
        try:
            return kinds.from_row(kind, detail)
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"an event in {self.path} cannot be read",
                             "one of " + ", ".join(kinds.KINDS), f"{kind} {detail[:100]}",
                             "it is damaged or of another version of FLQ: a backup can take its "
                             "place")

    def last_rounds(self) -> dict[int, int]:
        """worker -> the last round in which it has a row."""
        return dict(self._rows("SELECT worker, max(round) FROM answers GROUP BY worker"))

    def last_accepted(self) -> dict[int, int]:
        """worker -> the last round that took an upload of it."""
        return dict(
            self._rows("SELECT worker, max(round) FROM answers WHERE "
                       "json_extract(row, '$.state') = 'accepted' GROUP BY worker"))

    def last_leaves(self) -> dict[int, int]:
        """worker -> the last round in which it said goodbye."""
        return dict(
            self._rows(
                "SELECT json_extract(detail, '$.worker'), max(round) FROM events WHERE kind = ? "
                "GROUP BY 1", (kinds.NAMES[Leave],)))

    def broadcasts(self) -> Iterator[bytes]:
        """The broadcast frames, newest first, as far back as they were kept."""
        newest = self._rows("SELECT max(round) FROM rounds")[0][0]
        for round_ in range(-1 if newest is None else newest, -1, -1):
            frame = self._rows("SELECT broadcast FROM rounds WHERE round = ?", (round_,))[0][0]
            if not frame:
                return
            yield frame

    def checkpoints(self) -> list[tuple[int, bytes, bytes]]:
        """(version, SHA-256, data), newest first."""
        return self._rows("SELECT version, sha256, data FROM checkpoints ORDER BY version DESC")

    def frames_of(self, worker: int, epoch: int, before: int = 2**62) -> list[bytes]:
        """The uploads of one worker's epoch that were committed before a round, in order: what its
        reference is the sum of.
        """
        return [
            frame for frame, in self._rows(
                "SELECT frame FROM answers WHERE worker = ? AND epoch = ? AND round < ? AND "
                "frame IS NOT NULL ORDER BY round", (worker, epoch, before))
        ]

    def answer(self, round_: int, worker: int) -> tuple[WorkerRound, bytes] | None:
        """One worker's row of a closed round and its chain after it; None when it took no part."""
        found = self._rows("SELECT row, reference_hash FROM answers WHERE round = ? AND worker = ?",
                           (round_, worker))
        return (WorkerRound(**json.loads(found[0][0])), found[0][1]) if found else None

    def late_answer(self, round_: int, worker: int) -> tuple[WorkerRound, bytes] | None:
        """The row of the later round that committed the worker's upload of a closed one, and the
        chain after it.
        """
        found = (self._rows(
            """SELECT row, reference_hash FROM answers WHERE worker = ? AND round > ?
            AND json_extract(row, '$.state') = 'accepted' ORDER BY round LIMIT 1""",
            (worker, round_)))
        row = WorkerRound(**json.loads(found[0][0])) if found else None
        return (row,
                found[0][1]) if row is not None and row.round - row.staleness == round_ else None

    def worker_rounds(self) -> list[dict[str, Any]]:
        """Every worker's row of every round, in order."""
        return [
            WorkerRound(**json.loads(row))._asdict()
            for row, in self._rows("SELECT row FROM answers ORDER BY round, worker")
        ]

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"cannot read {self.path}", got=str(error),
                                 hint="a backup can take its place")


class RunReader(StoredRows):
    """A run as it looked at one moment, also while a master writes it. Raises StoreError when it
    cannot be read, ConfigError where there is no run."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        need_run(directory)
        self.path = directory / "run.db"
        try:
            self._db = _read_only(self.path)
            self._db.execute("BEGIN")
            if not self._db.execute(
                    "SELECT 1 FROM sqlite_master WHERE name = 'final_records'").fetchone():
                self._db.execute(_LATER_SCHEMA.format("CREATE TEMP TABLE"))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the run store {self.path} cannot be read", "a whole database",
                             str(error), "a backup can take its place")

    def __enter__(self) -> RunReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()


class RunStore(StoredRows):
    """One run's database. `commit_round` returns when the round would survive a power cut.

    A lock on run.lock keeps a second master out.
    """

    def __init__(self, directory: Path, meta: dict[str, Any] | None = None) -> None:
        """Make a new store (meta: JSON values on the run as a whole) or open the one that is there
        (meta None).
        """
        super().__init__()
        self.path = directory / "run.db"
        if meta is not None:
            _make_directory(directory)
        # before the lock's file is made: a folder that is no run stays as it is
        elif not self.path.exists():
            raise StoreError(f"{self.path} is missing", hint="name the directory of a run")
        self._process_lock: int | None = _lock_directory(directory)
        if meta is not None and self.path.exists():
            raise StoreError(f"{self.path} exists already",
                             hint="name an empty directory with --run_dir")
        try:
            if meta is not None:
                _make_store(self.path, meta)
            # Autocommit: every transaction below is written out, BEGIN to COMMIT.
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._pragma("cache_size", str(-_CACHE_KB))
            self._pragma("journal_mode", "wal")
            self._pragma("synchronous", "2")
            self._pragma("mmap_size", "0")
            if meta is None:
                self._check_integrity()
            self._db.execute(_LATER_SCHEMA.format("CREATE TABLE IF NOT EXISTS"))
            self._newest_answers: dict[tuple[int, int], tuple[WorkerRound, bytes]] = {}
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot open the run store {self.path}", got=str(error), hint=
                "is the disk full or read-only, or the file damaged? a backup can take its place")

    def _pragma(self, name: str, value: str) -> None:
        self._db.execute(f"PRAGMA {name}={value}")
        got = str(self._db.execute(f"PRAGMA {name}").fetchone()[0])
        if got != value:
            raise StoreError(f"the disk of {self.path} does not support {name}", value, got,
                             "use a local disk")

    def _check_integrity(self) -> None:
        """All but the frames: reading them would take a time that grows with the run, and each is
        checked where it is read.
        """
        names = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for name in {name for name, in names} - set(_WITH_FRAMES):
            self._quick_check(f"({name})")
        for name in _WITH_FRAMES:  # walks the rows; the frames are in pages behind them
            self._read_damage(f"SELECT count(*) FROM {name}")

    def check_all(self) -> None:
        """The whole file. Raises StoreError where it is damaged."""
        with self._lock:
            self._quick_check("(1)")

    def _quick_check(self, what: str) -> None:
        found = self._read_damage("PRAGMA quick_check" + what)
        if found != "ok":
            raise self._damaged(found)

    def _read_damage(self, query: str) -> str:
        try:
            return str(self._db.execute(query).fetchone()[0])
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # the disk, not what is on it
                raise
            raise self._damaged(str(error))

    def _damaged(self, found: str) -> StoreError:
        return StoreError(f"the run store {self.path} is damaged", "a whole database",
                          found.splitlines()[-1], "a backup can take its place")

    # --- writing

    def commit_round(self, commit: RoundCommit) -> None:
        """One transaction.

        Raises StoreError when it could not be written; nothing of it is there then.
        """
        number = commit.record.round
        with self._transaction(f"cannot write round {number} to {self.path}",
                               f"about {room_of(commit)} bytes of room",
                               "make room: it is tried again"):
            self._db.execute("INSERT INTO rounds VALUES (?, ?, ?, ?)",
                             (number, json.dumps(commit.record.to_json()),
                              json.dumps(commit.accounting), commit.broadcast))
            self._db.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                                 [(number, answer.row.worker, json.dumps(answer.row._asdict()),
                                   answer.epoch, answer.reference_hash, answer.frame)
                                  for answer in commit.answers])
            self._write_events(number, commit.events)
            self._write_changed(commit.changed)
            crash_points.reach("commit.before")
        self._newest_answers = {(number, answer.row.worker): (answer.row, answer.reference_hash)
                                for answer in commit.answers}
        crash_points.reach("commit.after")

    def answer(self, round_: int, worker: int) -> tuple[WorkerRound, bytes] | None:
        # What every worker asks for once its round is stored; such a row never changes.
        return self._newest_answers.get((round_, worker)) or super().answer(round_, worker)

    def add_events(self, round_: int, events: Sequence[Event]) -> None:
        """What was answered before the round in which it takes effect has closed: all or nothing.

        Raises StoreError.
        """
        if not events:
            return
        with self._transaction(f"cannot write to {self.path}", None,
                               "nothing was changed: make room, then send it again"):
            self._write_events(round_, events)
            crash_points.reach("events.before")
        crash_points.reach("events.after")

    def move_removals(self, round_: int) -> None:
        """Removals that were to count from a later round count from this one: the worker has been
        told, and will not come back.
        """
        with self._transaction(f"cannot write to {self.path}", None, "make room"):
            self._db.execute("UPDATE events SET round = ? WHERE round > ? AND kind = ?",
                             (round_, round_, kinds.NAMES[Remove]))

    def add_ending(self, ending: Ending, changed: Iterable[RoundRecord]) -> None:
        """The last word on a run, or on what there is of it: all or nothing. Raises StoreError."""
        what = "what was counted" if ending.phase == OPEN else "the end of the run"
        with self._transaction(f"cannot write {what} to {self.path}", None, "make room"):
            self._write_changed(changed)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('ending', ?)",
                             (json.dumps(ending._asdict()),))
            crash_points.reach("ending.before")
        crash_points.reach("ending.after")

    def _write_events(self, round_: int, events: Sequence[Event]) -> None:
        self._db.executemany("INSERT INTO events (round, kind, detail) VALUES (?, ?, ?)",
                             [(round_, *kinds.to_row(event)) for event in events])

    def _write_changed(self, records: Iterable[RoundRecord]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO final_records VALUES (?, ?)",
                             [(record.round, json.dumps(record.to_json())) for record in records])

    @contextlib.contextmanager
    def _transaction(self, message: str, expected: str | None, hint: str) -> Iterator[None]:
        """All that the body writes, or StoreError and nothing of it."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except (sqlite3.Error, OverflowError) as error:  # the second: 2 GiB in one value
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise StoreError(message, expected, str(error), hint)

    def add_evaluation(self, round_: int, result: Evaluation) -> None:
        """The test of the model after a round.

        A row of its own: it comes when the next round is under way.
        """
        # SQLite's nan is NULL
        accuracy, loss = (repr(value) if math.isnan(value) else value
                          for value in (result.accuracy, result.loss))
        self._write("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?)",
                    (round_, accuracy, loss, result.samples))

    def add_checkpoint(self, version: int, digest: bytes, data: bytes) -> None:
        """A whole state, from which recovery starts; the newest two are kept, and that of a
        compaction.

        Raises StoreError, also for one that is too long. That is no trouble for a run: a restart
        computes more rounds again.
        """
        if len(data) > _LONGEST_VALUE:
            raise TooLong(f"the state is too long for a checkpoint in {self.path}",
                          f"at most {_LONGEST_VALUE} bytes", len(data),
                          "a restart computes the rounds since the last one again")
        self._write("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)", (version, digest, data))
        self._write(
            """DELETE FROM checkpoints WHERE version != ? AND
            version NOT IN (SELECT version FROM checkpoints ORDER BY version DESC LIMIT ?)""",
            (self.compacted(), _KEPT_CHECKPOINTS))

    def compact(self, version: int, digest: bytes, data: bytes, references: list[Reference],
                kept_broadcasts: int) -> None:
        """Drop the uploads before a version, and all but the newest broadcasts, in one transaction.

        digest, data: the checkpoint at that version, which stays for ever.
        """
        with self._transaction(f"cannot compact {self.path}",
                               "about as much room as the file takes", "make room"):
            self._db.execute("DELETE FROM checkpoints")
            self._db.execute("INSERT INTO checkpoints VALUES (?, ?, ?)", (version, digest, data))
            self._db.execute("DELETE FROM member_references")
            self._db.executemany(
                "INSERT INTO member_references VALUES (?, ?, ?, ?)",
                [(item.worker, item.epoch, hashlib.sha256(item.data).digest(), item.data)
                 for item in references])
            self._db.execute("UPDATE answers SET frame = NULL WHERE round < ?", (version,))
            self._db.execute("UPDATE rounds SET broadcast = x'' WHERE round < ?",
                             (version - kept_broadcasts,))
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)",
                             (json.dumps(version),))
            crash_points.reach("compact.before")
        crash_points.reach("compact.after")
        self._write("VACUUM", ())

    def sketch_key(self, length: int) -> bytes:
        """The secret of this run from which the sketches of its references are drawn; made when it
        is asked for first, so many bytes long.
        """
        self._write("INSERT OR IGNORE INTO meta VALUES ('sketch_key', ?)",
                    (json.dumps(secrets.token_hex(length)),))
        return bytes.fromhex(str(self.meta()["sketch_key"]))

    def add_constants(self, data: bytes) -> None:
        """The values of the model's frozen layers, with which the run began."""
        self._write(_CONSTANTS_SCHEMA, ())
        self._write("INSERT INTO constants VALUES (?, ?)", (hashlib.sha256(data).digest(), data))

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._lock:
            try:
                self._db.execute(statement, values)
            except sqlite3.Error as error:
                raise StoreError(f"cannot write to {self.path}", got=str(error), hint="make room")

    def close(self) -> None:
        with self._lock:
            self._db.close()
            lock, self._process_lock = self._process_lock, None
            if lock is not None:
                os.close(lock)


def room_of(commit: RoundCommit) -> int:
    """About how many bytes the write-ahead log grows by: whole pages, a chain of them for a large
    row, and those of the tables.
    """
    large = [
        len(data)
        for data in (commit.broadcast, *(answer.frame or b"" for answer in commit.answers))
    ]
    kept = PAGE_BYTES // 4  # of a large row, in the page of its table
    chains = sum(-(-(length - kept) // (PAGE_BYTES - 4)) for length in large if length > kept)
    return (chains + _TABLE_PAGES) * (PAGE_BYTES + _LOG_PAGE_HEADER)


def backup(directory: Path, target: Path) -> None:
    """Copy the store of a run to a new file, also while a master writes it. Its folder is made.

    Raises StoreError, and ConfigError where there is no run.
    """
    need_run(directory)
    source = directory / "run.db"
    if target.exists():
        raise StoreError(f"cannot copy {source} to {target}", "a file that does not exist yet",
                         "one that is there")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_read_only(source)) as live, \
                contextlib.closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
    except (sqlite3.Error, OSError) as error:
        with contextlib.suppress(OSError):
            target.unlink()
        raise StoreError(f"cannot copy {source} to {target}", got=str(error), hint="is there room?")


def _read_only(path: Path) -> sqlite3.Connection:
    """A store to read, also while a master writes it, and where nothing can be written.

    Raises sqlite3.Error or OSError.
    """
    def opened(how: str) -> sqlite3.Connection:
        db = sqlite3.connect(path.absolute().as_uri() + how, uri=True, isolation_level=None)
        try:
            db.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.Error:
            db.close()
            raise
        return db

    try:
        holds_rounds = path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:  # also when the one who writes it closes it right now
        holds_rounds = False
    try:
        # SQLite makes a log beside the store for a reader too. Only a connection that may write
        # removes it when it closes as the last one. With rounds in the log that would move them
        # into the store, and who looks at a run changes nothing.
        return opened("?mode=ro" if holds_rounds else "?mode=rw")
    except sqlite3.Error:
        # Nor can it make its files on a full disk or in another person's folder. A store without
        # a log is whole, and nobody writes it.
        if holds_rounds:
            raise
        return opened("?mode=ro&immutable=1")


def _record(text: str) -> RoundRecord:
    """A round record from its JSON: lists of workers become tuples again."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in json.loads(text).items()
    }
    return RoundRecord(**values)


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the run directory {directory}", got=error.strerror,
                          hint="name another one with --run_dir")


def _make_store(path: Path, meta: dict[str, Any]) -> None:
    """An empty store, there whole or not at all: a start that is killed here leaves a folder in
    which the next one can begin.
    """
    sibling = path.with_name(path.name + ".new")
    sibling.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(sibling, isolation_level=None)) as db:
        # before the first page is written; a store that is there keeps its own
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute("PRAGMA journal_mode=off")  # a file that did not become whole is made anew
        db.executescript("BEGIN;" + _SCHEMA)
        db.executemany("INSERT INTO meta VALUES (?, ?)",
                       [(key, json.dumps(value)) for key, value in meta.items()])
        crash_points.reach("store.commit.before")
        db.execute("COMMIT")
    crash_points.reach("store.rename.before")
    os.replace(sibling, path)
    sync_directory(str(path.parent))


def _lock_directory(directory: Path) -> int:
    try:
        # A bare descriptor: the lock lives until the process ends, however it ends.
        lock = os.open(directory / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"cannot write in {directory}", got=error.strerror,
                         hint="is the disk read-only or full?")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ConfigError(f"another master uses {directory}", "one master for each run",
                          hint="stop that one, or name another --run_dir")
    return lock
