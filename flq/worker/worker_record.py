"""What a worker must still know after it was killed (protocol.md 4), as bytes and back.

Two kinds of bytes. All of it, by state_format.py; its arrays:

    memory           h or e, where there is one; as it is kept when nothing is committed
    uplink.activity  of the committed uploads, where a history of them is kept (uplink.py); likewise
    proposal.body    scales and levels of an unsettled proposal that is not silent
    proposal.state   its non-trainable values
    activity         of the broadcasts up to that model, where a history is kept (downlink.py)
    params, state    the broadcast model: its trainable and its non-trainable values

And a step, from the record before to one with the proposal of the next round (journal.py):

    broadcasts       the frames that led to its model
    proposal.body, proposal.state
    memory           only where what was not sent is part of it (residual): nothing else has that

What is kept of an uplink is stored once: with the packed levels both futures of a proposal follow
from it. Which of the two became true follows from the chain that the next proposal starts from.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.algorithm import uplink
from flq.algorithm.uplink import Proposal, UplinkSettings, UplinkState
from flq.compression.codec import Body
from flq.errors import FrameError, ProtocolError
from flq.parameters import Layout, params_hash
from flq.protocol.frames import Expected
from flq.worker import state_format
from flq.worker.received import Held, receive


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


class Origin(NamedTuple):
    """What decides whether a record follows from another by a step. chains: of the uplink from
    which the next proposal starts without a reset.
    """

    instance: str
    run_id: str
    chains: Tuple[bytes, ...]


def origin_of(record: WorkerRecord) -> Origin:
    """Of the records that follow from this one."""
    chains: Tuple[bytes, ...] = (record.uplink.reference_hash,)
    if record.proposal is not None:
        chains = record.proposal.kept.reference_hash, record.proposal.committed.reference_hash
    return Origin(record.instance, record.run_id, chains)


def follows(origin: Origin, record: WorkerRecord) -> bool:
    """Whether a step leads there, if the broadcasts since then are known."""
    return (record.proposal is not None
            and (record.instance, record.run_id) == (origin.instance, origin.run_id)
            and record.uplink.reference_hash in origin.chains)


class RecordCoding(object):
    """A record as bytes and back, for the layout and the uplink of one run."""

    def __init__(self, layout: Layout, settings: UplinkSettings) -> None:
        self._layout, self._settings = layout, settings

    def to_chunks(self, record: WorkerRecord) -> List[Any]:
        """The bytes of all of it in pieces, to be written one behind another."""
        return state_format.pack(*self._to_arrays(record))

    def to_step(self, record: WorkerRecord, broadcasts: Sequence[bytes]) -> List[Any]:
        """What leads to a record with a proposal from the one before, in pieces. broadcasts: the
        frames, in order, that led to its model.
        """
        assert record.proposal is not None, "a step is a round"
        arrays, unsent = _arrays_of(record.proposal), record.proposal.kept.memory
        if self._settings.memory.keeps_unsent and unsent is not None:
            arrays["memory"] = unsent
        arrays["broadcasts"] = np.frombuffer(b"".join(broadcasts), np.uint8)
        return state_format.pack_record(_told(record), arrays)

    def from_bytes(self, data: bytes) -> WorkerRecord:
        """From all of it. Raises ValueError with what is wrong."""
        try:
            record = self._from_arrays(*state_format.unpack(data))
        except KeyError as error:
            raise ValueError(f"no {error} in it")
        except (TypeError, FrameError) as error:
            raise ValueError(str(error))
        if params_hash(record.params, record.non_trainable) != record.params_hash:
            raise ValueError("a model with another hash")
        return record

    def follow(self, record: WorkerRecord, step: bytes) -> WorkerRecord:
        """The record after a step. Raises ValueError with what is wrong."""
        try:
            return self._followed(record, *state_format.unpack_record(step))
        except KeyError as error:
            raise ValueError(f"no {error} in it")
        except (TypeError, FrameError, ProtocolError) as error:
            raise ValueError(str(error))

    def _followed(self, record: WorkerRecord, told: Dict[str, Any],
                  arrays: Dict[str, np.ndarray]) -> WorkerRecord:
        held = _of_chain(record, bytes.fromhex(told["uplink"]["reference_hash"]))
        memory = held.memory
        if self._settings.memory.keeps_unsent:
            memory = _vector(arrays, "memory", self._settings.memory.dtype, self._layout.num_params)
        model = Held(record.version, record.params, record.non_trainable, record.params_hash,
                     record.activity)
        data = _vector(arrays, "broadcasts", np.uint8).tobytes()
        expected = Expected(record.run_id, self._layout, self._settings.sizes,
                            self._settings.quantizer)
        while data:
            model, _, data = receive(data, model, expected)
        if (model.version, model.params_hash.hex()) != (told["version"], told["params_hash"]):
            raise ValueError(f"broadcasts up to version {model.version}, not {told['version']}")
        proposal = self._proposal(told["proposal"], memory, held.activity, arrays)
        if arrays:
            raise ValueError(f"an array named {next(iter(arrays))}")
        return WorkerRecord(record.instance, record.run_id, model.version, model.params,
                            model.non_trainable, model.params_hash,
                            _uplink_from_json(told["uplink"], memory, held.activity), proposal,
                            told["two_phase"], model.activity)

    def _to_arrays(self, record: WorkerRecord) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
        proposal, held = record.proposal, record.uplink
        header = _told(record)
        header.update(instance=record.instance, run_id=record.run_id,
                      shapes_hash=self._layout.hash(), quantizer=self._settings.quantizer.name,
                      memory=self._settings.memory.name, history=self._settings.keeps_history)
        arrays = {}
        memory = held.memory if proposal is None else proposal.kept.memory
        if memory is not None:
            arrays["memory"] = memory
        if held.activity is not None:
            arrays["uplink.activity"] = held.activity
        arrays.update(_arrays_of(proposal))
        if record.activity is not None:
            arrays["activity"] = record.activity
        arrays.update(params=record.params, state=record.non_trainable)
        return header, arrays

    def _from_arrays(self, header: Dict[str, Any], arrays: Dict[str, np.ndarray]) -> WorkerRecord:
        """Raises KeyError, TypeError, ValueError or FrameError for what no worker writes."""
        memory, layout = self._settings.memory, self._layout
        # Files of the oldest versions know no history.
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


def _of_chain(record: WorkerRecord, chain: bytes) -> UplinkState:
    """The uplink that a chain is of: that of the proposal's future, whichever it is. Equal chains
    are equal references.
    """
    held = record.uplink
    if record.proposal is not None:
        accepted = chain == record.proposal.committed.reference_hash
        held = uplink.settle(record.proposal, accepted)
    if held.reference_hash != chain:
        raise ValueError("a chain that does not go on from the one before")
    return held


def _told(record: WorkerRecord) -> Dict[str, Any]:
    """What a header says in both kinds."""
    proposal = record.proposal
    return {
        "version": record.version, "two_phase": record.two_phase,
        "params_hash": record.params_hash.hex(), "uplink": _uplink_to_json(record.uplink),
        "proposal": None if proposal is None else {
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
    }


def _arrays_of(proposal: Optional[Proposal]) -> Dict[str, np.ndarray]:
    """What is stored of a proposal besides what is told."""
    if proposal is None:
        return {}
    arrays = {}
    if proposal.body is not None:
        arrays["proposal.body"] = np.frombuffer(proposal.body.data, np.uint8)
    arrays["proposal.state"] = proposal.non_trainable
    return arrays


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
