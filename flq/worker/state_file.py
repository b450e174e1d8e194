"""A worker's state on disk, saved once a round before it bids (protocol.md 4).

One file a worker: the whole state as it once was, and a journal of the rounds since then
(journal.py), each a step from the record before (worker_record.py). A round appends its step. When
a record does not follow from the one before by a step (a first start, a reset, a keyframe), or the
journal has become long, the file is replaced by one with the whole state of now.
"""

import fcntl
import os
from typing import Any, List, NamedTuple, Optional, Sequence

from flq.algorithm.uplink import UplinkSettings
from flq.errors import ConfigError, DataError
from flq.host.durable import append_to_file, replace_file
from flq.parameters import Layout
from flq.worker import journal, state_format
from flq.worker.worker_record import Origin, RecordCoding, WorkerRecord, follows, origin_of

LONGEST_JOURNAL = 8
"""As many times the bytes of the state before it: where steps are large, the whole state costs a
round an eighth more of what it writes."""
MOST_STEPS = 150
"""A worker that comes back computes these rounds again, 5 to 25 ms each with the cnn
(docs/reliability.md)."""


class InMemory(object):
    """A state that lives as long as its process: for workers whose master lives in the same
    process.
    """

    def __init__(self) -> None:
        self._record: Optional[WorkerRecord] = None

    def load(self) -> Optional[WorkerRecord]:
        """The record that was saved last, or None."""
        return self._record

    def save(self, record: WorkerRecord, broadcasts: Optional[Sequence[bytes]] = None) -> None:
        """Returns when the record would survive."""
        self._record = record

    def close(self) -> None:
        """Nobody else can use it."""


def state_directory(given: Optional[str] = None) -> str:
    """--state_dir, else FLQ_STATE_DIR, else ~/.flq/state."""
    return given or os.environ.get("FLQ_STATE_DIR") or os.path.join(os.path.expanduser("~"), ".flq",
                                                                    "state")


class _End(NamedTuple):
    """The end of a file that this process has read or written, behind which a step can be written.

    length: bytes before the journal. number, place: of the next record.
    """

    origin: Origin
    inode: int
    length: int
    number: int
    place: int


class StateFile(object):
    """One worker's state on disk, locked for this process from the moment it is made.

    layout and settings: of the model and the uplink of the run. A record of another run or model is
    kept in the file until the first save, but only its instance is used.
    """

    def __init__(self, directory: str, worker: int, layout: Layout,
                 settings: UplinkSettings) -> None:
        self.path = os.path.join(directory, f"worker-{worker}.state")
        self._coding = RecordCoding(layout, settings)
        self._end: Optional[_End] = None
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            # A bare descriptor: the lock lives until the process ends, however it ends.
            self._lock = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot use the state directory {directory}", got=error.strerror,
                              hint="name another one with --state_dir")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError(f"{self.path} is in use by another process",
                              "one process for each worker",
                              hint="stop that one, or name another directory with --state_dir")

    def load(self) -> Optional[WorkerRecord]:
        """The record that was saved last; None where there is none.

        Raises DataError when the file is damaged.
        """
        self._end = None
        try:
            with open(self.path, "rb") as file:
                return self._read(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"cannot read the worker's state {self.path}", got=error.strerror)
        except ValueError as error:
            raise DataError(
                f"the worker's state {self.path} is damaged", "what this worker wrote", error,
                "delete it: the worker then starts again from an empty reference")

    def _read(self, file: Any) -> WorkerRecord:
        found, start = os.fstat(file.fileno()), file.read(state_format.START)
        length = state_format.length_of(start)
        # a length that was damaged may be any number
        left = found.st_size if length is None else min(length, found.st_size)
        file.seek(0)
        record = self._coding.from_bytes(file.read(left))
        if length is None or not record.run_id:
            return record
        number, end = 0, length
        for step, place in journal.records(file, length):
            record = self._coding.follow(record, step)
            number, end = number + 1, place
        self._end = _End(origin_of(record), found.st_ino, length, number, end)
        return record

    def save(self, record: WorkerRecord, broadcasts: Optional[Sequence[bytes]] = None) -> None:
        """Returns when the record would survive a power cut.

        broadcasts: the frames, in order, that led from the model of the record before to this one;
        None where it is not known to follow from that by differences.
        Raises DataError; the old record then stays.
        """
        size = 0
        try:
            if broadcasts is not None and self._may_follow(record):
                step = self._coding.to_step(record, broadcasts)
                size = sum(map(len, step))
                if not self._is_long() or not self._made_room(record):
                    self._append(record, step)
                return
            chunks = self._coding.to_chunks(record)
            size = sum(map(len, chunks))
            self._write(record, chunks)
        except OSError as error:
            raise DataError(f"cannot write the worker's state {self.path}",
                            f"{size} bytes of room", error.strerror,
                            "the last saved state stays")

    def _may_follow(self, record: WorkerRecord) -> bool:
        """Whether a step can lead to this record from what the file holds."""
        end = self._end
        if end is None or not follows(end.origin, record):
            return False
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return found.st_ino == end.inode and found.st_size >= end.place

    def _is_long(self) -> bool:
        end = self._end
        assert end is not None, "there is a journal"
        return end.number >= MOST_STEPS or end.place >= (1 + LONGEST_JOURNAL) * end.length

    def _made_room(self, record: WorkerRecord) -> bool:
        """Whether all of the record could be written anew. A full disk may still have room for one
        more step.
        """
        try:
            self._write(record, self._coding.to_chunks(record))
        except OSError:
            if not self._may_follow(record):
                # The new file is there, though perhaps not after a power cut: its end is not this.
                self._end = None
                raise
            return False
        return True

    def _write(self, record: WorkerRecord, chunks: List[Any]) -> None:
        replace_file(self.path, chunks, "state")
        length = sum(map(len, chunks))
        self._end = _End(origin_of(record), os.stat(self.path).st_ino, length, 0, length)

    def _append(self, record: WorkerRecord, step: List[Any]) -> None:
        end = self._end
        assert end is not None, "there is a journal"
        pieces = journal.pack(end.number, step)
        append_to_file(self.path, end.place, pieces, "state")
        self._end = end._replace(origin=origin_of(record), number=end.number + 1,
                                 place=end.place + sum(map(len, pieces)))

    def close(self) -> None:
        """Release the file for another process."""
        os.close(self._lock)
