"""What a worker must still know after it was killed, saved once a round before it bids (protocol.md
4).

One file a worker, replaced whole; state_format.py has its bytes. Its arrays:

    memory           h or e, where there is one; as it is kept when nothing is committed
    uplink.activity  of the committed uploads, where a history of them is kept (uplink.py); likewise
    proposal.body    scales and levels of an unsettled proposal that is not silent
    proposal.state   its non-trainable values
    activity         of the broadcasts up to that model, where a history is kept (downlink.py)
    params, state    the broadcast model: its trainable and its non-trainable values

What is kept of an uplink is stored once: with the packed levels both futures of a proposal follow
from it.
"""

import fcntl
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from flq.algorithm import uplink
from flq.algorithm.uplink import Proposal, UplinkSettings, UplinkState
from flq.compression.codec import Body
from flq.errors import ConfigError, DataError, FrameError
from flq.host.durable import replace_file
from flq.parameters import Layout, params_hash
from flq.worker import state_format


class WorkerRecord(NamedTuple):
    """instance: 128 random bits as hex, which prove that a process is this worker's successor.

    version, params, non_trainable: the broadcast model held, params_hash: of both. uplink: h or
    e with its chain and clock. proposal: the unsettled answer to round `proposal.round`, None when
    everything is settled. activity: uint8[p], None where no history of the broadcasts is kept.
    """

    instance: str
    run_id: str
    version: int
    params: np.ndarray
    non_trainable: np.ndarray
    params_hash: bytes
    uplink: UplinkState
    proposal: Optional[Proposal]
    two_phase: bool
    activity: Optional[np.ndarray] = None


class InMemory(object):
    """A state that lives as long as its process: for workers whose master lives in the same
    process.
    """

    def __init__(self) -> None:
        self._record: Optional[WorkerRecord] = None

    def load(self) -> Optional[WorkerRecord]:
        """The record that was saved last, or None."""
        return self._record

    def save(self, record: WorkerRecord) -> None:
        """Returns when the record would survive."""
        self._record = record

    def close(self) -> None:
        """Nobody else can use it."""


def state_directory(given: Optional[str] = None) -> str:
    """--state_dir, else FLQ_STATE_DIR, else ~/.flq/state."""
    return given or os.environ.get("FLQ_STATE_DIR") or os.path.join(os.path.expanduser("~"), ".flq",
                                                                    "state")


class StateFile(object):
    """One worker's state on disk, locked for this process from the moment it is made.

    layout and settings: of the model and the uplink of the run. A record of another run or model is
    kept in the file until the first save, but only its instance is used.
    """

    def __init__(self, directory: str, worker: int, layout: Layout,
                 settings: UplinkSettings) -> None:
        self.path = os.path.join(directory, f"worker-{worker}.state")
        self._coding = RecordCoding(layout, settings)
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
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"cannot read the worker's state {self.path}", got=error.strerror)
        try:
            return self._coding.from_bytes(data)
        except ValueError as error:
            raise DataError(
                f"the worker's state {self.path} is damaged", "what this worker wrote", error,
                "delete it: the worker then starts again from an empty reference")

    def save(self, record: WorkerRecord) -> None:
        """Returns when the record would survive a power cut.

        Raises DataError; the old record then stays.
        """
        chunks = self._coding.to_chunks(record)
        try:
            replace_file(self.path, chunks, "state")
        except OSError as error:
            raise DataError(f"cannot write the worker's state {self.path}",
                            f"{sum(map(len, chunks))} bytes of room", error.strerror,
                            "the last saved state stays")

    def close(self) -> None:
        """Give the file free for another process."""
        os.close(self._lock)


class RecordCoding(object):
    """A record as bytes and back, for the layout and the uplink of one run."""

    def __init__(self, layout: Layout, settings: UplinkSettings) -> None:
        self._layout, self._settings = layout, settings

    def to_chunks(self, record: WorkerRecord) -> List[Any]:
        """The bytes in pieces, to be written one behind another."""
        return state_format.pack(*self._to_arrays(record))

    def from_bytes(self, data: bytes) -> WorkerRecord:
        """Raises ValueError with what is wrong."""
        try:
            header, arrays = state_format.unpack(data)
            record = self._from_arrays(header, arrays)
        except KeyError as error:
            raise ValueError(f"no {error} in it")
        except (TypeError, FrameError) as error:
            raise ValueError(str(error))
        if params_hash(record.params, record.non_trainable) != record.params_hash:
            raise ValueError("a model with another hash")
        return record

    def _to_arrays(self, record: WorkerRecord) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
        proposal, held = record.proposal, record.uplink
        header = {
            "instance": record.instance, "run_id": record.run_id, "version": record.version,
            "two_phase": record.two_phase, "params_hash": record.params_hash.hex(),
            "shapes_hash": self._layout.hash(), "quantizer": self._settings.quantizer.name,
            "memory": self._settings.memory.name, "history": self._settings.keeps_history,
            "uplink": _uplink_to_json(held), "proposal": None
        }
        arrays = {}
        memory = held.memory if proposal is None else proposal.kept.memory
        if memory is not None:
            arrays["memory"] = memory
        if held.activity is not None:
            arrays["uplink.activity"] = held.activity
        if proposal is not None:
            header["proposal"] = {
                "round": proposal.round,
                "reason": proposal.reason,
                "bits": proposal.bits,
                "coded": bool(proposal.body and proposal.body.coded),
                "beside_history": bool(proposal.body and proposal.body.beside_history),
                "gain": proposal.gain,
                "residual_norm": proposal.residual_norm,
                "loss": repr(proposal.loss),  # text: it may be nan
                "committed": _uplink_to_json(proposal.committed),
                "kept": _uplink_to_json(proposal.kept)
            }
            if proposal.body is not None:
                arrays["proposal.body"] = np.frombuffer(proposal.body.data, np.uint8)
            arrays["proposal.state"] = proposal.non_trainable
        if record.activity is not None:
            arrays["activity"] = record.activity
        arrays.update(params=record.params, state=record.non_trainable)
        return header, arrays

    def _from_arrays(self, header: Dict[str, Any], arrays: Dict[str, np.ndarray]) -> WorkerRecord:
        """Raises KeyError, TypeError, ValueError or FrameError for what no worker writes."""
        memory, layout = self._settings.memory, self._layout
        # Files of older versions know no history.
        same = (header["shapes_hash"], header["quantizer"], header["memory"],
                header.get("history", False)) == (layout.hash(), self._settings.quantizer.name,
                                                  memory.name, self._settings.keeps_history)
        params = _vector(arrays, "params", np.float32, layout.num_params if same else None)
        non_trainable = _vector(arrays, "state", np.float32,
                                layout.num_non_trainable if same else None)
        kept: Optional[np.ndarray] = None
        activity: Optional[np.ndarray] = None
        sent: Optional[np.ndarray] = None
        proposal: Optional[Proposal] = None
        if same:
            if memory.dtype is not None:
                kept = _vector(arrays, "memory", memory.dtype, layout.num_params)
            if self._settings.keeps_history:
                sent = _vector(arrays, "uplink.activity", np.uint8, layout.num_params)
            if header["proposal"] is not None:
                proposal = self._proposal(header["proposal"], kept, sent, arrays)
            if "activity" in arrays:
                activity = _vector(arrays, "activity", np.uint8, layout.num_params)
            if arrays:
                raise ValueError(f"an array named {next(iter(arrays))}")
        return WorkerRecord(header["instance"], header["run_id"] if same else "", header["version"],
                            params, non_trainable, bytes.fromhex(header["params_hash"]),
                            _uplink_from_json(header["uplink"], kept, sent), proposal,
                            header["two_phase"], activity)

    def _proposal(self, told: Dict[str, Any], memory: Optional[np.ndarray],
                  activity: Optional[np.ndarray], arrays: Dict[str, np.ndarray]) -> Proposal:
        body, kept = None, _uplink_from_json(told["kept"], memory, activity)
        after = memory, activity
        if "proposal.body" in arrays:
            body = Body(_vector(arrays, "proposal.body", np.uint8).tobytes(), told["coded"],
                        told.get("beside_history", False))
            after = uplink.commit(self._settings, kept, body, told["bits"])
        non_trainable = _vector(arrays, "proposal.state", np.float32,
                                self._layout.num_non_trainable)
        return Proposal(told["round"], told["reason"], told["bits"], body, non_trainable,
                        told["gain"], told["residual_norm"], float(told["loss"]),
                        _uplink_from_json(told["committed"], *after), kept)


def _vector(arrays: Dict[str, np.ndarray], name: str, dtype: Any,
            length: Optional[int] = None) -> np.ndarray:
    """Take one array out, as a vector of its own."""
    array = arrays.pop(name)
    if array.dtype != dtype or array.ndim != 1 or length not in (None, array.size):
        raise ValueError(f"array {name} of dtype {array.dtype} and shape {list(array.shape)}")
    return array.astype(dtype)


def _uplink_to_json(held: UplinkState) -> Dict[str, Any]:
    return {
        "reference_hash": held.reference_hash.hex(), "clock": held.clock,
        "last_error2": held.last_error2, "bits": held.bits
    }


def _uplink_from_json(told: Dict[str, Any], memory: Optional[np.ndarray],
                      activity: Optional[np.ndarray]) -> UplinkState:
    return UplinkState(memory, bytes.fromhex(told["reference_hash"]), told["clock"],
                       told["last_error2"], told["bits"], activity)
