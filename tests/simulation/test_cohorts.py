"""A simulation in cohorts is what whole rounds without a network are (flq/algorithm/play.py)."""

import pytest

from flq import config
from flq.algorithm import play
from flq.learning.batches import local_steps_of
from tests.system.quadratic import Quadratic, simulate_here


@pytest.mark.parametrize("case", [
    "total_workers=5 cohorts=2 mode=laq thr_scale=30 local_lr=0.2",
    "total_workers=5 cohorts=3 mode=rd server_optimizer=momentum weighting=uniform",
    "total_workers=4 cohorts=4 mode=bbit correction=bids", "total_workers=3 cohorts=2 mode=qsgd",
    "total_workers=3 cohorts=1 mode=laq"
])
def test_a_simulation_plays_the_rounds_of_play(tmp_path, case):
    settings = ["max_rounds=9", "quorum=all", *case.split()]
    rounds, rows = simulate_here(tmp_path / "run", settings)
    loaded = config.load(None, settings).config
    learner, workers = Quadratic(loaded), range(loaded.system.total_workers)
    run_id = "the chains are not compared"
    position = play.begin(run_id, loaded, learner.layout, *learner.initial(),
                          [learner.num_samples(worker) for worker in workers])
    for record in rounds:
        turn, model = play.turn(position, loaded), position.model
        results = [
            learner.local_update(model.broadcast, model.non_trainable, worker, model.version)
            for worker in turn
        ]
        played = play.play_round(position, results, loaded, learner.layout,
                                 lambda n: local_steps_of(loaded, n))
        position = played.position
        assert record["params_hash"] == position.model.params_hash.hex()
        assert (record["rho"], record["direction_norm2"]) == (played.closed.rho,
                                                              played.closed.direction_norm2)
        silent = [worker for worker, proposal in zip(turn, played.proposals) if proposal.skip]
        assert list(record["skipped"]) == silent
        assert sorted(record["selected"] + record["skipped"]) == list(turn)
    clocks = {row["worker"]: row["clock"] for row in rows}
    assert clocks == {worker: state.clock for worker, state in enumerate(position.uplinks)}
    assert ("skipped" in {row["state"] for row in rows}) == ("thr_scale" in case)
