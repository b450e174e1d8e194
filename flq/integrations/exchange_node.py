"""A node's end of an exchange: the model out of the frames that came, the answer into one that
goes, and a state that the engine keeps between them.

    node = Node.load(the state that the engine kept, the node's id)
    arrays = node.receive(fields)                     # None: it answers node.lost()
    fields = node.answer(trained arrays, num_samples, loss)
    the engine keeps node.state() with the answer, both or neither
"""

from __future__ import annotations

import json

import numpy as np

from flq import rng
from flq.algorithm import downlink, uplink
from flq.errors import DataError, FlqError
from flq.integrations.exchange import (
    ANSWERED,
    LOST,
    SKIPPED,
    TESTED,
    Arrays,
    Fields,
    field,
    told,
)
from flq.protocol import frames
from flq.protocol.frames import Expected, RoundTerms
from flq.records import LocalResult
from flq.worker.received import Held, receive
from flq.worker.upload import lazy_terms, upload_frame
from flq.worker.worker_record import RecordCoding, WorkerRecord

Answer = dict[str, "int | str | bytes"]


class Node:
    """One node of one run. worker: its number, None until a message gives it one."""

    def __init__(self, node_id: int, own_number: int | None = None) -> None:
        self._node_id, self._own_number = node_id, own_number
        self._about, self._fixed, self._run = "", b"", ""
        self._worker = -1 if own_number is None else own_number
        self._terms: RoundTerms | None = None
        self._record: WorkerRecord
        self._reset = False

    @classmethod
    def load(cls, kept: Fields | None, node_id: int, own_number: int | None = None) -> Node:
        """From what `state` gave; a state that cannot be read counts as lost."""
        node = cls(node_id, own_number)
        if not kept:
            return node
        try:
            node._begin(field(kept, "run", str), field(kept, "about", str),
                        field(kept, "fixed", bytes))
            node._record = node._coding.from_bytes(field(kept, "record", bytes))
            node._terms = RoundTerms(*json.loads(field(kept, "terms", str)))
            node._worker = field(kept, "worker", int)
        except (FlqError, TypeError, ValueError):
            return cls(node_id, own_number)
        return node

    def state(self) -> Answer:
        """What the engine must keep until the next message; empty while there is nothing."""
        if not self._about or self._terms is None:
            return {}
        return {"run": self._run, "about": self._about, "fixed": self._fixed,
                "record": b"".join(self._coding.to_chunks(self._record)),
                "terms": json.dumps(self._terms), "worker": self._worker}

    @property
    def holds(self) -> tuple[str, int, bytes]:
        """The run, and the version and the hash of the model that is held; -1 for none."""
        if not self._about:
            return "", -1, b""
        return self._run, self._record.version, self._record.params_hash

    def receive(self, fields: Fields) -> dict[str, np.ndarray] | None:
        """The model's arrays, after what the server says of the last answer was settled; None where
        this node does not hold what the frames start from.

        Raises FlqError for a message that no server makes.
        """
        run = field(fields, "run", str)
        if run != self._run:
            if "about" not in fields:
                return None
            self._begin(run, field(fields, "about", str), field(fields, "fixed", bytes))
        if self._own_number is None:
            self._worker = field(fields, "worker", int)
        if not self._take(field(fields, "frames", bytes), field(fields, "params_hash", bytes)):
            return None
        self._settle(field(fields, "reference", bytes), field(fields, "epoch", int),
                     bool(field(fields, "fresh", int)))
        return self.arrays()

    def arrays(self) -> dict[str, np.ndarray]:
        """The model that came last; the arrays may be changed."""
        return self._form.join(self._record.params, self._record.non_trainable, self._fixed)

    def answer(self, trained: Arrays, num_samples: int, loss: float) -> Answer:
        """What the training gave: the fields of the answer, whose proposal stays open until the
        server's next message settles it.

        Raises DataError for arrays that are not the model's.
        """
        assert self._terms is not None, "a model came before the training"
        held = self._record
        params, moving = self._form.split(trained)
        with np.errstate(over="ignore", invalid="ignore"):  # what diverged is a silence
            result = LocalResult(held.params - params, moving, loss, 1)
        rule = lazy_terms(self._config, self._terms, num_samples)
        draw = rng.Stream(self._config.dataset.seed, rng.UPLINK, self._worker, held.version).uniform
        proposal = uplink.propose(held.uplink, result, held.version, self._settings, rule, draw)
        self._record = held._replace(proposal=proposal)
        fields = self._fields(SKIPPED if proposal.body is None else ANSWERED)
        if proposal.body is not None:
            fields["frame"] = upload_frame(proposal, held.params_hash, self._worker, held.uplink,
                                           self._settings, self._expected)
        return fields

    def tested(self) -> Answer:
        """The fields of the answer to a message that wanted no training."""
        return self._fields(TESTED)

    def lost(self) -> Answer:
        """The fields of the answer of a node that needs a keyframe."""
        return {"state": LOST, "worker": self._worker, "version": -1, "params_hash": b"",
                "reset": 0}

    def _fields(self, state: str) -> Answer:
        return {"state": state, "worker": self._worker, "version": self._record.version,
                "params_hash": self._record.params_hash, "reset": int(self._reset)}

    def _begin(self, run: str, text: str, fixed: bytes) -> None:
        """A run of which nothing is held yet."""
        self._config, self._form = told(text)
        self._run, self._about, self._fixed = run, text, fixed
        if len(fixed) != self._form.fixed_bytes:
            raise DataError("the fixed arrays of an FLQ message have another length",
                            self._form.fixed_bytes, len(fixed))
        layout = self._form.layout
        self._settings = uplink.settings_from(self._config, layout)
        self._coding = RecordCoding(layout, self._settings)
        self._expected = Expected(run, layout, self._settings.sizes, self._settings.quantizer)
        zeros, none = np.zeros(layout.num_params, np.float32), np.zeros(layout.num_non_trainable,
                                                                        np.float32)
        self._record = WorkerRecord(
            "", run, -1, zeros, none, bytes(8), self._empty(b""), None, False,
            downlink.initial_activity(downlink.settings_from(self._config, layout)))
        self._terms = None

    def _empty(self, reference_hash: bytes) -> uplink.UplinkState:
        return uplink.initial_state(self._settings, self._form.layout.num_params,
                                    self._config.flq_algorithm.b_up, reference_hash)

    def _take(self, data: bytes, wanted: bytes) -> bool:
        """Whether the frames lead from what is held to the model with this hash."""
        record = self._record
        held = Held(record.version, record.params, record.non_trainable, record.params_hash,
                    record.activity)
        terms = self._terms
        try:
            while data:
                head = frames.unpack_head(data, frames.BROADCAST_KIND, self._expected)
                length = frames.header_length(frames.BROADCAST_KIND) + len(head.payload)
                known = head.header.round <= held.version  # its answer was lost, not the model
                if known and not head.header.flags & frames.KEYFRAME:
                    data = data[length:]
                    continue
                held, frame, data = receive(data, held, self._expected)
                terms = frame.terms
        except FlqError:
            return False
        if held.version < 0 or held.params_hash != wanted or terms is None:
            return False
        self._terms = terms
        self._record = record._replace(version=held.version, params=held.params,
                                       non_trainable=held.non_trainable,
                                       params_hash=held.params_hash, activity=held.activity)
        return True

    def _settle(self, reference: bytes, epoch: int, fresh: bool) -> None:
        """Choose the future that the server's chain proves; where it proves none, start from 0."""
        held, proposal = self._record.uplink, self._record.proposal
        self._reset = False
        if proposal is not None:
            if reference == proposal.committed.reference_hash and not proposal.skip:
                held = uplink.settle(proposal, True)
            elif reference == proposal.kept.reference_hash:
                held = uplink.settle(proposal, False)
        if not reference or reference != held.reference_hash:
            if fresh and reference:
                held = self._empty(reference)
            else:
                self._reset = True
                held = self._empty(
                    uplink.first_reference_hash(chain_id(self._run, self._node_id), self._worker,
                                                epoch + 1))
        self._record = self._record._replace(uplink=held, proposal=None)


def chain_id(run: str, node_id: int) -> str:
    """What stands for the run in the chain of a node: another node with the same number has another
    chain.
    """
    return f"{run}/{node_id}"
