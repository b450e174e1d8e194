"""What the master accepts from a worker, one wrong thing at a time."""

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import round as rounds
from flq.algorithm import uplink
from flq.algorithm.lazy import LazyTerms
from flq.compression import QUANTIZERS, codec
from flq.errors import ConfigError, ProtocolError
from flq.master.run.checks import (
    check_budget,
    check_grant,
    check_registration,
    check_upload,
)
from flq.modes import own_hash
from flq.parameters import params_hash
from flq.protocol import frames
from flq.protocol.frames import UPLOAD_KIND, Content, Expected, Place, UploadTerms
from flq.protocol.messages import Registration
from flq.records import LocalResult, Option
from tests.system.quadratic import SMALL, Quadratic
from tests.vectors import same_bits

EXPECTED = Expected("run-1", SMALL, SMALL.sizes)
NOT_LAZY = LazyTerms(0.0, 0.0, 100, 1, 0.0, 1.0)


def settings_of(*overrides):
    return config.load(None, ["total_workers=4", *overrides]).config


class Case:
    """One worker's proposal for round 0, as a frame with whatever the test changes, and the check
    of it.
    """

    def __init__(self, *overrides, bits=None):
        self.config = settings_of(*overrides)
        self.settings = uplink.settings_from(self.config, SMALL)
        params, values = Quadratic(self.config).initial()
        self.model = rounds.open_account(rounds.initial_state(self.config, SMALL, params, values),
                                         "run-1", 2, 120, False)
        self.account = self.model.accounts[2]
        before = uplink.initial_state(self.settings, SMALL.num_params, bits
                                      or self.config.flq_algorithm.b_up,
                                      self.account.reference_hash)
        update = LocalResult(
            (rng.Stream(1, rng.INIT).uniform(SMALL.num_params) - 0.5).astype(np.float32),
            values + np.float32(3), 1.5, 5)
        draw = rng.Stream(1, rng.UPLINK).uniform
        self.proposal = uplink.propose(before, update, 0, self.settings, NOT_LAZY, draw)

    def frame(self, quantizer=None, bits=None, body=None, params_hash_=None, worker=2,
              reference_hash=None):
        proposal = self.proposal
        terms = UploadTerms(proposal.gain, proposal.loss, proposal.residual_norm, 7)
        content = Content(quantizer or self.settings.quantizer, bits or proposal.bits, body
                          or proposal.body, proposal.non_trainable)
        place = Place(0, 0, params_hash_ or self.model.params_hash, worker, reference_hash
                      or self.account.reference_hash)
        return frames.pack(content, place, terms, EXPECTED)

    def check(self, **changes):
        data = self.frame(**changes)
        head = frames.unpack_only_head(data, UPLOAD_KIND, EXPECTED)
        return check_upload(2, head, data, self.model.params_hash, self.account, self.settings,
                            self.config, EXPECTED)

    def refused(self, name, **changes):
        with pytest.raises(ProtocolError) as refusal:
            self.check(**changes)
        assert refusal.value.name == name
        return refusal.value


@pytest.mark.parametrize("mode", ["fedavg", "laq", "laq8", "bbit", "bin", "qsgd"])
def test_a_good_upload_is_what_the_worker_will_commit(mode):
    case = Case("mode=" + mode)
    received, proposal = case.check(), case.proposal
    c = codec.decode(
        codec.from_body(proposal.body, case.settings.quantizer, proposal.bits, SMALL.sizes),
        SMALL.sizes)
    assert same_bits(received.upload.innovation, c) and same_bits(received.upload.non_trainable,
                                                                  proposal.non_trainable)
    assert received.upload.reference_hash == proposal.committed.reference_hash
    assert received.upload.gain == proposal.gain
    assert received.frame == case.frame()
    payload = 8 * (len(proposal.body.data) + 4 * SMALL.num_non_trainable)
    assert received.bid.options == (Option(
        proposal.bits, payload, proposal.gain),) and received.option is received.bid.options[0]
    assert (received.bid.worker, received.bid.round, received.bid.loss,
            received.bid.residual_norm) == (2, 0, 1.5, proposal.residual_norm)
    scales = 0 if mode == "fedavg" else 32 * 2
    assert received.nominal_bits == (scales + proposal.bits * SMALL.num_params
                                     + 32 * SMALL.num_non_trainable)


def test_one_radius_for_the_vector_is_one_scale():
    case = Case("radius=vector")
    expected = EXPECTED._replace(upload_sizes=case.settings.sizes)
    terms = UploadTerms(1.0, 1.0, 0.0, 0)
    data = frames.pack(
        Content(case.settings.quantizer, 4, case.proposal.body, case.proposal.non_trainable),
        Place(0, 0, case.model.params_hash, 2, case.account.reference_hash), terms, expected)
    head = frames.unpack_only_head(data, UPLOAD_KIND, expected)
    received = check_upload(2, head, data, case.model.params_hash, case.account, case.settings,
                            case.config, expected)
    assert received.nominal_bits == 32 + 4 * SMALL.num_params + 32 * SMALL.num_non_trainable


HISTORY = ("mode=rd", "radius=tensor", "b_up=16", "entropy_coding=context")


def test_an_upload_beside_the_accounts_history_is_read_and_moves_it():
    case = Case(*HISTORY)
    assert case.proposal.body.beside_history
    received = case.check()
    assert received.upload.activity.tolist() == case.proposal.committed.activity.tolist()
    assert received.upload.activity.max() > 0


def test_an_upload_beside_a_history_that_the_master_does_not_hold_is_refused():
    """With another reference by its chain, before anything of it is read; with the right chain by
    the history's own check.
    """
    case = Case(*HISTORY)
    case.account = case.account._replace(
        activity=np.arange(SMALL.num_params).astype(np.uint8), reference_hash=b"s" * 32)
    case.refused("other_base", reference_hash=b"r" * 32)
    refusal = case.refused("bad_frame")
    assert refusal.message.startswith("other_history:")


def test_an_upload_beside_a_history_is_refused_where_the_run_keeps_none():
    data = Case(*HISTORY).frame()
    case = Case(*HISTORY[:-1], "entropy_coding=true")
    with pytest.raises(ProtocolError) as refusal:
        check_upload(2, frames.unpack_only_head(data, UPLOAD_KIND, EXPECTED), data,
                     case.model.params_hash, case.account, case.settings, case.config, EXPECTED)
    assert refusal.value.message.startswith("bad_flags:")


@pytest.mark.parametrize("mode", ["laq", "bbit", "bin", "qsgd"])
def test_scales_of_blocks_are_those_of_the_run(mode):
    """Tensors of 35 and 5 weights: 4 blocks of 16, 3 of 32."""
    case = Case("mode=" + mode, "radius=block", "block_size=16")
    received, settings = case.check(), case.settings
    c = codec.decode(
        codec.from_body(case.proposal.body, settings.quantizer, case.proposal.bits, SMALL.sizes),
        SMALL.sizes)
    assert same_bits(received.upload.innovation, c)
    assert received.nominal_bits == (32 * 2 + 8 * 4 + case.proposal.bits * SMALL.num_params
                                     + 32 * SMALL.num_non_trainable)
    for other in ("radius=tensor", "block_size=32"):
        case.settings = uplink.settings_from(
            settings_of("mode=" + mode, "radius=block", "block_size=16", other), SMALL)
        data = Case("mode=" + mode, "radius=block", "block_size=16").frame()
        with pytest.raises(ProtocolError) as refusal:
            check_upload(2, frames.unpack_only_head(data, UPLOAD_KIND, EXPECTED), data,
                         case.model.params_hash, case.account, case.settings, case.config, EXPECTED)
        assert "another size of blocks" in refusal.value.message
        assert (refusal.value.name, refusal.value.got) == ("bad_frame", 16)


def test_an_upload_of_another_worker_quantiser_model_or_reference_is_refused():
    case = Case()
    assert case.refused("bad_frame", worker=1).got == 1
    body = codec.to_body(
        codec.encode(QUANTIZERS["bbit"], np.ones(40, np.float32), SMALL.sizes, 4,
                     rng.Stream(0, 1).uniform), False)
    assert "another quantiser" in case.refused("bad_frame", quantizer=QUANTIZERS["bbit"],
                                               body=body).message
    assert case.refused("other_base", params_hash_=b"\1" * 8).got == "01" * 8
    assert case.refused("other_base", reference_hash=b"\2" * 32).got == "02" * 8


@pytest.mark.parametrize("configured, bits, accepted", [
    (4, 4, True), (4, 5, True), (4, 16, True), (4, 3, False), (8, 7, False), (2, 2, True)])
def test_laq_may_use_more_bits_than_configured_but_not_fewer(configured, bits, accepted):
    case = Case(f"b_up={configured}", bits=bits)
    if accepted:
        assert case.check().option.b == bits
    else:
        assert case.refused("bad_frame").expected == f"{configured} to 16"


@pytest.mark.parametrize("bits", [3, 5])
def test_other_quantisers_use_the_configured_bits(bits):
    assert Case("mode=bbit", bits=bits).refused("bad_frame").expected == "4 to 4"


def test_an_upload_is_held_to_its_grant():
    received = Case().check()
    option = received.option
    check_grant(received, option._replace(gain=0.0))
    for granted, name in ((None, "not_granted"), (option._replace(b=3), "wrong_option"),
                          (option._replace(bits=1), "wrong_option")):
        with pytest.raises(ProtocolError) as refusal:
            check_grant(received, granted)
        assert refusal.value.name == name


def registration_of(learner, worker=1, **changes):
    good = Registration(1, worker, "0" * 32, learner.num_samples(worker), learner.partition_hash,
                        learner.layout.hash(), params_hash(*learner.initial()).hex(), {}, (), False)
    return good._replace(**changes)


def check(registration, settings, learner):
    check_registration(registration, settings, learner, params_hash(*learner.initial()))


@pytest.mark.parametrize("name, changes", [("bad_request", {"protocol": 0}),
                                           ("shapes_mismatch", {"shapes_hash": "1" * 16}),
                                           ("data_mismatch", {"partition_hash": "x"}),
                                           ("data_mismatch", {"num_samples": 111}),
                                           ("model_mismatch", {"params_hash": "1" * 16}),
                                           ("model_mismatch", {"params_hash": ""}),
                                           ("quantizer_mismatch", {"quantizer_hash": "1" * 16}),
                                           ("bad_request", {"memory_rate": 0.5})])
def test_both_sides_mean_the_same(name, changes):
    settings = settings_of()
    learner = Quadratic(settings)
    check(registration_of(learner), settings, learner)
    with pytest.raises(ProtocolError) as refusal:
        check(registration_of(learner, **changes), settings, learner)
    assert refusal.value.name == name and refusal.value.got == list(changes.values())[0]


@pytest.mark.parametrize("memory, in_force", [("reference", 0.25), ("residual", 1.0)])
def test_a_worker_that_goes_by_another_memory_rate_is_refused(memory, in_force):
    """An older version, which knows none, says nothing of it and goes by 1."""
    settings = settings_of("memory=" + memory, "memory_rate=0.25")
    learner = Quadratic(settings)
    check(registration_of(learner, memory_rate=in_force), settings, learner)
    other = 1.25 - in_force
    with pytest.raises(ProtocolError) as refusal:
        check(registration_of(learner, memory_rate=other), settings, learner)
    assert (refusal.value.name, refusal.value.expected,
            refusal.value.got) == ("bad_request", in_force, other)
    assert "memory_rate" in refusal.value.message and refusal.value.kind.action == "exit"


def test_a_users_quantiser_must_have_the_same_source():
    settings = settings_of("mode=examples.custom_quantizer:TERNARY")
    learner = Quadratic(settings)
    check(
        registration_of(learner, quantizer_hash=own_hash(settings.flq_algorithm.mode)), settings,
        learner)
    for other in ("1" * 16, ""):
        with pytest.raises(ProtocolError) as refusal:
            check(registration_of(learner, quantizer_hash=other), settings, learner)
        assert refusal.value.name == "quantizer_mismatch" and refusal.value.got == (other or "none")


def test_with_local_data_only_the_worker_knows_how_much_it_has():
    settings = settings_of("partition=local")
    learner = Quadratic(settings)
    check(registration_of(learner, num_samples=7), settings, learner)


def test_a_users_model_starts_from_the_masters_weights():
    settings = settings_of()
    learner = Quadratic(settings)
    learner.builtin_model = False
    check(registration_of(learner, params_hash=""), settings, learner)
    with pytest.raises(ProtocolError):
        check(registration_of(learner), settings, learner)


@pytest.mark.parametrize("overrides, smallest",
                         [(("mode=laq",), 8 * (8 + 20 + 8)), (("mode=laq8",), 8 * (8 + 40 + 8)),
                          (("mode=bin",), 8 * (8 + 5 + 8)),
                          (("mode=bin", "radius=block", "block_size=16"),
                           8 * (8 + 4 + 4 + 5 + 8)),
                          (("mode=fedavg",), 8 * (160 + 8)),
                          (("mode=fedavg", "entropy_coding=true"), 8 * (160 + 8))])
def test_a_budget_that_no_upload_meets_is_refused(overrides, smallest):
    for budget, refused in ((smallest, False), (smallest - 1, True), (0, False)):
        settings = settings_of("entropy_coding=false", *overrides, f"up_budget_bits={budget}")
        if refused:
            with pytest.raises(ConfigError) as refusal:
                check_budget(settings, uplink.settings_from(settings, SMALL), SMALL)
            assert refusal.value.expected == f"at least {smallest}"
        else:
            check_budget(settings, uplink.settings_from(settings, SMALL), SMALL)


def test_with_entropy_coding_nobody_knows_in_advance():
    settings = settings_of("up_budget_bits=1", "entropy_coding=true")
    check_budget(settings, uplink.settings_from(settings, SMALL), SMALL)
