"""The vectors of workers that wait for others, outside of the process's own memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from flq.algorithm import uplink
from flq.algorithm.uplink import Proposal, UplinkSettings, UplinkState
from flq.compression import codec
from flq.master.store.run_store import StoreError
from flq.worker.shelf import Shelf

_PIECE = 1 << 20


class Shelves:
    """One shelf for each worker, with room for its g or e and its upload: a file in the run's
    directory that is mapped into memory and has no name, so that nothing of it is left however the
    process ends.

    bits: of the uploads, b; one of more bits that finds no room stays in the process. Pages that
    were not used for long go to the disk when memory is short. Raises StoreError where there is no
    room for it: nothing would tell of that later but a signal.
    """

    def __init__(self, directory: Path, num_workers: int, settings: UplinkSettings,
                 bits: int) -> None:
        self._settings = settings
        slot = _slot_dtype(settings, bits)
        self.num_bytes = num_workers * slot.itemsize
        try:
            with tempfile.TemporaryFile(dir=directory) as file:
                _take_room(file, self.num_bytes)
                mapped = mmap.mmap(file.fileno(), self.num_bytes)
        except OSError as error:
            raise StoreError(f"cannot keep the memories of {num_workers} workers in {directory}",
                             f"{self.num_bytes} bytes of room", error.strerror,
                             "make room, or name another directory with --run_dir")
        self._slots = np.frombuffer(mapped, slot)

    def of(self, worker: int) -> Shelf:
        """That of one worker."""
        slot = self._slots[worker]
        return _Mapped(self._settings, slot["memory"] if "memory" in slot.dtype.names else None,
                       slot["body"])


def _slot_dtype(settings: UplinkSettings, bits: int) -> np.dtype[np.void]:
    """What is kept of one worker."""
    _, longest = codec.body_length_range(settings.quantizer, bits, settings.sizes, False)
    fields: list[Any] = [("body", np.uint8, (longest,))]
    if settings.memory.dtype is not None:
        fields.insert(0, ("memory", settings.memory.dtype, (sum(settings.sizes),)))
    return np.dtype(fields, align=True)


def _take_room(file: IO[bytes], size: int) -> None:
    """Make an empty file so long, with all of its blocks on the disk. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _PIECE):  # macOS
        file.write(bytes(min(_PIECE, size - start)))
    file.flush()


class _Mapped(Shelf):
    """memory: float64[p] or float32[p], None where the memory has no vector. body: uint8[longest].

    Of a proposal it keeps what both futures have in common, and computes the committed one from the
    packed levels when it comes true, as a state file does it.
    """

    def __init__(self, settings: UplinkSettings, memory: np.ndarray | None,
                 body: np.ndarray) -> None:
        self._settings, self._memory, self._body = settings, memory, body

    def keep(self, held: UplinkState) -> UplinkState:
        if self._memory is None or held.memory is None or held.memory is self._memory:
            return held
        np.copyto(self._memory, held.memory)
        return held._replace(memory=self._memory)

    def put(self, proposal: Proposal) -> Proposal:
        kept, body = self.keep(proposal.kept), proposal.body
        if body is None:
            return proposal._replace(committed=kept, kept=kept)
        length = len(body.data)
        if length <= self._body.size:
            self._body[:length] = np.frombuffer(body.data, np.uint8)
            # it has a length and can be read, which is all that is done with it until `take`
            body = body._replace(data=cast(bytes, self._body[:length].data))
        return proposal._replace(
            body=body, kept=kept,
            committed=proposal.committed._replace(memory=None, activity=None))

    def take(self, proposal: Proposal) -> Proposal:
        body = proposal.body
        return proposal if body is None else proposal._replace(
            body=body._replace(data=bytes(body.data)))

    def settle(self, proposal: Proposal, accepted: bool) -> UplinkState:
        proposal = self.take(proposal)
        if not accepted or proposal.body is None:
            return proposal.kept
        memory, activity = uplink.commit(self._settings, proposal.kept, proposal.body,
                                         proposal.bits)
        return self.keep(proposal.committed._replace(memory=memory, activity=activity))
