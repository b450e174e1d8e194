"""A simulation whose rounds wait for the caller: every round is shown once, complete, and nobody
trains beyond it meanwhile.
"""

import signal
import threading

import pytest

from flq import config
from flq.errors import FlqError
from flq.simulation.run import simulate
from tests.system.quadratic import Quadratic


class Noting(Quadratic):
    """Knows the newest round that anybody trained."""

    trained = -1

    def local_update(self, params, non_trainable, worker, round_):
        self.trained = max(self.trained, round_)
        return super().local_update(params, non_trainable, worker, round_)


def played(directory, on_round, *settings, learner=Noting):
    loaded = config.load(None, ["quorum=all", "max_rounds=4", "total_workers=3", *settings]).config
    made = learner(loaded)
    _, run = simulate(loaded, str(directory), made, take_signals=False,
                      on_round=lambda record: on_round(record, made))
    return run


@pytest.mark.parametrize("settings", [(), ("sel_clients=1",), ("thr_scale=1", "C=2"),
                                      ("eval_every=3",), ("cohorts=2",),
                                      ("cohorts=3", "sel_clients=1")], ids=str)
def test_the_caller_sees_what_the_run_keeps_before_anybody_trains_on(tmp_path, settings):
    seen, handlers = [], (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))

    def on_round(record, learner):
        assert threading.current_thread() is threading.main_thread(
        ) and learner.trained == record.round
        seen.append(record.to_json())

    run = played(tmp_path / "run", on_round, *settings)
    assert seen == run.rounds and len(seen) == 4
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    plain = simulate(
        config.load(None, ["quorum=all", "max_rounds=4", "total_workers=3", *settings]).config,
        str(tmp_path / "plain"), Noting(config.load(None, ["total_workers=3"]).config),
        take_signals=False)[1]
    assert [row["params_hash"] for row in plain.rounds] == [row["params_hash"] for row in seen]


@pytest.mark.parametrize("settings", [(), ("sel_clients=1",), ("cohorts=2",),
                                      ("quorum=deadline", "min_workers=3")], ids=str)
@pytest.mark.parametrize("last", [0, 2])
def test_false_ends_it_there(tmp_path, settings, last):
    learners = []

    def on_round(record, learner):
        learners.append(learner)
        return record.round != last

    run = played(tmp_path / "run", on_round, "max_rounds=1000000", *settings)
    assert run.summary["phase"] == "STOPPED" and len(run.rounds) == last + 1 == len(learners)
    assert learners[0].trained == last


class Broken(Noting):
    def local_update(self, params, non_trainable, worker, round_):
        if (worker, round_) == (1, 2):
            raise MemoryError("no room for the batch")
        return super().local_update(params, non_trainable, worker, round_)


def test_a_worker_that_fails_ends_it(tmp_path):
    seen = []
    with pytest.raises(FlqError):
        played(tmp_path / "run", lambda record, _: seen.append(record.round), learner=Broken)
    assert seen == [0, 1]
