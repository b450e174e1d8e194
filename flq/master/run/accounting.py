"""Bits that travelled, by direction and kind (algorithm.md 6)."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple

from flq.records import RoundRecord, WorkerRound


class Bits(NamedTuple):
    """nominal: as the papers count. payload: the encoded bodies. float32: what 32 bits a weight
    would have taken.
    """

    nominal: int = 0
    payload: int = 0
    float32: int = 0

    def plus(self, other: Bits) -> Bits:
        return Bits(*(a + b for a, b in zip(self, other)))


class Accounting:
    """Totals of a run, which are the sums over its rows, and of each worker.

    A model version counts once for every worker that received it, whatever had to be sent again;
    the wire, which the server measures, counts everything.
    """

    def __init__(self) -> None:
        self.up = Bits()
        self.down = Bits()
        self.delivered: dict[int, int] = {}  # worker -> newest version that counted
        self.given_constants: set[int] = set()  # workers that were sent the values of frozen layers
        self.worker_up: dict[int, int] = {}
        self.worker_down: dict[int, int] = {}

    def uploaded(self, worker: int, bits: Bits) -> None:
        self.up = self.up.plus(bits)
        self.worker_up[worker] = self.worker_up.get(worker, 0) + bits.payload

    def holds(self, worker: int, version: int) -> None:
        """The worker has this version without having been sent anything: the initial model is free.
        """
        self.delivered[worker] = max(version, self.delivered.get(worker, -1))

    def sent(self, worker: int, version: int, bits: Bits) -> bool:
        """Count a delivery; False when the worker had received that version before."""
        if self.delivered.get(worker, -1) >= version:
            return False
        self.delivered[worker] = version
        self._add_down(worker, bits)
        return True

    def sent_constants(self, worker: int, bits: Bits) -> bool:
        """Count the values of frozen layers; False when the worker had been sent them before."""
        if worker in self.given_constants:
            return False
        self.given_constants.add(worker)
        self._add_down(worker, bits)
        return True

    def _add_down(self, worker: int, bits: Bits) -> None:
        self.down = self.down.plus(bits)
        self.worker_down[worker] = self.worker_down.get(worker, 0) + bits.payload

    def to_json(self, wire: tuple[int, int] | None) -> dict[str, Any]:
        """{up, down: {nominal, payload, wire, float32}}; wire is (up, down) in bits, or None where
        there is none.
        """
        up, down = (None, None) if wire is None else wire
        return {
            "up": dict(self.up._asdict(), wire=up), "down": dict(self.down._asdict(), wire=down)
        }

    def save(self) -> dict[str, Any]:
        """What the rows do not say, JSON."""
        constants = {"given_constants": sorted(self.given_constants)
                     } if self.given_constants else {}
        return {"delivered": self.delivered, "worker_down": self.worker_down, **constants}

    def restore(self, saved: dict[str, Any], records: Iterable[RoundRecord],
                rows: Iterable[WorkerRound]) -> None:
        """The totals after the newest stored round."""
        self.delivered = {
            int(worker): version for worker, version in saved.get("delivered", {}).items()
        }
        self.worker_down = {
            int(worker): bits for worker, bits in saved.get("worker_down", {}).items()
        }
        self.given_constants = set(saved.get("given_constants", ()))
        for record in records:
            self.up = self.up.plus(
                Bits(record.nominal_bits_up, record.payload_bits_up, record.float32_bits_up))
            self.down = self.down.plus(
                Bits(record.nominal_bits_down, record.payload_bits_down, record.float32_bits_down))
        for row in rows:
            self.worker_up[row.worker] = self.worker_up.get(row.worker, 0) + row.payload_bits
