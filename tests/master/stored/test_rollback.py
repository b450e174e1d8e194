"""A removal that heals, and a run that goes back to an earlier round."""

import numpy as np
import pytest

from flq.errors import ConfigError
from flq.master.store.events import ORDERS, KeyChange, Remove, Rollback
from flq.master.store.run_store import RunStore, StoreError
from flq.master.stored.audit import replay
from flq.master.stored.compaction import compact
from flq.master.stored.rollback import rollback
from flq.revoked import login_name
from tests.system.quadratic import Quadratic

FOUR = ("total_workers=4", "quorum=all", "max_rounds=12", "max_norm_ratio=0")


def spoil(run, hands):
    """Three honest rounds, and one in which worker 3 sends 1e18."""
    for _ in range(3):
        run.play(*hands)
    good = run.service.run.model
    for hand in hands:
        hand.train(1e18 if hand.worker == 3 else None)
        hand.upload()
    run.wait_for_round(4)
    for hand in hands:
        hand.settle()
    return good


def test_a_removal_leaves_the_sum_of_the_references_of_the_others(start):
    """Subtracting would leave what 1e18 had swallowed."""
    run = start(*FOUR)
    hands = run.hands(0, 1, 2, 3)
    spoil(run, hands)
    run.service.remove(3)
    run.play(*hands[:3])
    total = np.zeros_like(run.service.run.model.reference_sum)
    for hand in hands[:3]:
        total += np.multiply(hand.uplink.memory, hand.weight, dtype=np.float64)
    np.testing.assert_allclose(run.service.run.model.reference_sum, total, rtol=1e-12)
    model = run.service.run.model.params_hash.hex()
    run.close()
    assert replay(run.directory, Quadratic, False, lambda line: None,
                  lambda *_: None) == model


@pytest.mark.parametrize("cut", [False, True])
def test_with_a_rule_a_removed_workers_reference_is_gone_without_a_trace(start, cut):
    """There is no sum that could have swallowed the others' references, before a kill or after."""
    settings = (*FOUR, "aggregation=centered_clipping")
    run = start(*settings)
    hands = run.hands(0, 1, 2, 3)
    spoil(run, hands)
    run.service.remove(3)
    if cut:
        run.close()
        run = start(*settings)
        hands = [run.hand(hand.worker, like=hand) for hand in hands[:3]]
    run.play(*hands[:3])
    model = run.service.run.model
    assert sorted(model.robust.references) == [0, 1, 2]
    for hand in hands[:3]:
        np.testing.assert_array_equal(model.robust.references[hand.worker], hand.uplink.memory)
    run.close()
    assert replay(run.directory, Quadratic, False, lambda line: None,
                  lambda *_: None) == model.params_hash.hex()


def test_a_removal_heals_too_when_the_master_was_killed_before_the_round_closed(start):
    sums = []
    for name in ("whole", "cut"):
        run = start(*FOUR, name=name)
        hands = run.hands(0, 1, 2, 3)
        spoil(run, hands)
        run.service.remove(3)
        if name == "cut":
            run.close()
            run = start(*FOUR, name=name)
            hands = [run.hand(hand.worker, like=hand) for hand in hands[:3]]
        run.play(*hands[:3])
        sums.append(run.service.run.model.reference_sum)
    np.testing.assert_array_equal(*sums)


@pytest.mark.parametrize("without", [(), (3,)])
@pytest.mark.parametrize("settings", [(), ("cohorts=2",), ("mode=bbit",),
                                      ("server_optimizer=adam",), ("aggregation=median",),
                                      ("aggregation=centered_clipping",),
                                      ("entropy_coding_down=context",)])
def test_a_run_goes_on_from_an_earlier_model(start, without, settings):
    run = start(*FOUR, *settings)
    if "cohorts=2" in settings:
        hands = run.hands(0, 1, 2, 3)
        for _ in range(4):
            run.play(*(hand for hand in hands if hand.worker % 2 == run.state.round % 2))
    else:
        hands = run.hands(0, 1, 2, 3)
        spoil(run, hands)
    run.close()
    assert rollback(run.directory, Quadratic, 2, without) == 5
    again = start(*FOUR, *settings)
    model, rows = again.service.run.model, again.service.run.history.rows()
    assert model.params_hash.hex() == rows[1].params_hash == rows[4].params_hash
    assert model.members == () and again.state.round == 5 and again.state.removed == set(without)
    assert again.service.run.config.system.max_rounds == 12 + 3, "as many are left as there were"
    orders = [event for event in again.store.events() if isinstance(event, ORDERS)]
    kinds = [Rollback] + [Remove] * len(without) + [KeyChange]
    assert [type(event) for event in orders] == kinds and orders[0].round == 2
    assert [event.worker for event in orders[1:-1]] == list(without)
    assert {event.by for event in orders} == {f"{login_name()}@local"} and orders[0].at > 1.6e9
    hands = [again.hand(hand.worker, like=hand) for hand in hands if hand.worker not in without]
    for hand in hands:
        assert np.asarray(hand.uplink.memory if hand.uplink.memory is not None else 0).any() == 0
    for _ in range(3):
        turn = [hand for hand in hands
                if "cohorts=2" not in settings or hand.worker % 2 == again.state.round % 2]
        again.play(*turn)
    last = again.service.run.model.params_hash.hex()
    again.close()
    assert replay(run.directory, Quadratic, False, lambda line: None,
                  lambda *_: None) == last
    once_more = start(*FOUR, *settings)
    assert once_more.service.run.model.params_hash.hex() == last


def test_a_run_can_go_back_twice_and_after_its_end(start):
    run = start(*FOUR)
    hands = run.hands(0, 1, 2, 3)
    for _ in range(12):
        run.play(*hands)
    run.close()
    assert rollback(run.directory, Quadratic, 11) == 13
    assert rollback(run.directory, Quadratic, 5) == 14
    again = start(*FOUR)
    assert not again.service.run.is_over
    rows = again.service.run.history.rows()
    assert rows[13].params_hash == rows[4].params_hash
    assert again.service.run.config.system.max_rounds == 12 + 2 + 9
    again.close()
    replay(run.directory, Quadratic, False, lambda line: None,
                  lambda *_: None)


def test_a_step_back_without_room_for_a_checkpoint_is_one(start, monkeypatch):
    """Its round is stored by then: who took it for a failure would go back twice."""
    run = start(*FOUR)
    hands = run.hands(0, 1, 2, 3)
    for _ in range(4):
        run.play(*hands)
    run.close()

    def full(store, version, digest, data):
        raise StoreError("cannot write", got="database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "add_checkpoint", full)
        assert rollback(run.directory, Quadratic, 2) == 5
    again = start(*FOUR)
    rows = again.service.run.history.rows()
    assert len(rows) == 5 and rows[4].params_hash == rows[1].params_hash
    assert again.service.run.model.params_hash.hex() == rows[4].params_hash


def test_rounds_that_are_not_there_are_refused(start):
    run = start(*FOUR)
    hands = run.hands(0, 1, 2, 3)
    for _ in range(4):
        run.play(*hands)
    run.close()
    with pytest.raises(ConfigError, match="0 to 4; got 5"):
        rollback(run.directory, Quadratic, 5)
    with pytest.raises(ConfigError, match="worker 9 is not in this run"):
        rollback(run.directory, Quadratic, 1, (9,))
    compact(run.directory, Quadratic)
    with pytest.raises(ConfigError, match="4 to 4; got 2"):
        rollback(run.directory, Quadratic, 2)
