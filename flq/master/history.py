"""The rounds so far, and what has travelled in them, as people read it: a row a round, counts and bits a worker.

It has no lock of its own: the service calls it under its lock.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from flq.master.accounting import Accounting, Bits
from flq.master.checks import Received
from flq.master.closing import Measured, Stored
from flq.master.run_store import RunStore
from flq.records import Evaluation, RoundRecord, WorkerRound

WINDOW = 128
"""Rounds whose rows may still change and are kept in memory: down bits come with the next round, tests and late uploads a few later."""


class History:
    """wire() -> (bits up, bits down) measured by the server, None where there is no wire."""

    def __init__(self, store: RunStore, wire: Callable[[], tuple[int, int]] | None) -> None:
        self.accounting = Accounting()
        self.last_rows: dict[int, WorkerRound] = {}
        self.counts: dict[int, dict[str, int]] = {}
        self.newest_tested: RoundRecord | None = None
        self._store = store
        self._wire, self._wire_before = wire, (0, 0)
        self._recent = store.records()  # row r is _recent[r - _first]
        self._first = 0

    def restore(self) -> None:
        """What the store knows beside the records: counts, bits, who came late."""
        saved: dict[str, Any] = {}
        for stored in self._store.rounds():
            saved = stored.accounting
            if stored.record.round:
                self._set_down_bits(stored.record.round - 1, Bits(*saved["last_row_down"]))
            for answer in stored.answers:
                self._count(answer.row)
                if answer.row.staleness:
                    self.mark_late(answer.row.worker, answer.row.round - answer.row.staleness)
        self.accounting.restore(saved, self._recent, (WorkerRound(**row) for row in self._store.worker_rounds()))
        self.accounting.next_row(len(self) - 1)
        self.newest_tested = next((record for record in reversed(self._recent) if record.accuracy is not None), None)
        self._first = max(0, len(self) - WINDOW)
        del self._recent[:self._first]

    def __len__(self) -> int:
        """The number of closed rounds."""
        return self._first + len(self._recent)

    def rows(self, since: int = 0) -> list[RoundRecord]:
        """The rows from round `since` on; what is not in memory any more is read from the store."""
        older = self._store.records(since, self._first) if since < self._first else []
        return older + self._recent[max(0, since - self._first):]

    def row(self, round_: int) -> RoundRecord:
        """The row of a closed round."""
        return self._recent[round_ - self._first] if round_ >= self._first else self._store.records(round_, round_ + 1)[0]

    def measured(self, round_time_s: float, closed_at: float) -> Measured:
        """What the open round has cost; closed_at is the time of day in seconds."""
        down = Bits() if self._recent else self.accounting.last_row_down
        final = self._recent[0] if len(self._recent) == WINDOW else None
        return Measured(round_time_s, closed_at, *self._wire_since(), *down, self.accounting.save(), final)

    def add(self, stored: Stored, received: Mapping[int, Received]) -> None:
        """A round that was stored, with the uploads that became part of it."""
        record = stored.record
        if len(self._recent) == WINDOW:
            del self._recent[0]  # it is in the store as it was
            self._first += 1
        self._recent.append(record)
        # Only now: what travelled during a try that found no room belongs to the round that is tried again.
        up, down = self._wire_before
        self._wire_before = up + (record.wire_bits_up or 0), down + (record.wire_bits_down or 0)
        self.accounting.next_row(record.round)
        self.accounting.up = self.accounting.up.plus(Bits(0, 0, record.float32_bits_up))
        for worker, upload in received.items():
            self.accounting.uploaded(worker, Bits(upload.nominal_bits, upload.option.bits, 0))
        for row in stored.rows:
            self._count(row)

    def sent(self, worker: int, version: int, bits: Bits, is_newest: bool = True) -> bool:
        """A worker was sent a version; False when it had been counted. The newest one's row grows as its receivers fetch it."""
        counted = self.accounting.sent(worker, version, bits)
        if counted and is_newest:
            self._show_down_bits()
        return counted

    def sent_constants(self, worker: int, bits: Bits) -> None:
        """A worker was sent the values of frozen layers: they count with the newest model, once for each worker."""
        if self.accounting.sent_constants(worker, bits):
            self._show_down_bits()

    def mark_late(self, worker: int, round_: int) -> bool:
        """An upload came after its round had closed without it; False when that is known or the worker was no participant."""
        if round_ <= len(self) - WINDOW:
            return False
        record = self.row(round_)
        if worker not in record.missing or worker in record.late:
            return False
        self._change(round_, late=tuple(sorted((*record.late, worker))))
        return True

    def tested(self, round_: int, result: Evaluation) -> None:
        """A round's test, which is in the store already."""
        self._change(round_, accuracy=result.accuracy, loss=result.loss)
        if self.newest_tested is None or self.newest_tested.round <= round_:
            self.newest_tested = self.row(round_)

    def untested(self, wanted: Callable[[RoundRecord], bool], at_most: int) -> list[int]:
        """Of the last rounds those whose test is wanted and not there."""
        return [record.round for record in self._recent[-at_most:] if record.accuracy is None and wanted(record)]

    def wire_bits(self) -> tuple[int, int] | None:
        return None if self._wire is None else self._wire()

    def settle_wire(self) -> None:
        """Add what travelled after the last round closed to its row."""
        up, down = self._wire_since()
        if self._recent and up is not None and down is not None:
            self._wire_before = self._wire_before[0] + up, self._wire_before[1] + down
            last = self._recent[-1]
            self._change(last.round, wire_bits_up=(last.wire_bits_up or 0) + up, wire_bits_down=(last.wire_bits_down or 0) + down)

    def _wire_since(self) -> tuple[int | None, int | None]:
        if self._wire is None:
            return None, None
        now, before = self._wire(), self._wire_before
        return now[0] - before[0], now[1] - before[1]

    def _show_down_bits(self) -> None:
        if self._recent:
            self._set_down_bits(len(self) - 1, self.accounting.last_row_down)

    def _set_down_bits(self, round_: int, bits: Bits) -> None:
        self._change(round_, nominal_bits_down=bits.nominal, payload_bits_down=bits.payload, float32_bits_down=bits.float32)

    def _change(self, round_: int, **values: Any) -> None:
        """Fill in what came after the round had closed; a row that is final by then stays as it is."""
        if round_ >= self._first:
            self._recent[round_ - self._first] = self._recent[round_ - self._first]._replace(**values)

    def _count(self, row: WorkerRound) -> None:
        self.last_rows[row.worker] = row
        counts = self.counts.setdefault(row.worker, {"accepted": 0, "skipped": 0, "refused": 0, "missing": 0})
        counts[row.state] += 1
