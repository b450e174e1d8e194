"""The vectors of workers that wait for others, outside of the process's own memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from flq.algorithm import uplink
from flq.algorithm.uplink import Proposal, UplinkSettings, UplinkState
from flq.master.store.run_store import StoreError
from flq.worker.shelf import Shelf

_PIECE = 1 << 20


class Shelves:
    """One shelf for each worker, with room for its h or e: a file in the run's directory that is
    mapped into memory and has no name, so that nothing of it is left however the process ends.

    Pages that were not used for long go to the disk when memory is short. Raises StoreError where
    there is no room for it: nothing would tell of that later but a signal.
    """

    def __init__(self, directory: Path, num_workers: int, settings: UplinkSettings) -> None:
        self._settings, dtype = settings, settings.memory.dtype
        self._slots: np.ndarray | None = None
        if dtype is None:
            return
        shape = num_workers, sum(settings.sizes)
        size = shape[0] * shape[1] * np.dtype(dtype).itemsize
        try:
            with tempfile.TemporaryFile(dir=directory) as file:
                _take_room(file, size)
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise StoreError(f"cannot keep the memories of {num_workers} workers in {directory}",
                             f"{size} bytes of room", error.strerror,
                             "make room, or name another directory with --run_dir")
        self._slots = np.frombuffer(mapped, dtype).reshape(shape)

    def of(self, worker: int) -> Shelf:
        """That of one worker."""
        return _Mapped(self._settings, None if self._slots is None else self._slots[worker])


def _take_room(file: IO[bytes], size: int) -> None:
    """Make an empty file so long, with all of its blocks on the disk. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _PIECE):  # macOS
        file.write(bytes(min(_PIECE, size - start)))
    file.flush()


class _Mapped(Shelf):
    """slot: float64[p] or float32[p], None where the memory has no vector.

    Of a proposal it keeps what both futures have in common, and computes the committed one from the
    packed levels when it comes true, as a state file does.
    """

    def __init__(self, settings: UplinkSettings, slot: np.ndarray | None) -> None:
        self._settings, self._slot = settings, slot

    def keep(self, held: UplinkState) -> UplinkState:
        if self._slot is None or held.memory is None or held.memory is self._slot:
            return held
        np.copyto(self._slot, held.memory)
        return held._replace(memory=self._slot)

    def put(self, proposal: Proposal) -> Proposal:
        kept = self.keep(proposal.kept)
        if proposal.skip:
            return proposal._replace(committed=kept, kept=kept)
        return proposal._replace(
            committed=proposal.committed._replace(memory=None, activity=None), kept=kept)

    def settle(self, proposal: Proposal, accepted: bool) -> UplinkState:
        if not accepted or proposal.body is None:
            return proposal.kept
        memory, activity = uplink.commit(self._settings, proposal.kept, proposal.body,
                                         proposal.bits)
        return self.keep(proposal.committed._replace(memory=memory, activity=activity))
