"""The rows of a run: those that may still change in memory, the older ones in the store, and nobody
can tell which is where.
"""

import numpy as np
import pytest

from flq.master.run import history
from flq.master.store.run_store import RunStore
from flq.records import Evaluation
from tests.master.store.test_run_store import META, commit_of
from tests.master.test_service import ALL

ROUNDS = 9
UNMEASURED = {"round_time_s": 0.0, "closed_at": 0.0}


def rows_of(run, since=0):
    return [record._replace(**UNMEASURED) for record in run.service.run.history.rows(since)]


def play(run, hands, rounds):
    for _ in range(rounds):
        run.play(*hands)
        round_ = run.state.round - 1
        run.wait(lambda _, round_=round_: run.service.run.history.row(round_).accuracy is not None,
                 "it is tested")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(history, "WINDOW", 3)


def test_a_short_memory_shows_what_a_long_one_does(start, monkeypatch):
    settings = (*ALL, f"system.max_rounds={ROUNDS}", "logging.eval_every=1")
    whole = start(*settings, name="whole")
    play(whole, whole.hands(0, 1, 2), ROUNDS)
    monkeypatch.setattr(history, "WINDOW", 3)
    run = start(*settings, name="cut")
    play(run, run.hands(0, 1, 2), ROUNDS)
    assert rows_of(run) == rows_of(whole) and len(run.service.run.history) == ROUNDS
    for since in range(ROUNDS + 1):
        assert rows_of(run, since) == rows_of(whole)[since:]
    assert [run.service.run.history.row(round_).version for round_ in range(ROUNDS)] == list(
        range(1, ROUNDS + 1))
    assert run.service.run.history.newest_tested == run.service.run.history.row(ROUNDS - 1)
    run.close()
    again = start(*settings, name="cut")
    assert rows_of(again) == rows_of(whole)
    assert again.service.run.history.newest_tested.round == ROUNDS - 1
    assert again.service.run.history.accounting.to_json(
        None) == whole.service.run.history.accounting.to_json(None)


def test_a_run_goes_on_with_a_short_memory(start, small):
    settings = (*ALL, f"system.max_rounds={ROUNDS}", "logging.eval_every=1")
    run = start(*settings, name="cut")
    hands = run.hands(0, 1, 2)
    play(run, hands, 5)
    before = rows_of(run)
    run.close()
    again = start(*settings, name="cut")
    hands = [again.hand(worker, like=hands[worker]) for worker in range(3)]
    play(again, hands, ROUNDS - 5)
    assert rows_of(again)[:4] == before[:4], "and row 4 grew when its model was fetched"
    assert len(again.service.run.history) == ROUNDS


def test_what_is_final_is_not_changed_any_more(start, small):
    run = start(*ALL, f"system.max_rounds={ROUNDS}", "logging.eval_every=1")
    play(run, run.hands(0, 1, 2), 5)
    found = run.service.run.history
    oldest = found.row(0)
    with run.service.locked():
        found.tested(0, Evaluation(0.0, 9.0, 10))
        assert not found.mark_late(1, 0)
    assert found.row(0) == oldest and found.newest_tested.round == 4


def test_rows_of_before_the_window_was_there_are_read_too(tmp_path, small):
    """The oldest stores have no final rows: what stood there when the round closed counts."""
    store = RunStore(tmp_path / "old", META)
    try:
        for round_ in range(4):
            store.commit_round(commit_of(round_))
        store._db.execute("DROP TABLE final_records")
    finally:
        store.close()
    store = RunStore(tmp_path / "old")
    try:
        assert [record.round for record in store.records(1, 3)] == [1, 2]
        store.add_evaluation(2, Evaluation(0.5, float(np.float32(0.25)), 10))
        assert [record.accuracy for record in store.records(1)] == [None, 0.5, None]
    finally:
        store.close()
