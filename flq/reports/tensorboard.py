"""A run as an event file of TensorBoard, so that `tensorboard --logdir results` shows its runs.

The file is made from the stored rounds and never the other way round: it may be deleted at any
time. A new one replaces those of before, so that no step is there twice.
"""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

from flq.errors import DataError, in_one_line
from flq.keys import BY_PATH
from flq.records import Run
from flq.reports.run_files import DIRECTIONS

_PREFIX, _SUFFIX = "events.out.tfevents.", ".flq"
METRICS = ("test/accuracy", "test/loss", "bits_total/up_payload", "bits_total/down_payload")
"""What the tab HPARAMS shows beside the configuration."""
BY_BITS = "test/accuracy_by_kbit"
"""Accuracy whose step is the kbit of payload of both directions until then."""
_MAX_EXACT = 2 ** 53  # TensorBoard's numbers are float64
_ANSWERS = ("selected", "missing", "skipped", "refused", "late")

Row = Dict[str, Any]


def write_events(directory: Path, run: Run) -> Path:
    """Write the event file of a run into its folder, in place of older ones; returns its path.

    Raises DataError when the disk refuses.
    """
    with EventFile(directory, run) as file:
        file.add(run.rounds)
        if run.summary["phase"] in ("FINISHED", "STOPPED"):
            file.end()
    return file.path


class EventFile:
    """An event file that grows. Its rounds come in order, each once.

    It begins beside the folder's older one and takes its place when the first rounds are in it, so
    that a kill leaves one of them.

    Example::

        with EventFile(directory, run) as file:
            file.add(run.rounds)
            file.end()
    """

    def __init__(self, directory: Path, run: Run) -> None:
        self.path = directory / f"{_PREFIX}{int(time.time())}.{socket.gethostname()}{_SUFFIX}"
        self._directory, self._hidden = directory, directory / ("events.new" + _SUFFIX)
        self._total: Dict[Tuple[str, str], Optional[int]] = {
            (direction, kind): 0 for direction in DIRECTIONS for kind in ("payload", "wire")
        }
        self._untested: Dict[int, int] = {}  # round -> payload bits until then
        self._kbit = -1
        self._is_shown = False
        with self._translated():
            self._file = RecordWriter(str(self._hidden))
        start = run.rounds[0]["closed_at"] if run.rounds else time.time()
        self._add(Event(wall_time=start, file_version="brain.Event:2"))
        # A TensorBoard that runs forgets what it read in an older file.
        self._add(Event(wall_time=start, step=0, session_log=SessionLog(status=SessionLog.START)))
        experiment, session, self._ending = hparams(_hparams(run), dict.fromkeys(METRICS))
        for summary in (experiment, session):
            self._add(Event(wall_time=start, summary=summary))
        self._now = start

    def add(self, rounds: Sequence[Row]) -> None:
        """Add closed rounds, and show the file. A step is the number of a round, as in /history."""
        for record in rounds:
            self._now = record["closed_at"]
            values = {"train/loss": record["train_loss"], "time/round_s": record["round_time_s"]}
            values.update((f"workers/{name}", len(record[name])) for name in _ANSWERS)
            for direction, kind in self._total:
                bits = record[f"{kind}_bits_{direction}"]
                so_far = self._total[direction, kind]
                total = None if so_far is None or bits is None else so_far + bits
                self._total[direction, kind] = total
                values[f"bits/{direction}_{kind}"] = bits
                values[f"bits_total/{direction}_{kind}"] = total
            self._add_scalars(record["round"], values)
            self._untested[record["round"]] = sum(
                self._total[direction, "payload"] or 0 for direction in DIRECTIONS)
        self.add_tests(rounds)
        with self._translated():
            self._file.flush()
            if not self._is_shown:
                self._hidden.replace(self.path)
                self._is_shown = True
        for older in self._directory.glob(f"{_PREFIX}*{_SUFFIX}"):
            if older != self.path:
                with self._translated():
                    older.unlink()

    def add_tests(self, rounds: Sequence[Row]) -> None:
        """Add what tests have found of rounds that were added, once of each."""
        for record in rounds:
            if record["accuracy"] is None or record["round"] not in self._untested:
                continue
            payload_bits = self._untested.pop(record["round"])
            self._add_scalars(record["round"], {"test/accuracy": record["accuracy"],
                                                "test/loss": record["loss"]})
            # a step for each: where nothing was sent, the first test of two
            if payload_bits // 1000 > self._kbit:
                self._kbit = payload_bits // 1000
                self._add_scalars(self._kbit, {BY_BITS: record["accuracy"]})

    def end(self) -> None:
        """Say that the run is over."""
        self._add(Event(wall_time=self._now, summary=self._ending))

    def close(self) -> None:
        with self._translated():
            self._file.close()
            if not self._is_shown:
                self._hidden.unlink()

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _add_scalars(self, step: int, values: Dict[str, Any]) -> None:
        tagged = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()
                  if value is not None]
        self._add(Event(wall_time=self._now, step=step, summary=Summary(value=tagged)))

    def _add(self, event: Any) -> None:
        with self._translated():
            self._file.write(event.SerializeToString())

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"cannot write {self.path}", got=error.strerror or str(error),
                            hint="make room, or is the folder somebody else's?") from error


def _hparams(run: Run) -> Dict[str, Any]:
    """The configuration by path, without a machine's own keys; numbers as numbers."""
    found: Dict[str, Any] = {}
    for section, keys in run.config.items():
        for name, value in keys.items():
            path = in_one_line(f"{section}.{name}")
            if path in BY_PATH and BY_PATH[path].local:
                continue
            plain = isinstance(value, (bool, float)) or isinstance(value, int) and (
                abs(value) <= _MAX_EXACT)
            found[path] = value if plain else in_one_line(
                value if isinstance(value, str) else json.dumps(value))
    return found
