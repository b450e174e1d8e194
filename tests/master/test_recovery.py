"""A run out of its store: from the newest checkpoint that is whole, and the same bits as without one."""

import sqlite3

import numpy as np
import pytest

from flq.algorithm import round as rounds
from flq.algorithm import uplink
from flq.master.recovery import Replayer, pack_state, unpack_state
from flq.master.run_store import RunStore, StoreError
from tests.master.hands import RUN_ID
from tests.master.test_service import ALL


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
        first = rounds.initial_state(run.config, run.learner.layout, *run.learner.initial())
        replayer = Replayer(RUN_ID, store, run.learner.layout, settings)
        return replayer.recover(run.config, first, compare=counting, **options).model, counting.rounds
    finally:
        store.close()


def add_checkpoints(run, models, *versions):
    store = RunStore(run.directory)
    for version in versions:
        store.add_checkpoint(version, *pack_state(models[version]))
    store.close()


def spoil(run, statement, *values):
    with sqlite3.connect(run.directory / "run.db") as database:
        database.execute(statement, values)


def same(left, right):
    assert left._replace(**dict.fromkeys(("params", "broadcast", "state", "reference_sum", "optimizer"))) == right._replace(
        **dict.fromkeys(("params", "broadcast", "state", "reference_sum", "optimizer")))
    for name in ("params", "broadcast", "state", "reference_sum"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_a_state_is_unpacked_as_it_was_packed(stored):
    _, models = stored
    same(unpack_state(pack_state(models[5])[1]), models[5])


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


@pytest.mark.parametrize("untested, computed", [([1, 3], [2, 3, 4]), ([2], [2, 3, 4]), ([3], [4]), ([4], [4]), ([0], [4])])
def test_recovery_starts_before_a_model_that_is_still_to_be_tested(stored, untested, computed):
    """Tests wait while rounds close and checkpoints are written. A round before all kept checkpoints stays without its test."""
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
    spoil(run, "UPDATE rounds SET record = replace(record, ?, ?) WHERE round = 3", run.service.run.history.rows()[3].params_hash, "0" * 16)
    with pytest.raises(StoreError, match="round 3 of .* gives another model than it did"):
        recover(run)


def test_an_upload_that_is_gone_is_named(stored):
    run, _ = stored
    spoil(run, "UPDATE answers SET frame = NULL WHERE round = 2 AND worker = 1")
    with pytest.raises(StoreError, match="round 2: the upload of worker 1 is not in the store"):
        recover(run)
