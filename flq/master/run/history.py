"""The rounds so far, and what has travelled in them, as people read it: a row a round, counts and
bits a worker.

It has no lock of its own: the service calls it under its lock.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping

from flq.algorithm import bounds
from flq.master.run.accounting import Accounting, Bits
from flq.master.run.checks import Received
from flq.master.run.closing import Measured, Stored
from flq.master.store.events import Expelled, Flagged
from flq.master.store.run_store import RunStore
from flq.records import Evaluation, RoundRecord, WorkerRound

_MOST_STRIKES = 10  # that count: 1,024 rounds
_OF_UPLOADS = (bounds.NORM, bounds.STATE, bounds.GAIN)

WINDOW = 128
"""Rounds whose rows may still change and are kept in memory: down bits come with the next round,
tests and late uploads a few later.
"""


class History:
    """wire() -> (bits up, bits down) of the whole run as the server measured them, None where there
    is no wire.

    Every bit of a total is in a row: what is delivered or travels while round k is open belongs to
    the row of round k - 1 or k. A row that changed after its round was stored is written again with
    the next round, or when the run ends or is interrupted.
    """

    def __init__(self, store: RunStore, wire: Callable[[], tuple[int, int]] | None) -> None:
        self.accounting = Accounting()
        self.last_rows: dict[int, WorkerRound] = {}
        self.counts: dict[int, dict[str, int]] = {}
        self.flags: dict[int, Flagged] = {}  # the last of each worker
        self._strikes: dict[int, int] = {}  # flags since its last accepted upload
        self._expelled: dict[int, list[int]] = {}  # until which rounds
        self.newest_tested: RoundRecord | None = None
        self.over = False  # the results are settled: what still travels is no part of the run
        self._store = store
        self._wire = wire
        self._recent = store.records()  # row r is _recent[r - _first]
        self._first = 0
        self._changed: set[int] = set()  # rounds whose rows changed since they were stored
        self._early_down = Bits()  # delivered before there is a row
        self._wire_in_rows = (0, 0)
        self._unmeasured = False

    def restore(self, saved: dict[str, Any]) -> None:
        """What the store knows beside the records. saved: what `save` gave last."""
        self._take_bits_of_older_stores()
        rows = [WorkerRound(**row) for row in self._store.worker_rounds()]
        for row in rows:
            self._count(row)
        last = self._store.last_accepted()
        for event in self._store.events():
            if isinstance(event, Flagged):
                self._flag(event, event.round > last.get(event.worker, -1))
            elif isinstance(event, Expelled):
                self.expelled(event)
        for record in self._recent:
            for worker in record.late:
                self._counts_of(worker)["late"] += 1
        self.accounting.restore(saved, self._recent, rows)
        if not self._recent:
            self._early_down = Bits(*saved.get("early_down", ()))
            self.accounting.down = self._early_down
        for record in self._recent:
            self._add_wire(record.wire_bits_up, record.wire_bits_down)
        self.newest_tested = next(
            (record for record in reversed(self._recent) if record.accuracy is not None), None)
        self._trim()

    def _take_bits_of_older_stores(self) -> None:
        """Stores of before rows were written again have a row's down bits in the round after it."""
        for round_, (nominal, payload, float32) in self._store.last_rows_down():
            if round_ and self.row(round_ - 1).payload_bits_down != payload:
                self._change(round_ - 1, nominal_bits_down=nominal, payload_bits_down=payload,
                             float32_bits_down=float32)

    def __len__(self) -> int:
        """The number of closed rounds."""
        return self._first + len(self._recent)

    def rows(self, since: int = 0) -> list[RoundRecord]:
        """The rows from round `since` on; what is not in memory any more is read from the store."""
        first, recent = self.in_memory(since)
        return (self._store.records(since, first) if since < first else []) + recent

    def in_memory(self, since: int = 0) -> tuple[int, list[RoundRecord]]:
        """The round of the first row that may still change, and the rows from there, or from round
        `since`, on. Older ones are in the store as they stay.
        """
        return self._first, self._recent[max(0, since - self._first):]

    def row(self, round_: int) -> RoundRecord:
        """The row of a closed round."""
        return self._recent[round_ - self._first] if round_ >= self._first else self._store.records(
            round_, round_ + 1)[0]

    def measured(self, round_time_s: float, closed_at: float) -> Measured:
        """What the open round has cost; closed_at is the time of day in seconds."""
        down = Bits() if self._recent else self._early_down
        return Measured(round_time_s, closed_at, *self._wire_since(), *down, self.save(),
                        self.changed())

    def changed(self) -> tuple[RoundRecord, ...]:
        """The rows that are not in the store as they are now."""
        return tuple(self.row(round_) for round_ in sorted(self._changed))

    def save(self) -> dict[str, Any]:
        """What the store keeps beside the rows, JSON."""
        early = {} if self._recent or not any(self._early_down) else {
            "early_down": list(self._early_down)
        }
        return {**self.accounting.save(), **early}

    def stored(self, rows: Iterable[RoundRecord]) -> None:
        """These rows were written; one that changed meanwhile is written again, also where that was
        done before: these took its place.
        """
        for row in rows:
            if self.row(row.round) is row:
                self._changed.discard(row.round)
            else:
                self._changed.add(row.round)

    def is_distrusted(self, worker: int, round_: int) -> bool:
        """Whether the worker broke its word lately: after n flags in a row it comes last for 2^n
        rounds.
        """
        strikes = self._strikes.get(worker, 0)
        return strikes > 0 and round_ - self.flags[worker].round <= 2**min(strikes, _MOST_STRIKES)

    def to_expel(self) -> list[Expelled]:
        """Whose uploads were beyond a bound for too many turns in a row. After the n-th time none
        is taken for 2^(n + 2) rounds.
        """
        found = []
        for worker, strikes in sorted(self._strikes.items()):
            flag = self.flags[worker]
            if strikes >= bounds.MOST_IN_A_ROW and flag.reason in _OF_UPLOADS:
                times = 1 + len(self._expelled.get(worker, ()))
                until = flag.round + 1 + 2**(2 + min(times, _MOST_STRIKES))
                found.append(Expelled(worker, until))
        return found

    def expelled(self, event: Expelled) -> None:
        """It is stored. Its flags are settled by that."""
        self._expelled.setdefault(event.worker, []).append(event.until)
        self._strikes.pop(event.worker, None)

    def is_out(self, worker: int, round_: int) -> bool:
        """Whether no upload of an expelled worker is taken in that round."""
        return round_ < max(self._expelled.get(worker, (0,)))

    def add(self, stored: Stored, received: Mapping[int, Received],
            flagged: Iterable[Flagged] = ()) -> None:
        """A round that was stored, with the uploads that became part of it, and those that did not.
        """
        record = stored.record
        # Only now: what travelled during a try that found no room belongs to the round that is
        # tried again.
        self._add_wire(record.wire_bits_up, record.wire_bits_down)
        self._recent.append(record)
        self._early_down = Bits()
        self._trim()
        self.accounting.up = self.accounting.up.plus(Bits(0, 0, record.float32_bits_up))
        for worker, upload in received.items():
            self.accounting.uploaded(worker, Bits(upload.nominal_bits, upload.option.bits, 0))
        for row in stored.rows:
            self._count(row)
        for event in flagged:
            self._flag(event, True)

    def _trim(self) -> None:
        """Keep the last rows in memory, and those before them that wait to be written."""
        first = min([max(0, len(self) - WINDOW), *self._changed])
        if first > self._first:
            del self._recent[:first - self._first]
            self._first = first

    def sent(self, worker: int, version: int, bits: Bits) -> bool:
        """A worker was sent a version; False when it had been counted.

        It belongs to the row of the round that made the version.
        """
        if self.over or not self.accounting.sent(worker, version, bits):
            return False
        self._add_down_bits(version - 1, bits)
        return True

    def sent_constants(self, worker: int, bits: Bits) -> bool:
        """A worker was sent the values of frozen layers: they count with the newest model, once for
        each worker; False when they had been counted.
        """
        if self.over or not self.accounting.sent_constants(worker, bits):
            return False
        self._add_down_bits(len(self) - 1, bits)
        return True

    def mark_late(self, worker: int, round_: int) -> bool:
        """An upload came after its round had closed without it; False when that is known or the
        worker is not missing there.
        """
        if self.over or round_ < self._first:
            return False
        record = self.row(round_)
        if worker not in record.missing or worker in record.late:
            return False
        self._change(round_, late=tuple(sorted((*record.late, worker))))
        self._counts_of(worker)["late"] += 1
        return True

    def tested(self, round_: int, result: Evaluation) -> None:
        """A round's test, which is in the store already."""
        if round_ >= self._first:
            self._recent[round_ - self._first] = self._recent[round_ - self._first]._replace(
                accuracy=result.accuracy, loss=result.loss)
        if self.newest_tested is None or self.newest_tested.round <= round_:
            self.newest_tested = self.row(round_)

    def untested(self, wanted: Callable[[RoundRecord], bool], at_most: int) -> list[int]:
        """Of the last rounds those whose test is wanted and not there."""
        return [
            record.round for record in self._recent[-at_most:]
            if record.accuracy is None and wanted(record)
        ]

    @property
    def has_wire(self) -> bool:
        """False in a simulation."""
        return self._wire is not None

    def wire_bits(self) -> tuple[int, int] | None:
        """All that travelled in the run, None where there is no wire or was none in some rounds,
        which were simulated.
        """
        if self._wire is None or self._unmeasured:
            return None
        return self.wire_in_rows if self.over else self._wire()

    @property
    def wire_in_rows(self) -> tuple[int, int]:
        """(bits up, bits down) on the wire until the last round closed."""
        return self._wire_in_rows

    def settle_wire(self) -> None:
        """Add what travelled after the last round closed to its row."""
        up, down = self._wire_since()
        last = self._recent[-1] if self._recent else None
        if last is None or last.wire_bits_up is None or last.wire_bits_down is None:
            return
        if up is None or down is None:
            return
        if up or down:
            self._change(last.round, wire_bits_up=last.wire_bits_up + up,
                         wire_bits_down=last.wire_bits_down + down)
            self._add_wire(up, down)

    def _wire_since(self) -> tuple[int | None, int | None]:
        if self._wire is None:
            return None, None
        now, before = self._wire(), self._wire_in_rows
        return now[0] - before[0], now[1] - before[1]

    def _add_wire(self, up: int | None, down: int | None) -> None:
        if up is None or down is None:
            self._unmeasured = True
        else:
            self._wire_in_rows = self._wire_in_rows[0] + up, self._wire_in_rows[1] + down

    def _add_down_bits(self, round_: int, bits: Bits) -> None:
        if not self._recent:
            self._early_down = self._early_down.plus(bits)
            return
        row = self.row(min(max(round_, self._first), len(self) - 1))
        self._change(row.round, nominal_bits_down=row.nominal_bits_down + bits.nominal,
                     payload_bits_down=row.payload_bits_down + bits.payload,
                     float32_bits_down=row.float32_bits_down + bits.float32)

    def _change(self, round_: int, **values: Any) -> None:
        """Fill in what came after the round had closed; a row that is out of memory by then stays
        as it is.
        """
        if round_ >= self._first:
            self._recent[round_ - self._first] = self._recent[round_ -
                                                              self._first]._replace(**values)
            self._changed.add(round_)

    def _count(self, row: WorkerRound) -> None:
        self.last_rows[row.worker] = row
        self._counts_of(row.worker)[row.state] += 1
        if row.state == "accepted":
            self._strikes.pop(row.worker, None)

    def _flag(self, event: Flagged, counts: bool) -> None:
        self.flags[event.worker] = event
        self._counts_of(event.worker)["flagged"] += 1
        if counts and event.reason != bounds.EXPELLED:
            self._strikes[event.worker] = self._strikes.get(event.worker, 0) + 1

    def _counts_of(self, worker: int) -> dict[str, int]:
        return self.counts.setdefault(
            worker, {"accepted": 0, "skipped": 0, "refused": 0, "missing": 0, "late": 0,
                     "flagged": 0})
