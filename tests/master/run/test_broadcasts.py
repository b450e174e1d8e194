"""What a worker is sent: missing differences while they are few, else the model; every way ends at
the same bits.
"""

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import downlink
from flq.algorithm import round as rounds
from flq.compression import codec
from flq.master.run.accounting import Bits
from flq.master.run.broadcasts import Broadcasts
from flq.parameters import params_hash
from flq.protocol import frames
from flq.protocol.frames import BROADCAST_KIND, Expected, RoundTerms
from tests.system.quadratic import SMALL

EXPECTED = Expected("run-1", SMALL, SMALL.sizes)
P, N = SMALL.num_params, SMALL.num_non_trainable
DELTA_BITS = 8 * (8 + P // 2 + 4 * N)   # two radii, 4 bits a weight, the non-trainable values
MODEL_BITS = 32 * (P + N)
FEW = 32 * P // DELTA_BITS              # so many differences are shorter than the model


def terms_of(version):
    return RoundTerms(0.0, 0.0, 1.0, 0.0, 100, version % 2)


class Chain:
    """Versions 0 to `length` of a model that wanders, and the broadcasts that were made of them."""

    def __init__(self, length, *settings, cohorts=1):
        self.cohorts = cohorts
        built = config.load(None, ["downlink=laq", "b_down=4", *settings]).config
        self._settings = downlink.settings_from(built, SMALL)
        self.broadcasts, self.frames = Broadcasts(EXPECTED, cohorts), []
        start = np.zeros(P, np.float32)
        self.models = [rounds.initial_state(built, SMALL, start, np.zeros(N, np.float32))]
        for version in range(length):
            self.extend(version)

    def extend(self, version):
        base = self.models[version]
        params = base.params + rng.Stream(3, rng.INIT, 0, version).uniform(P).astype(np.float32)
        values = base.non_trainable + np.float32(1)
        held = self.models[max(0, version + 1 - self.cohorts)]
        encoded, model = downlink.encode(params, held.broadcast, version, self._settings)
        new = base._replace(version=version + 1, params=params, broadcast=model,
                            non_trainable=values, params_hash=params_hash(model, values),
                            activity=codec.next_activity(base.activity, encoded))
        body = codec.to_body(encoded, self._settings.entropy_coding, base.activity)
        self.models[version + 1:] = [new]
        self.frames[version:] = [
            self.broadcasts.add(base, new, encoded, body, terms_of(version + 1), False)
        ]

    @property
    def newest(self):
        return self.models[-1]

    def deliver(self, have, hash_=None, final=False):
        known = self.models[have].params_hash if hash_ is None and 0 <= have < len(
            self.models) else hash_ or bytes(8)
        return self.broadcasts.deliver(self.newest, have, known, terms_of(self.newest.version),
                                       final)


def read(delivery, model):
    """The model after a delivery, and the frames of it."""
    data, params, values, came = delivery.data, model.broadcast, model.non_trainable, []
    activity = model.activity
    while data:
        frame, data = frames.unpack_first(data, BROADCAST_KIND,
                                          EXPECTED._replace(activity=activity))
        params = codec.decode(frame.encoded, SMALL.sizes) if frame.keyframe else downlink.apply(
            params, frame.encoded, SMALL.sizes)
        values = frame.non_trainable
        assert params_hash(params, values) == frame.header.params_hash
        activity = frame.activity if frame.keyframe else codec.next_activity(
            activity, frame.encoded)
        came.append(frame)
    return params_hash(params, values), came


@pytest.fixture(scope="module")
def chain():
    return Chain(9, "entropy_coding_down=false")


def test_who_missed_few_versions_gets_their_differences(chain):
    for missing in range(1, FEW + 1):
        have = 9 - missing
        delivery = chain.deliver(have)
        assert delivery.data == b"".join(chain.frames[have:])
        assert (delivery.nominal_bits,
                delivery.payload_bits) == (missing * (32 * 2 + 4 * P + 32 * N),
                                           missing * DELTA_BITS)
        hash_, came = read(delivery, chain.models[have])
        assert hash_ == chain.newest.params_hash and [frame.header.round for frame in came] == list(
            range(have + 1, 10))
        assert came[-1].terms == terms_of(9)


@pytest.mark.parametrize("have", [9 - FEW - 1, 0, -1, 9, 10, 2 ** 40, -7])
def test_who_missed_many_versions_or_has_an_unknown_one_gets_the_model(chain, have):
    delivery = chain.deliver(have)
    assert (delivery.nominal_bits, delivery.payload_bits) == (MODEL_BITS, MODEL_BITS)
    hash_, (frame,) = read(delivery, chain.models[0])
    assert hash_ == chain.newest.params_hash and frame.keyframe
    assert frame.header.base == frame.header.round == 9 and frame.terms == terms_of(9)


def test_who_missed_more_versions_than_an_answer_can_hold_gets_the_model(monkeypatch):
    """A worker reads no longer answer, so however small the differences are there are not more."""
    monkeypatch.setattr(frames, "MOST_FRAMES", FEW - 1)
    chain = Chain(9, "entropy_coding_down=false")
    for missing in range(1, FEW + 1):
        hash_, came = read(chain.deliver(9 - missing), chain.models[9 - missing])
        assert hash_ == chain.newest.params_hash
        assert len(came) == (missing if missing < FEW else 1)
        assert came[0].keyframe == (missing == FEW)
    assert len(chain.deliver(9 - FEW + 1).data) <= frames.longest_answer(SMALL)


@pytest.mark.parametrize("have, counted, bits", [(0, 8, DELTA_BITS), (0, 7, 2 * DELTA_BITS),
                                                 (0, 0, MODEL_BITS), (-1, 8, MODEL_BITS),
                                                 (0, 1, MODEL_BITS)])
def test_a_request_that_is_too_late_for_differences_counts_what_had_not_counted_yet(
        chain, have, counted, bits):
    """Its sender has that version since long; who holds none gets the model, and so it counts."""
    hash_ = chain.models[0].params_hash if have == 0 else b""
    delivery = chain.broadcasts.deliver(chain.newest, have, hash_, terms_of(9), False, counted)
    assert delivery.payload_bits == bits and read(delivery, chain.models[0])[1][0].keyframe


def test_who_has_another_model_of_that_version_gets_the_model(chain):
    hash_, (frame,) = read(chain.deliver(8, b"\1" * 8), chain.models[0])
    assert frame.keyframe and hash_ == chain.newest.params_hash


def test_the_same_bytes_for_everybody(chain):
    assert chain.deliver(8).data == chain.deliver(8).data == chain.frames[8]
    assert chain.deliver(3).data == chain.deliver(-1).data


@pytest.mark.parametrize("have, known", [(9, True), (8, True), (9 - FEW, True),
                                         (9 - FEW - 1, False), (10, False), (-1, False)])
def test_a_version_is_known_while_differences_lead_from_it(chain, have, known):
    hash_ = chain.models[have].params_hash if 0 <= have <= 9 else bytes(8)
    assert chain.broadcasts.knows(chain.newest, have, hash_) == known
    assert not chain.broadcasts.knows(chain.newest, have, b"\1" * 8)


def test_the_last_model_says_so(chain):
    assert read(chain.deliver(9, final=True), chain.models[0])[1][0].final
    assert not read(chain.deliver(9), chain.models[0])[1][0].final


def test_one_difference_is_sent_even_if_it_is_as_long_as_the_model():
    """Its bytes exist; a keyframe would have to be packed and is no shorter."""
    chain = Chain(3, "b_down=0")
    delivery = chain.deliver(2)
    assert delivery.data == chain.frames[2] and delivery.payload_bits == MODEL_BITS
    assert read(chain.deliver(1), chain.models[0])[1][0].keyframe


def test_entropy_coded_differences_are_counted_as_they_travel():
    chain = Chain(2, "entropy_coding_down=true", "b_down=16")
    delivery = chain.deliver(1)
    _, (frame,) = read(delivery, chain.models[1])
    assert delivery.payload_bits == frame.body_bits
    assert delivery.nominal_bits == 32 * 2 + 16 * P + 32 * N


def test_a_round_that_is_computed_again_replaces_its_frame():
    """The disk was full: nothing was stored, and the same version is made once more."""
    chain = Chain(2, "entropy_coding_down=false")
    first = chain.frames[1]
    chain.extend(1)
    assert chain.frames[1] == first and chain.deliver(1).data == first and chain.deliver(
        0).data == b"".join(chain.frames)


def test_what_a_worker_was_sent_before_is_told(chain):
    assert chain.broadcasts.bits(7, 9) == Bits(2 * (64 + 4 * P + 32 * N), 2 * DELTA_BITS, 32 * P)
    assert chain.broadcasts.bits(
        0, 9).payload == FEW * DELTA_BITS, "as far as the differences are still here"


@pytest.mark.parametrize("cohorts, length", [(2, 1), (2, 2), (2, 9), (3, 10), (4, 11)])
def test_a_cohort_gets_the_differences_of_its_own_chain(cohorts, length):
    chain = Chain(length, "entropy_coding_down=false", cohorts=cohorts)
    turns = [*range(length, 0, -cohorts), 0]
    for missing in range(1, min(FEW, len(turns) - 1) + 1):
        delivery = chain.deliver(turns[missing])
        assert delivery.payload_bits == missing * DELTA_BITS
        hash_, came = read(delivery, chain.models[turns[missing]])
        assert hash_ == chain.newest.params_hash
        assert [frame.header.round for frame in came] == turns[:missing][::-1]
        assert [frame.header.base for frame in came] == turns[1:missing + 1][::-1]
    others = [version for version in range(1, length) if version not in turns]
    for have in others:  # what another cohort holds is no base of this one's
        hash_, (frame,) = read(chain.deliver(have), chain.models[have])
        assert frame.keyframe and hash_ == chain.newest.params_hash


def test_what_each_cohort_holds_is_known_while_its_differences_lead_on():
    chain = Chain(9, "entropy_coding_down=false", cohorts=2)  # 9 is the newest; cohort 0 has 8
    hashes = [model.params_hash for model in chain.models]
    for cohort, newest in ((0, 8), (1, 9)):
        for have, hash_ in enumerate(hashes):
            turns = (newest - have) // 2 if have else (newest + 1) // 2
            known = turns <= FEW and (have == 0 or have % 2 == newest % 2)
            assert chain.broadcasts.knows(chain.newest, have, hash_, cohort) == known
            assert not chain.broadcasts.knows(chain.newest, have, b"\1" * 8, cohort)
    young = Chain(1, cohorts=3)  # cohorts 0 and 2 hold version 0, and 2 has not played
    start = young.models[0].params_hash
    assert [young.broadcasts.knows(young.newest, 0, start, cohort) for cohort in range(3)
            ] == [True, True, True]
    assert Broadcasts(EXPECTED, 3).knows(young.models[0], 0, start, 2)


def test_a_round_of_a_cohort_that_is_computed_again_replaces_its_frame():
    chain = Chain(4, "entropy_coding_down=false", cohorts=2)
    before = chain.deliver(2)
    chain.extend(3)
    assert chain.deliver(2) == before and chain.deliver(0).data == chain.frames[1] + chain.frames[3]


@pytest.mark.parametrize("down", ["entropy_coding_down=false", "b_down=0"])
@pytest.mark.parametrize("cohorts, length", [(1, 1), (1, 9), (2, 1), (2, 2), (2, 9), (3, 10),
                                             (4, 30)])
def test_a_stored_run_has_the_differences_of_every_cohort_back(cohorts, length, down):
    chain = Chain(length, down, cohorts=cohorts)
    restored = Broadcasts(EXPECTED, cohorts)
    read_back = restored.restore(reversed(chain.frames), chain.models[0].params_hash)
    assert read_back <= cohorts * (FEW + 2)
    # and both go on in the same way
    for further in range(cohorts + 1):
        for have in range(length + further):
            hash_ = chain.models[have].params_hash
            for cohort in range(cohorts):
                assert restored.knows(chain.newest, have, hash_, cohort) == chain.broadcasts.knows(
                    chain.newest, have, hash_, cohort)
            delivery = restored.deliver(chain.newest, have, hash_, terms_of(length + further),
                                        False)
            assert read(delivery, chain.models[have])[0] == chain.newest.params_hash
            assert delivery == chain.deliver(have)
            for version in range(have, length + further + 1):
                # what a killed master sent and did not write down
                assert restored.bits(have, version) == chain.broadcasts.bits(have, version)
        version = length + further
        chain.extend(version)
        restored = Broadcasts(EXPECTED, cohorts)
        restored.restore(reversed(chain.frames), chain.models[0].params_hash)


@pytest.mark.parametrize("length", [1, 2, FEW, FEW + 3])
def test_a_stored_run_has_its_differences_back(length):
    chain = Chain(length, "entropy_coding_down=false")
    restored = Broadcasts(EXPECTED)
    restored.restore(reversed(chain.frames), chain.models[0].params_hash)
    for have in range(length):
        hash_ = chain.models[have].params_hash
        assert restored.knows(chain.newest, have,
                              hash_) == chain.broadcasts.knows(chain.newest, have, hash_)
        delivery = restored.deliver(chain.newest, have, hash_, terms_of(length), False)
        assert delivery == chain.deliver(have)


@pytest.mark.parametrize("b_down", [8, 16])
def test_who_is_sent_a_keyframe_goes_on_with_the_history_of_the_others(b_down):
    chain = Chain(4, "entropy_coding_down=context", "downlink=rd", f"b_down={b_down}")
    delivery = chain.deliver(-1)
    expected = EXPECTED._replace(activity=chain.models[0].activity)
    keyframe = frames.unpack(delivery.data, BROADCAST_KIND, expected)
    assert keyframe.keyframe and keyframe.activity.tolist() == chain.newest.activity.tolist()
    assert delivery.nominal_bits == MODEL_BITS < delivery.payload_bits == keyframe.body_bits
    newcomer = chain.newest._replace(broadcast=codec.decode(keyframe.encoded, SMALL.sizes),
                                     non_trainable=keyframe.non_trainable,
                                     activity=keyframe.activity)
    chain.extend(4)
    beside = frames.unpack_head(chain.frames[4], BROADCAST_KIND, EXPECTED)
    assert beside.header.flags & frames.HISTORY
    assert read(chain.deliver(4), newcomer)[0] == chain.newest.params_hash
    restored = Broadcasts(EXPECTED)
    restored.restore(reversed(chain.frames), chain.models[0].params_hash)
    known = chain.models[4].params_hash
    assert restored.deliver(chain.newest, 4, known, terms_of(5), False) == chain.deliver(4)
