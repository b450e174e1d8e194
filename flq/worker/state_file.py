"""What a worker must still know after it was killed, saved once a round before it bids (protocol.md 4).

    magic | lengths of the header and the model | header (JSON) | arrays | model | SHA-256 of everything before the model

One file a worker, replaced whole. h or e is stored once: with the packed levels of an unsettled proposal
both futures follow from it. The model's own hash was computed when it arrived, and stands in the header.
A file of an older version, with its own magic, holds h as float32.
"""

import fcntl
import hashlib
import json
import os
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from flq.algorithm import uplink
from flq.algorithm.memories import Memory
from flq.algorithm.uplink import Proposal, UplinkSettings, UplinkState
from flq.compression.codec import Body
from flq.durable import replace_file
from flq.errors import ConfigError, DataError
from flq.parameters import Layout, params_hash

_MAGIC = b"FLQSTATE2\n"
_OLD_MAGIC = b"FLQSTATE1\n"
_LENGTHS = struct.Struct("<IQ")


class WorkerRecord(NamedTuple):
    """instance: 128 random bits as hex, which prove that a process is this worker's successor.

    version, params, state: the broadcast model held, params_hash: of params and state. uplink: h or e with its chain and clock.
    proposal: the unsettled answer to round `proposal.round`, None when everything is settled.
    """

    instance: str
    run_id: str
    version: int
    params: np.ndarray
    state: np.ndarray
    params_hash: bytes
    uplink: UplinkState
    proposal: Optional[Proposal]
    two_phase: bool


class InMemory(object):
    """A state that lives as long as its process: for workers whose master lives in the same process."""

    def __init__(self) -> None:
        self._record = None  # type: Optional[WorkerRecord]

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
    return given or os.environ.get("FLQ_STATE_DIR") or os.path.join(os.path.expanduser("~"), ".flq", "state")


class StateFile(object):
    """One worker's state on disk, locked for this process from the moment it is made.

    layout and settings: of the model and the uplink of the run. A record of another run or model is kept
    in the file until the first save, but only its instance is used.
    """

    def __init__(self, directory: str, worker: int, layout: Layout, settings: UplinkSettings) -> None:
        self.path = os.path.join(directory, "worker-{}.state".format(worker))
        self._layout, self._settings = layout, settings
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            # A bare descriptor: the lock lives until the process ends, however it ends.
            self._lock = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError("cannot use the state directory {}".format(directory), got=error.strerror,
                              hint="name another one with --state_dir")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError("{} is in use by another process".format(self.path), "one process for each worker",
                              hint="stop that one, or name another directory with --state_dir")

    def load(self) -> Optional[WorkerRecord]:
        """The record that was saved last; None where there is none. Raises DataError when the file is damaged."""
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError("cannot read the worker's state {}".format(self.path), got=error.strerror)
        start = len(_MAGIC) + _LENGTHS.size
        if len(data) < start + 32 or data[:len(_MAGIC)] not in (_MAGIC, _OLD_MAGIC):
            raise self._damaged(data)
        header_length, model_length = _LENGTHS.unpack_from(data, len(_MAGIC))
        end = len(data) - 32 - model_length
        if end < start or hashlib.sha256(data[:end]).digest() != data[-32:]:
            raise self._damaged(data)
        header = json.loads(data[start:start + header_length].decode("utf-8"))
        record = self._from_header(header, data[start + header_length:-32], data.startswith(_OLD_MAGIC))
        if params_hash(record.params, record.state) != record.params_hash:
            raise self._damaged(data)
        return record

    def _damaged(self, data: bytes) -> DataError:
        return DataError("the worker's state {} is damaged".format(self.path), "what this worker wrote", "{} bytes".format(len(data)),
                         "delete it: the worker then starts again from an empty reference")

    def save(self, record: WorkerRecord) -> None:
        """Returns when the record would survive a power cut. Raises DataError; the old record then stays."""
        header, arrays, model = self._to_header(record)
        head = json.dumps(header, separators=(",", ":")).encode("utf-8")
        chunks = [_MAGIC, _LENGTHS.pack(len(head), sum(map(len, model))), head] + arrays
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        chunks += model + [digest.digest()]
        try:
            replace_file(self.path, chunks, "state")
        except OSError as error:
            raise DataError("cannot write the worker's state {}".format(self.path), "{} bytes of room".format(sum(map(len, chunks))),
                            error.strerror, "the last saved state stays")

    def close(self) -> None:
        """Give the file free for another process."""
        os.close(self._lock)

    def _to_header(self, record: WorkerRecord) -> Tuple[Dict[str, Any], List[Any], List[Any]]:
        """The header, the bytes of the arrays behind it, and those of the model."""
        proposal, held = record.proposal, record.uplink
        memory = held.memory if proposal is None else proposal.kept.memory
        body = b"" if proposal is None or proposal.body is None else proposal.body.data
        values = np.zeros(0, np.float32) if proposal is None else proposal.state_values
        header = {
            "instance": record.instance, "run_id": record.run_id, "version": record.version, "two_phase": record.two_phase,
            "params_hash": record.params_hash.hex(),
            "shapes_hash": self._layout.hash(), "quantizer": self._settings.quantizer.name, "memory": self._settings.memory.name,
            "uplink": _state_to_json(held), "proposal": None}
        if proposal is not None:
            header["proposal"] = {
                "round": proposal.round, "reason": proposal.reason, "bits": proposal.bits,
                "coded": bool(proposal.body and proposal.body.coded),
                "silent": proposal.body is None, "gain": proposal.gain, "residual_norm": proposal.residual_norm,
                "loss": repr(proposal.loss),  # text: it may be nan
                "committed": _state_to_json(proposal.committed), "kept": _state_to_json(proposal.kept)}
        stored_as = _stored_dtype(self._settings.memory)
        arrays, model = [_bytes(memory, stored_as), body, _bytes(values)], [_bytes(record.params), _bytes(record.state)]
        header["lengths"] = [len(array) for array in arrays + model]
        return header, arrays, model

    def _from_header(self, header: Dict[str, Any], blob: bytes, old: bool) -> WorkerRecord:
        same = (header["shapes_hash"], header["quantizer"], header["memory"]) == (
            self._layout.hash(), self._settings.quantizer.name, self._settings.memory.name)
        parts: List[bytes] = []
        start = 0
        for length in header["lengths"]:
            parts.append(blob[start:start + length])
            start += length
        params, state = _floats(parts[3]), _floats(parts[4])
        kept = None  # type: Optional[np.ndarray]
        if same and self._settings.memory.dtype is not None:
            stored_as = "<f4" if old else _stored_dtype(self._settings.memory)
            kept = np.frombuffer(parts[0], stored_as).astype(self._settings.memory.dtype)
        held = _state_from_json(header["uplink"], kept)
        run_id = header["run_id"] if same else ""
        proposal = None
        if same and header["proposal"]:
            proposal = self._proposal(header["proposal"], kept, parts[1], _floats(parts[2]))
        return WorkerRecord(header["instance"], run_id, header["version"], params, state, bytes.fromhex(header["params_hash"]),
                            held, proposal, header["two_phase"])

    def _proposal(self, told: Dict[str, Any], kept: Optional[np.ndarray], data: bytes, values: np.ndarray) -> Proposal:
        body = None if told["silent"] else Body(data, told["coded"])
        committed = kept if body is None else uplink.committed_memory(self._settings, kept, body, told["bits"])
        futures = _state_from_json(told["committed"], committed), _state_from_json(told["kept"], kept)
        return Proposal(told["round"], told["reason"], told["bits"], body, values, told["gain"], told["residual_norm"],
                        float(told["loss"]), *futures)


def _state_to_json(state: UplinkState) -> Dict[str, Any]:
    return {"reference_hash": state.reference_hash.hex(), "clock": state.clock, "last_error2": state.last_error2, "bits": state.bits}


def _state_from_json(told: Dict[str, Any], memory: Optional[np.ndarray]) -> UplinkState:
    return UplinkState(memory, bytes.fromhex(told["reference_hash"]), told["clock"], told["last_error2"], told["bits"])


def _stored_dtype(memory: Memory) -> Any:
    """A memory's dtype, little-endian."""
    return np.dtype(memory.dtype).newbyteorder("<")


def _bytes(values: Optional[np.ndarray], dtype: Any = "<f4") -> Any:
    """The little-endian floats of a vector, without a copy where it lies like that in memory."""
    return b"" if values is None or not values.size else memoryview(np.ascontiguousarray(values, dtype)).cast("B")


def _floats(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4").astype(np.float32)
