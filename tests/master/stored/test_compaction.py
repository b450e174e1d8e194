"""A compacted run goes on, is recovered and audited as the one that was not; a kill leaves it whole
or untouched.
"""

import contextlib

import numpy as np
import pytest

from flq.errors import ConfigError
from flq.host import crash_points
from flq.master.process import run_meta
from flq.master.store.run_store import RunStore, StoreError
from flq.master.stored.audit import replay
from flq.master.stored.compaction import compact
from tests.master import hands as hands_of_tests
from tests.master.test_service import ALL, DEADLINE, check_sums
from tests.system.quadratic import Quadratic

HISTORY = ("mode=rd", "b_up=16", "entropy_coding=context")


def size_of_frames(store):
    return [sum(len(answer.frame or b"") for answer in stored.answers) for stored in store.rounds()]


def hashes(run):
    return [record.params_hash for record in run.service.run.history.rows()]


@pytest.mark.parametrize("settings",
                         [ALL, (*ALL, "memory_rate=0.3"), (*ALL, "mode=bbit"),
                          (*ALL, "mode=qsgd", "model.name=softmax"),
                          (*ALL, "aggregation=median"),
                          (*ALL, "aggregation=centered_clipping", "memory_rate=0.4"),
                          (*ALL, *HISTORY), (*ALL, *HISTORY, "memory=residual")])
def test_a_compacted_run_ends_as_the_one_that_was_not(start, tmp_path, settings):
    whole = start(*settings, name="whole")
    hands = whole.hands(0, 1, 2)
    for _ in range(6):
        whole.play(*hands)
    run = start(*settings, name="run")
    hands = run.hands(0, 1, 2)
    for round_ in range(6):
        run.play(*hands)
        if round_ in (2, 4):  # twice: the second starts from the first
            run.close()
            assert compact(tmp_path / "run", Quadratic) == round_ + 1
            run = start(*settings, name="run")
            assert size_of_frames(
                run.store) == [0] * (round_ + 1) and run.store.compacted() == round_ + 1
            hands = [run.hand(worker, like=hands[worker]) for worker in range(3)]
    assert hashes(run) == hashes(whole)
    np.testing.assert_array_equal(run.service.run.model.params, whole.service.run.model.params)
    run.close()
    said = []
    rounds = []
    assert replay(tmp_path / "run", Quadratic, False, said.append,
                  lambda *row: rounds.append(row)) == hashes(whole)[-1]
    assert said[0].startswith("rounds before 5 were compacted") and len(said) == 1
    assert rounds == [(6, 6, f"round 5: {hashes(whole)[-1]} as recorded")]


@pytest.mark.parametrize("settings", [(), HISTORY])
def test_a_member_that_leaves_after_it_takes_its_whole_reference_along(start, tmp_path, settings):
    run = start(*DEADLINE, *settings)
    hands = run.hands(0, 1)
    run.play(hands[0])
    for _ in range(3):
        run.play(*hands)
    run.close()
    compact(tmp_path / "run", Quadratic)
    committed, run = run.committed, start(*DEADLINE, "min_workers=2", *settings)
    run.committed = committed
    hands = [run.hand(worker, like=hands[worker]) for worker in (0, 1)]
    run.play(*hands)
    hands[1].leave()
    hands[1] = run.hand(1)
    run.play(*hands)
    check_sums(run, hands)


def test_a_run_that_an_older_version_began_is_computed_as_it_was(start, tmp_path, monkeypatch):
    """Its h_m were sums in float32, also those that a compaction kept, and a departure left what
    their roundings had left.
    """
    monkeypatch.setattr(hands_of_tests, "run_meta", lambda *told: {
        key: value for key, value in run_meta(*told).items() if key != "references"})
    run = start(*DEADLINE, "min_workers=1")
    hands = run.hands(0, 1)
    for _ in range(3):
        run.play(*hands)
    run.close()
    compact(tmp_path / "run", Quadratic)
    with contextlib.closing(RunStore(tmp_path / "run")) as store:
        assert len(store.reference(0, 0)) == 4 * hands[0].params.size
    run = start(*DEADLINE, "min_workers=1")
    hands = [run.hand(worker, like=hands[worker]) for worker in (0, 1)]
    run.play(*hands)
    for hand in hands:
        hand.leave()
    hands = [run.hand(0)]
    run.play(*hands)
    sums = run.service.run.model.reference_sum
    assert np.abs(sums -
                  hands[0].weight * hands[0].uplink.memory).max() > 0, "float32 left something"
    run.close()
    assert replay(tmp_path / "run", Quadratic, False, [].append, print) == hashes(run)[-1]
    assert start(*DEADLINE,
                 "min_workers=1").service.run.model.params_hash == run.service.run.model.params_hash


def test_a_run_without_rounds_and_one_that_is_served_stay_as_they_are(start, tmp_path):
    run = start(*ALL)
    with pytest.raises(ConfigError, match="another master uses"):
        compact(tmp_path / "run", Quadratic)
    run.close()
    assert compact(tmp_path / "run", Quadratic) == 0


@pytest.mark.parametrize("point, compacted", [("compact.before", 0), ("compact.after", 3)])
def test_what_is_cut_short_is_done_whole_or_not_at_all(start, tmp_path, monkeypatch, point,
                                                       compacted):
    class Killed(BaseException):
        pass

    def reach(name):
        if name == point:
            raise Killed

    run = start(*ALL)
    hands = run.hands(0, 1, 2)
    for _ in range(3):
        run.play(*hands)
    run.close()
    monkeypatch.setattr(crash_points, "reach", reach)
    with pytest.raises(Killed):
        compact(tmp_path / "run", Quadratic)
    monkeypatch.undo()
    store = RunStore(tmp_path / "run")
    assert store.compacted() == compacted and (size_of_frames(store) == [0, 0, 0
                                                                         ]) == bool(compacted)
    store.close()
    assert start(*ALL).service.run.model.params_hash == run.service.run.model.params_hash


def test_a_damaged_checkpoint_of_a_compacted_run_is_one_line(start, tmp_path):
    run = start(*ALL)
    run.play(*run.hands(0, 1, 2))
    run.close()
    compact(tmp_path / "run", Quadratic)
    store = RunStore(tmp_path / "run")
    store.add_checkpoint(1, bytes(32), b"damaged")
    store.close()
    with pytest.raises(StoreError, match="no checkpoint .* is whole, and it was compacted"):
        start(*ALL)
