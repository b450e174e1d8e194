"""Closing a round: its record, its rows, what is committed with it, and what a failure leaves
behind.
"""

import numpy as np
import pytest

from flq.algorithm.memories import MEMORIES
from flq.algorithm.model_state import Account
from flq.algorithm.round import NonFiniteError
from flq.compression import codec
from flq.master.run.broadcasts import Broadcasts
from flq.master.run.closing import Measured, OpenRound, RoundCloser, rebuild_reference, round_terms
from flq.master.store.events import Flagged, Join, Leave
from flq.master.store.run_store import Reference, RunStore, StoreError
from flq.protocol import frames
from flq.protocol import round_machine as machine
from flq.protocol.frames import BROADCAST_KIND, Expected
from flq.protocol.round_events import Aggregate
from flq.records import WorkerRound
from tests.master.run.test_checks import Case
from tests.system.quadratic import SMALL
from tests.vectors import same_bits

EXPECTED = Expected("run-1", SMALL, SMALL.sizes)
MEASURED = Measured(seconds=1.5, closed_at=1700000000.0, wire_up=700, wire_down=300,
                    nominal_down=11, payload_down=12, float32_down=13,
                    accounting={"down": [1, 2, 3]})


class Closing:
    """Worker 2 of Case, alone in round 0."""

    def __init__(self, directory, *overrides, meta=None):
        self.case = case = Case(*overrides)
        self.store = RunStore(directory, {"references": "float64"} if meta is None else meta)
        self.broadcasts = Broadcasts(EXPECTED)
        self.closer = RoundCloser("run-1", case.config, self.store, self.broadcasts, case.settings,
                                  EXPECTED)
        self.received = case.check()
        settings = machine.RoundSettings(case.config.system.max_rounds, 1, 4, True, False, None,
                                         60.0, 3600.0)
        self.state = machine.initial_state(settings, 0.0)._replace(bids={2: self.received.bid})

    def opened(self, selected=(2,), skipped=(), refused=(), missing=(), departing=(), events=(),
               model=None, **state):
        effect = Aggregate(0, selected, skipped, refused, missing)
        return OpenRound(effect, self.state._replace(**state),
                         model or self.case.model, self.case.config,
                         dict.fromkeys(selected, self.received), departing, events)


@pytest.fixture
def closing(tmp_path):
    closing = Closing(tmp_path, "lr=1", "server_optimizer=sgd", "b_down=0", "max_rounds=9",
                      "sel_clients=3", "C=17", "thr_scale=0.25")
    yield closing
    closing.store.close()


@pytest.mark.parametrize("far, members, reason, selected, diverges", [
    ((0, 1), (0, 1, 3, 4), "norm", (), True), ((0, 1, 3), (0, 1, 3, 4), "state", (), True),
    ((0, 1), (0, 1, 3, 4), "norm", (2,), False), ((0,), (0, 1, 3, 4), "norm", (), False),
    ((0, 1), (0, 1, 3, 4), "gain", (), False), ((0,), (0,), "norm", (), True),
    ((1,), (0,), "norm", (), False), ((0,), (), "norm", (), False)], ids=[
        "half of the members", "more", "somebody is accepted", "one alone", "another reason",
        "the only member", "not the only member", "nobody is a member"])
def test_a_run_whose_updates_are_all_too_long_diverges(closing, far, members, reason, selected,
                                                       diverges):
    """One worker of many, or a few, cannot pause the run so."""
    account = Account(10.0, 10, 0, bytes(32), 0, True, 0)
    accounts = dict(closing.case.model.accounts)
    accounts.update(dict.fromkeys(far, account._replace(member=False)))
    accounts.update(dict.fromkeys(members, account))
    model = closing.case.model._replace(accounts=accounts)
    opened = closing.opened(selected=selected, skipped=far, model=model)._replace(
        flagged=tuple(Flagged(worker, 0, reason, 100.0, 5.0) for worker in far))
    if diverges:
        with pytest.raises(NonFiniteError, match="diverges.*at most 5.*rollback"):
            closing.closer.close(opened, MEASURED)
        assert list(closing.store.rounds()) == []
    else:
        closing.closer.close(opened, MEASURED)


def test_a_round_is_committed_with_all_that_belongs_to_it(closing):
    events = (Join(2, 120),)
    stored = closing.closer.close(closing.opened(events=events), MEASURED)
    (kept,) = closing.store.rounds()
    record, option = stored.record, closing.received.option
    assert kept.record == record and kept.events == events and kept.accounting == {
        "down": [1, 2, 3]
    }
    assert (record.round, record.version, record.selected, record.members) == (0, 1, (2,), 1)
    assert (record.nominal_bits_up, record.payload_bits_up,
            record.wire_bits_up) == (closing.received.nominal_bits, option.bits, 700)
    assert (record.nominal_bits_down, record.payload_bits_down, record.wire_bits_down,
            record.float32_bits_down) == (11, 12, 300, 13)
    assert (record.float32_bits_up, record.round_time_s, record.closed_at,
            record.train_loss) == (32 * 40, 1.5, 1700000000.0, 1.5)
    assert (record.server_lr, record.rho, record.params_hash) == (1.0, 1.0,
                                                                  stored.model.params_hash.hex())
    assert record.accuracy is None and record.loss is None and record.late == ()
    (answer,) = kept.answers
    assert answer.row == stored.rows[0] == WorkerRound(0, 2, "accepted", 4, option.bits,
                                                       option.gain, 1.5, 0, 120, 0,
                                                       closing.case.proposal.residual_norm)
    assert answer.row.residual_norm > 0
    assert answer.frame == closing.received.frame
    assert answer.reference_hash == closing.case.proposal.committed.reference_hash
    account = stored.model.accounts[2]
    assert answer.epoch == account.epoch == 0 and account.member and account.clock == 0


def test_the_model_moves_against_the_direction(closing):
    """sgd with rate 1 and one member that committed c: theta = theta_0 - c, and float32 brings it
    down whole.
    """
    stored = closing.closer.close(closing.opened(), MEASURED)
    before, c = closing.case.model, closing.received.upload.innovation
    assert same_bits(stored.model.params, before.params - c)
    np.testing.assert_array_equal(stored.model.reference_sum, 120.0 * c.astype(np.float64))
    np.testing.assert_allclose(stored.model.broadcast, stored.model.params, atol=1e-6)
    assert same_bits(stored.model.non_trainable, closing.received.upload.non_trainable)


def test_the_broadcast_that_is_stored_is_the_one_that_is_sent(closing):
    stored = closing.closer.close(closing.opened(), MEASURED)
    (data,) = closing.store.broadcasts()
    frame = frames.unpack(data, BROADCAST_KIND, EXPECTED)
    assert closing.broadcasts.deliver(stored.model, 0, closing.case.model.params_hash, stored.terms,
                                      False).data == data
    assert frame.header.params_hash == stored.model.params_hash and frame.terms == stored.terms
    assert (stored.terms.two_phase, stored.terms.max_skips, stored.terms.thr_scale,
            stored.terms.mean_weight) == (1, 17, 0.25, 120.0)
    assert (stored.terms.history_sum == stored.record.history_sum ==
            0.8 / 10 * stored.record.direction_norm2)


@pytest.mark.parametrize("changes, final", [({}, False), ({"stopping": True}, True)])
def test_a_stopped_runs_last_model_is_final(closing, changes, final):
    closing.closer.close(closing.opened(**changes), MEASURED)
    assert frames.unpack(next(closing.store.broadcasts()), BROADCAST_KIND, EXPECTED).final == final


def test_the_last_rounds_model_is_final(tmp_path):
    closing = Closing(tmp_path, "max_rounds=1")
    closing.closer.close(closing.opened(), MEASURED)
    assert frames.unpack(next(closing.store.broadcasts()), BROADCAST_KIND, EXPECTED).final
    closing.store.close()


@pytest.mark.parametrize("group, state", [("skipped", "skipped"), ("refused", "refused"),
                                          ("missing", "missing")])
def test_who_was_not_selected_leaves_a_row_without_an_upload(closing, group, state):
    stored = closing.closer.close(closing.opened(selected=(), **{group: (2,)}), MEASURED)
    (answer,) = next(closing.store.rounds()).answers
    assert (answer.row.state, answer.row.payload_bits, answer.frame) == (state, 0, None)
    assert answer.row.residual_norm == closing.case.proposal.residual_norm, "its bid was here"
    assert answer.reference_hash == closing.case.account.reference_hash
    assert getattr(stored.record, group) == (2,) and stored.record.members == 0
    assert stored.model.accounts[2].absent == (state == "missing")
    assert same_bits(stored.model.params, closing.case.model.params)


def test_who_said_nothing_has_no_error(closing):
    closing.closer.close(closing.opened(selected=(), missing=(2,), bids={}), MEASURED)
    (answer,) = next(closing.store.rounds()).answers
    assert answer.row.residual_norm is None


def test_who_never_registered_has_no_row(closing):
    closing.closer.close(closing.opened(missing=(0, 1)), MEASURED)
    assert [answer.row.worker for answer in next(closing.store.rounds()).answers] == [2]
    assert closing.store.records()[0].missing == (0, 1)


def test_a_round_that_cannot_be_computed_or_stored_changes_nothing(closing):
    huge = closing.case.model._replace(params=np.full(40, 3e38, np.float32))
    closing.received = closing.case.check()
    closing.received.upload.innovation[:] = -3e38
    with pytest.raises(NonFiniteError):
        closing.closer.close(closing.opened(model=huge), MEASURED)
    assert closing.store.records() == []
    closing.received = closing.case.check()
    stored = closing.closer.close(closing.opened(), MEASURED)
    with pytest.raises(StoreError):
        closing.closer.close(closing.opened(), MEASURED)
    assert closing.store.records() == [stored.record] and closing.case.model.version == 0


def test_a_reference_is_rebuilt_from_what_was_committed(closing):
    stored = closing.closer.close(closing.opened(), MEASURED)
    case, member = closing.case, stored.model.accounts[2]
    rebuilt = rebuild_reference(closing.store, 2, member, EXPECTED, case.settings)
    assert rebuilt.dtype == np.float64 and same_bits(rebuilt, case.proposal.committed.memory,
                                                     np.float64)
    assert rebuild_reference(closing.store, 2, member, EXPECTED,
                             case.settings._replace(memory=MEMORIES["residual"])) is None
    assert rebuild_reference(closing.store, 2, case.account, EXPECTED,
                             case.settings) is None, "who is no member has none"


def test_an_upload_that_was_damaged_in_the_store_is_named(closing):
    stored = closing.closer.close(closing.opened(), MEASURED)
    closing.store._write("UPDATE answers SET frame = zeroblob(length(frame))", ())
    with pytest.raises(StoreError) as refusal:
        rebuild_reference(closing.store, 2, stored.model.accounts[2], EXPECTED,
                          closing.case.settings)
    assert f"an upload in {closing.store.path} is damaged" in str(refusal.value)
    assert "backup" in refusal.value.hint and "\n" not in str(refusal.value)


@pytest.mark.parametrize("meta, dtype", [({"references": "float64"}, np.float64), ({}, np.float32)])
@pytest.mark.parametrize("stored_as", ["<f8", "<f4"])
def test_a_reference_goes_on_from_what_a_compaction_kept(tmp_path, meta, dtype, stored_as):
    """Also of an older version, which kept float32 and summed so."""
    closing = Closing(tmp_path, meta=meta)
    stored = closing.closer.close(closing.opened(), MEASURED)
    kept = (3 + np.arange(40) / 7).astype(stored_as)
    closing.store.compact(0, b"", b"", [Reference(2, 0, kept.tobytes())], 1)
    rebuilt = rebuild_reference(closing.store, 2, stored.model.accounts[2], EXPECTED,
                                closing.case.settings)
    assert rebuilt.dtype == dtype
    assert same_bits(rebuilt, kept.astype(dtype) + closing.received.upload.innovation, dtype)
    closing.store.close()


def test_a_departure_takes_the_reference_out_before_the_round(closing):
    stored = closing.closer.close(closing.opened(), MEASURED)
    effect = Aggregate(1, (), (), (), (2,))
    left = Leave(2)
    opened = closing.opened(selected=())._replace(effect=effect, model=stored.model,
                                                  departing=(2,), events=(left,))
    after = closing.closer.close(opened, MEASURED)
    account = after.model.accounts[2]
    assert not account.member and account.epoch == 1 and after.record.members == 0
    np.testing.assert_array_equal(after.model.reference_sum, np.zeros(40))


@pytest.mark.parametrize("overrides, two_phase", [((), 0), (("sel_clients=2",), 1),
                                                  (("up_budget_bits=100000",), 1)])
def test_a_budget_makes_two_phases(overrides, two_phase):
    case = Case(*overrides)
    state = machine.initial_state(machine.RoundSettings(1, 1, 4, False, False, 12.5, 60.0, 3600.0),
                                  0.0)
    terms = round_terms(case.config, case.model, state)
    assert (terms.two_phase, terms.deadline_s, terms.mean_weight,
            terms.history_sum) == (two_phase, 12.5, 0.0, 0.0)


def test_entropy_coded_uploads_are_decoded_as_others(tmp_path):
    closing = Closing(tmp_path, "entropy_coding=true", "mode=laq", "b_up=16")
    plain = codec.decode(
        codec.from_body(closing.case.proposal.body, closing.case.settings.quantizer, 16,
                        SMALL.sizes), SMALL.sizes)
    assert same_bits(closing.received.upload.innovation, plain)
    closing.store.close()
