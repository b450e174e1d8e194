"""A run out of its store: from the newest checkpoint that is whole, and the same bits as without
one.
"""

import json
import os
import sqlite3

import numpy as np
import pytest

from flq import config
from flq.algorithm import uplink
from flq.algorithm.model_state import Account, ModelState
from flq.algorithm.server_optimizers import configured
from flq.master.run.recovery import Replayer, first_model, pack_checkpoint, unpack_checkpoint
from flq.master.store.run_store import RunStore, StoreError
from flq.parameters import params_hash
from tests import golden
from tests.master.hands import RUN_ID
from tests.master.test_service import ALL, DEADLINE

with open(os.path.join(os.path.dirname(golden.__file__), "checkpoints.json"),
          encoding="ascii") as file:
    OLD_CHECKPOINTS = json.load(file)


class Counting:
    """Which rounds were computed again."""

    def __init__(self):
        self.rounds = []

    def __call__(self, stored, closed):
        self.rounds.append(stored.record.round)


@pytest.fixture
def stored(start):
    """(run of five rounds, whose service is closed; its models by version)."""
    run = start(*ALL)
    hands, models = run.hands(0, 1, 2), {}
    for round_ in range(5):
        run.play(*hands)
        models[round_ + 1] = run.service.run.model
    run.close()
    return run, models


def recover(run, **options):
    store, counting = RunStore(run.directory), Counting()
    try:
        settings = uplink.settings_from(run.config, run.learner.layout)
        first = first_model(run.config, run.learner, store)
        replayer = Replayer(RUN_ID, store, run.learner.layout, settings)
        return replayer.recover(run.config, first, compare=counting,
                                **options).model, counting.rounds
    finally:
        store.close()


def add_checkpoints(run, models, *versions):
    store = RunStore(run.directory)
    for version in versions:
        store.add_checkpoint(version, *pack_checkpoint(models[version]))
    store.close()


def spoil(run, statement, *values):
    with sqlite3.connect(run.directory / "run.db") as database:
        database.execute(statement, values)


def same(left, right):
    vectors = ("params", "broadcast", "non_trainable", "reference_sum")
    without = dict.fromkeys((*vectors, "optimizer", "average", "observed", "robust"))
    if left.observed is not None and right.observed is not None:
        sketches, others = left.observed.sketches, right.observed.sketches
        assert left.observed._replace(sketches={}) == right.observed._replace(sketches={})
        assert sorted(sketches) == sorted(others)
        for worker, sketched in sketches.items():
            np.testing.assert_array_equal(sketched, others[worker])
    else:
        assert left.observed is right.observed is None
    assert left._replace(**without) == right._replace(**without)
    for name in vectors:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert (left.average is None) == (right.average is None)
    for of_left, of_right in zip(left.average or (), right.average or ()):
        np.testing.assert_array_equal(of_left, of_right)
    assert (left.robust is None) == (right.robust is None)
    if left.robust is not None:
        np.testing.assert_array_equal(left.robust.center, right.robust.center)
        assert sorted(left.robust.references) == sorted(right.robust.references)
        for worker, reference in left.robust.references.items():
            assert reference.dtype == np.float64
            np.testing.assert_array_equal(reference, right.robust.references[worker])
    for of_left, of_right in zip(left.optimizer, right.optimizer):
        np.testing.assert_array_equal(of_left, of_right)


def test_a_state_is_unpacked_as_it_was_packed(stored):
    _, models = stored
    same(unpack_checkpoint(pack_checkpoint(models[5])[1]), models[5])


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_a_checkpoint_that_an_older_version_wrote_is_read(name):
    """Written when an optimiser's state was a list of vectors and a list of powers, neither with a
    name.
    """
    optimizer = configured(
        config.build({"server_optimizer": name, "momentum": 0.5, "adam_beta2": 0.75}).model)
    kept = optimizer.init(3)
    for v in ([1, -2, 4], [0.5, 0.25, -8]):
        _, kept = optimizer.apply(kept, np.array(v, np.float32))
    broadcast, non_trainable = np.array([0.25, -1, 2], np.float32), np.array([7], np.float32)
    expected = ModelState(
        2, np.array([0.5, -1.5, 2], np.float32), broadcast, non_trainable,
        params_hash(broadcast, non_trainable), kept, np.array([0.125, 0.5, -3]), (2.5, 21.0), {
            0: Account(10.0, 10, 0, bytes(range(32)), 0, True, 0), 3: Account(
                4.0, 4, 1, bytes(32), 2**31 - 1, False, 2)
        })
    for data in (bytes.fromhex(OLD_CHECKPOINTS[name]), pack_checkpoint(expected)[1]):
        same(unpack_checkpoint(data), expected)


@pytest.mark.parametrize("settings", [("mode=laq",), ("mode=bbit",)])
def test_a_checkpoint_has_what_a_rule_against_bad_workers_keeps(start, settings):
    run = start(*ALL, *settings, "aggregation=centered_clipping")
    first = run.service.run.model
    same(unpack_checkpoint(pack_checkpoint(first)[1]), first)
    hands = run.hands(0, 1, 2)
    for _ in range(3):
        run.play(*hands)
    model = run.service.run.model
    run.close()
    assert bool(model.robust.references) == (settings == ("mode=laq",))
    same(unpack_checkpoint(pack_checkpoint(model)[1]), model)


def test_a_checkpoint_has_the_history_of_the_broadcasts(start):
    run = start(*ALL, "downlink=rd", "entropy_coding_down=context")
    hands = run.hands(0, 1, 2)
    for _ in range(4):
        run.play(*hands)
    model = run.service.run.model
    run.close()
    assert model.activity.max() > 0
    kept = unpack_checkpoint(pack_checkpoint(model)[1])
    assert kept.activity.dtype == np.uint8 and kept.activity.tolist() == model.activity.tolist()
    same(kept._replace(activity=None), model._replace(activity=None))
    add_checkpoints(run, {4: model}, 4)
    for checkpoints in (True, False):
        recovered, computed = recover(run, checkpoints=checkpoints)
        assert recovered.activity.tolist() == model.activity.tolist()
        assert computed == ([] if checkpoints else [0, 1, 2, 3])


def test_a_checkpoint_has_the_histories_of_the_uploads(start):
    """Also where one of them began anew with a reset."""
    run = start(*DEADLINE, "mode=rd", "b_up=16", "entropy_coding=context")
    hands = run.hands(0, 1, 2)
    run.play(hands[0])  # who was there when round 0 opened
    run.play(*hands)
    hands[2].leave()
    hands[2] = run.hand(2)
    run.play(*hands[:2])  # it was not there when this round opened
    run.play(*hands)
    model = run.service.run.model
    run.close()
    histories = {worker: account.activity for worker, account in model.accounts.items()}
    assert [hand.uplink.activity.tolist() for hand in hands] != [[0] * 40] * 3
    assert model.accounts[2].epoch == 1 and hands[2].uplink.activity.max() > 0
    kept = unpack_checkpoint(pack_checkpoint(model)[1])
    add_checkpoints(run, {4: model}, 4)
    for recovered in (kept, *(recover(run, checkpoints=found)[0] for found in (True, False))):
        assert list(recovered.accounts) == list(model.accounts)
        for worker, account in recovered.accounts.items():
            assert account.activity.dtype == np.uint8
            assert account.activity.tolist() == histories[worker].tolist()
            assert account._replace(activity=None) == model.accounts[worker]._replace(activity=None)


def test_recovery_starts_from_the_newest_checkpoint_and_gives_the_same_state(stored):
    run, models = stored
    model, computed = recover(run)
    same(model, models[5])
    assert computed == [0, 1, 2, 3, 4]
    add_checkpoints(run, models, 2, 4)
    model, computed = recover(run)
    same(model, models[5])
    assert computed == [4]
    assert recover(run, checkpoints=False)[1] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("untested, computed", [([1, 3], [2, 3, 4]), ([2], [2, 3, 4]), ([3], [4]),
                                                ([4], [4]), ([0], [4])])
def test_recovery_starts_before_a_model_that_is_still_to_be_tested(stored, untested, computed):
    """Tests wait while rounds close and checkpoints are written.

    A round before all kept checkpoints stays without its test.
    """
    run, models = stored
    add_checkpoints(run, models, 2, 4)
    assert recover(run, untested=untested)[1] == computed


def test_a_damaged_checkpoint_is_passed_over(stored):
    run, models = stored
    add_checkpoints(run, models, 2, 4)
    spoil(run, "UPDATE checkpoints SET data = substr(data, 1, 100) WHERE version = 4")
    model, computed = recover(run)
    same(model, models[5])
    assert computed == [2, 3, 4]
    spoil(run, "UPDATE checkpoints SET sha256 = x'00' WHERE version = 2")
    assert recover(run)[1] == [0, 1, 2, 3, 4]


def test_a_round_that_gives_another_model_is_named(stored):
    run, _ = stored
    spoil(run, "UPDATE rounds SET record = replace(record, ?, ?) WHERE round = 3",
          run.service.run.history.rows()[3].params_hash, "0" * 16)
    with pytest.raises(StoreError, match="round 3 of .* gives another model than it did"):
        recover(run)


def test_an_upload_that_is_gone_is_named(stored):
    run, _ = stored
    spoil(run, "UPDATE answers SET frame = NULL WHERE round = 2 AND worker = 1")
    with pytest.raises(StoreError, match="round 2: the upload of worker 1 is not in the store"):
        recover(run)
