"""The frames that bring a worker to the current model: missing differences while they are few, else
the model itself.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Iterable, NamedTuple

from flq.algorithm import downlink
from flq.algorithm.round import ModelState
from flq.compression import codec, payload
from flq.compression.identity import FEDAVG
from flq.compression.quantizer import Quantizer
from flq.master.run.accounting import Bits
from flq.protocol import frames
from flq.protocol.frames import BROADCAST_KIND, Content, Expected, Place, RoundTerms


class Delivery(NamedTuple):
    """What one answer to one worker holds. nominal_bits counts as the papers do, payload_bits the
    frames' payloads.
    """

    data: bytes
    nominal_bits: int
    payload_bits: int


class _Delta(NamedTuple):
    data: bytes
    base_hash: bytes
    nominal_bits: int
    payload_bits: int


class Broadcasts:
    """The differences of the last versions, kept while together they are smaller than the model
    (algorithm.md 1.2).
    """

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        # by the version that a difference starts from
        self._deltas: OrderedDict[int, _Delta] = OrderedDict()

    def add(self, base: ModelState, new: ModelState, encoded: codec.Encoded, coded_body: codec.Body,
            terms: RoundTerms, final: bool) -> bytes:
        """The frame from version `base` to `new`: packed once, the same bytes for everybody."""
        data = frames.pack(Content(encoded.quantizer, encoded.bits, coded_body, new.state),
                           Place(new.version, base.version, new.params_hash, final=final), terms,
                           self._expected)
        self._keep(data, base.version, base.params_hash, encoded.quantizer, encoded.bits,
                   payload.num_bits(len(coded_body.data), self._expected.layout.num_state))
        # A chain as long as the model is never used again: a keyframe is smaller.
        while len(self._deltas) > 1 and self._chain_bits() >= 32 * self._expected.layout.num_params:
            self._deltas.popitem(last=False)
        return data

    def restore(self, newest_first: Iterable[bytes], first_hash: bytes) -> int:
        """The frames of a stored run, as far back as they are of use; returns how many were read.
        first_hash: of version 0.
        """
        found: list[tuple[bytes, frames.Head]] = []
        for data in newest_first:
            # What the levels say is not asked here, and may need a history that is not at hand.
            found.append((data, frames.unpack_head(data, BROADCAST_KIND, self._expected)))
            if sum(head.body_bits for _, head in found) >= 32 * self._expected.layout.num_params:
                break
        for index in range(len(found) - 1, -1, -1):
            data, head = found[index]
            if head.header.base == 0:
                base_hash = first_hash
            elif index + 1 < len(found):
                base_hash = found[index + 1][1].header.params_hash
            else:
                continue  # the oldest one only tells the hash that the next one starts from
            self._keep(data, head.header.base, base_hash, head.quantizer, head.header.bits,
                       head.body_bits)
        return len(found)

    def _keep(self, data: bytes, base: int, base_hash: bytes, quantizer: Quantizer, bits: int,
              payload_bits: int) -> None:
        layout = self._expected.layout
        nominal = payload.nominal_bits(quantizer, bits, layout.sizes, layout.num_state)
        self._deltas[base] = _Delta(data, base_hash, nominal, payload_bits)

    def _chain_bits(self) -> int:
        return sum(delta.payload_bits for delta in self._deltas.values())

    def bits(self, have: int, version: int) -> Bits:
        """What a worker was sent to come from one version to another, as far as the differences are
        still here.
        """
        found = [self._deltas[base] for base in range(have, version) if base in self._deltas]
        float32 = 32 * self._expected.layout.num_params
        return Bits(sum(delta.nominal_bits for delta in found),
                    sum(delta.payload_bits for delta in found), float32)

    def knows(self, model: ModelState, have: int, params_hash: bytes) -> bool:
        """True when a worker that holds this version can be brought to the current one by
        differences.
        """
        if have == model.version:
            return params_hash == model.params_hash
        return have in self._deltas and self._deltas[have].base_hash == params_hash

    def deliver(self, model: ModelState, have: int, params_hash: bytes, terms: RoundTerms,
                final: bool, counted: int = -1) -> Delivery:
        """The frames from `have` to the current version; a keyframe where that is unknown or
        nothing is missing.

        counted: the newest version that counted for this receiver. A repeated request that comes
        late is answered like any other, but what led up to that version adds no bits to the
        delivery.
        """
        if have < model.version and self.knows(model, have, params_hash):
            missing = [self._deltas[version] for version in range(have, model.version)]
            size = sum(delta.payload_bits for delta in missing)
            if size < 32 * self._expected.layout.num_params or len(missing) == 1:
                bits = self.bits(max(have, counted), model.version)
                return Delivery(b"".join(delta.data for delta in missing), bits.nominal,
                                bits.payload)
        keyframe = self._deliver_keyframe(model, terms, final)
        if 0 <= have < counted and all(version in self._deltas
                                       for version in range(counted, model.version)):
            # a request that is so late that differences are no shorter any more
            bits = self.bits(counted, model.version)
            return keyframe._replace(nominal_bits=bits.nominal, payload_bits=bits.payload)
        return keyframe

    def _deliver_keyframe(self, model: ModelState, terms: RoundTerms, final: bool) -> Delivery:
        layout = self._expected.layout
        body = downlink.keyframe(model.broadcast, layout.sizes)
        data = frames.pack(
            Content(FEDAVG, 32, body, model.state, model.activity),
            Place(model.version, model.version, model.params_hash, keyframe=True, final=final),
            terms, self._expected)
        nominal = payload.num_bits(len(body.data), layout.num_state)
        return Delivery(data, nominal, 8 * (len(data) - frames.header_length(BROADCAST_KIND)))
