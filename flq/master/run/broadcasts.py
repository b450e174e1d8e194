"""The frames that bring a worker to its cohort's model: missing differences while they are few,
else the model itself.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Iterable, NamedTuple

from flq.algorithm import cohorts, downlink
from flq.algorithm.model_state import ModelState
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
    nominal_bits: int
    payload_bits: int


class Broadcasts:
    """The differences of the last versions of each cohort, kept while together they are smaller
    than the model (algorithm.md 1, Cohorts). num_cohorts: J.
    """

    def __init__(self, expected: Expected, num_cohorts: int = 1) -> None:
        self._expected, self._num_cohorts = expected, num_cohorts
        # of each cohort, by the version that a difference makes, oldest first
        self._deltas: list[OrderedDict[int, _Delta]] = [OrderedDict() for _ in range(num_cohorts)]
        # of the versions that differences start from or end at
        self._hashes: dict[int, bytes] = {}

    def add(self, before: ModelState, new: ModelState, encoded: codec.Encoded,
            coded_body: codec.Body, terms: RoundTerms, final: bool) -> bytes:
        """The frame that makes the version `new`: packed once, the same bytes for the whole cohort.
        before: the state that the round started from.
        """
        data = frames.pack(
            Content(encoded.quantizer, encoded.bits, coded_body, new.non_trainable),
            Place(new.version, self._base(new.version), new.params_hash, final=final), terms,
            self._expected)
        hashes = {**self._hashes, before.version: before.params_hash,
                  new.version: new.params_hash}
        deltas = self._deltas[cohorts.cohort_of(new.version, self._num_cohorts)]
        deltas[new.version] = self._delta(
            data, encoded.quantizer, encoded.bits,
            payload.num_bits(len(coded_body.data), self._expected.layout.num_non_trainable))
        self._trim(deltas)
        self._keep_hashes(hashes, new.version)
        return data

    def restore(self, newest_first: Iterable[bytes], first_hash: bytes) -> int:
        """The frames of a stored run, as far back as they are of use; returns how many were read.
        first_hash: of version 0.
        """
        self._hashes = {0: first_hash}
        found: list[tuple[bytes, frames.Head]] = []
        # the bits of each cohort's frames; its oldest tells the hash that the next one starts from
        read: list[list[int]] = [[] for _ in range(self._num_cohorts)]
        for data in newest_first:
            # What the levels say is not asked here, and may need a history that is not at hand.
            head = frames.unpack_head(data, BROADCAST_KIND, self._expected)
            version = head.header.round
            found.append((data, head))
            self._hashes[version] = head.header.params_hash
            read[cohorts.cohort_of(version, self._num_cohorts)].append(head.body_bits)
            if all(len(bits) > 1 and sum(bits) >= self._model_bits for bits in read):
                break
        for data, head in reversed(found):
            version = head.header.round
            if self._base(version) in self._hashes:
                self._deltas[cohorts.cohort_of(version, self._num_cohorts)][version] = self._delta(
                    data, head.quantizer, head.header.bits, head.body_bits)
        for deltas in self._deltas:
            self._trim(deltas)
        if found:
            self._keep_hashes(self._hashes, found[0][1].header.round)
        return len(found)

    def _trim(self, deltas: OrderedDict[int, _Delta]) -> None:
        """A chain as long as the model is never used again: a keyframe is smaller."""
        while len(deltas) > 1 and (len(deltas) > frames.MOST_FRAMES or sum(
                delta.payload_bits for delta in deltas.values()) >= self._model_bits):
            deltas.popitem(last=False)

    def _keep_hashes(self, hashes: dict[int, bytes], newest: int) -> None:
        bases = {self._base(version) for deltas in self._deltas for version in deltas}
        self._hashes = {
            version: found for version, found in hashes.items()
            if version == 0 or version in bases or version > newest - self._num_cohorts
        }

    def _base(self, version: int) -> int:
        return cohorts.base_of(version, self._num_cohorts)

    @property
    def _model_bits(self) -> int:
        return 32 * self._expected.layout.num_params

    def _delta(self, data: bytes, quantizer: Quantizer, bits: int,
               payload_bits: int) -> _Delta:
        layout = self._expected.layout
        nominal = payload.nominal_bits(quantizer, bits, layout.sizes, layout.num_non_trainable)
        return _Delta(data, nominal, payload_bits)

    def _newest(self, have: int, version: int) -> tuple[list[_Delta], int]:
        """The differences that lead to a version from `have` or from a later one, oldest first, and
        the version that they start from.
        """
        deltas, found = self._deltas[cohorts.cohort_of(version, self._num_cohorts)], []
        while version > have and version in deltas:
            found.append(deltas[version])
            version = self._base(version)
        return found[::-1], version

    def bits(self, have: int, version: int) -> Bits:
        """What a worker was sent to come from one version to another, as far as the differences are
        still here.
        """
        found, _ = self._newest(have, version)
        return Bits(sum(delta.nominal_bits for delta in found),
                    sum(delta.payload_bits for delta in found), self._model_bits)

    def _missing(self, have: int, version: int) -> list[_Delta] | None:
        """The differences from one version to a later one of its cohort, none from a version to
        itself; None where one is not here.
        """
        found, start = self._newest(have, version)
        return found if start == have else None

    def knows(self, model: ModelState, have: int, params_hash: bytes, cohort: int = 0) -> bool:
        """True when a worker of this cohort that holds this version can be brought to the cohort's
        newest one by differences.
        """
        newest = cohorts.newest_version(cohort, model.version, self._num_cohorts)
        if have == newest == model.version:
            return params_hash == model.params_hash
        return self._hashes.get(have) == params_hash and self._missing(have, newest) is not None

    def deliver(self, model: ModelState, have: int, params_hash: bytes, terms: RoundTerms,
                final: bool, counted: int = -1) -> Delivery:
        """The frames from `have` to the current version, for a worker of its cohort; a keyframe
        where that is unknown or nothing is missing.

        counted: the newest version that counted for this receiver. A repeated request that comes
        late is answered like any other, but what led up to that version adds no bits to the
        delivery.
        """
        cohort = cohorts.cohort_of(model.version, self._num_cohorts)
        missing = self._missing(have, model.version) if self.knows(model, have, params_hash,
                                                                   cohort) else None
        if missing:
            size = sum(delta.payload_bits for delta in missing)
            if size < self._model_bits or len(missing) == 1:
                bits = self.bits(max(have, counted), model.version)
                return Delivery(b"".join(delta.data for delta in missing), bits.nominal,
                                bits.payload)
        keyframe = self._deliver_keyframe(model, terms, final)
        if 0 <= have < counted and self._missing(counted, model.version) is not None:
            # a request that is so late that differences are no shorter any more
            bits = self.bits(counted, model.version)
            return keyframe._replace(nominal_bits=bits.nominal, payload_bits=bits.payload)
        return keyframe

    def _deliver_keyframe(self, model: ModelState, terms: RoundTerms, final: bool) -> Delivery:
        layout = self._expected.layout
        body = downlink.keyframe(model.broadcast, layout.sizes)
        data = frames.pack(
            Content(FEDAVG, 32, body, model.non_trainable, model.activity),
            Place(model.version, model.version, model.params_hash, keyframe=True, final=final),
            terms, self._expected)
        nominal = payload.num_bits(len(body.data), layout.num_non_trainable)
        return Delivery(data, nominal, 8 * (len(data) - frames.header_length(BROADCAST_KIND)))
