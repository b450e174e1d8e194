"""LAQ's table: what plays the algorithm there is the simulation; the gradient and the search for
the first version.
"""

import concurrent.futures

import numpy as np
import pytest

from benchmarks import laq_paper
from flq import config
from flq.simulation.run import simulate

SAMPLES, PIXELS = 60, 12


@pytest.fixture
def learner():
    random = np.random.RandomState(1)
    return laq_paper.Regression(
        random.randint(0, 256, (SAMPLES, PIXELS)).astype(np.uint8), random.randint(0, 10, SAMPLES))


@pytest.mark.parametrize("name", laq_paper.METHODS)
def test_the_rounds_are_those_of_a_simulation(tmp_path, learner, name):
    rounds = 6
    settings = config.load(
        None, laq_paper.TASK + laq_paper.METHODS[name].split() + [f"max_rounds={rounds}"]).config
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        _, run = executor.submit(simulate, settings, str(tmp_path / "run"), learner).result()
    position, sent, hashes = laq_paper.start(settings, learner), [], []
    for _ in range(rounds):
        position, uploads = laq_paper.play(position, settings, learner)
        sent += uploads
        hashes.append(position.model.params_hash.hex())
    assert hashes == [record["params_hash"] for record in run.rounds]
    assert sum(bits for _, bits in sent) == run.summary["bits"]["up"]["payload"] and len(
        sent) == run.summary["uploads"]


def test_the_gradient_is_that_of_the_loss(learner):
    theta = 0.1 * np.random.RandomState(2).standard_normal(learner.layout.num_params)
    state = np.zeros(0, np.float32)
    updates = [
        learner.local_update(theta.astype(np.float32), state, worker, 0).update
        for worker in range(laq_paper.WORKERS)
    ]
    gradient = np.mean(updates, axis=0)
    direction = np.random.RandomState(3).standard_normal(theta.size)
    slope = (learner.loss(theta + 1e-5 * direction) - learner.loss(theta - 1e-5 * direction)) / 2e-5
    assert float(gradient @ direction) == pytest.approx(slope, rel=1e-4)


def test_nothing_is_below_the_minimum(learner):
    lowest, theta = learner.minimum(), np.zeros(learner.layout.num_params)
    for _ in range(200):
        theta -= laq_paper.RATE * np.mean([
            learner.local_update(theta.astype(np.float32), None, worker, 0).update
            for worker in range(laq_paper.WORKERS)
        ], axis=0)
    assert lowest - 1e-9 <= learner.loss(theta) < learner.loss(np.zeros_like(theta))


@pytest.mark.parametrize("target, found", [(100.0, 0), (0.5, 50), (0.495, 51), (1e-9, None),
                                           (0.0101, 99)])
def test_the_first_version_below_a_loss(target, found):
    assert laq_paper.first_below(100, lambda version: 1.0 - version / 100, target, every=7) == found


def test_a_run_goes_on_where_it_was_kept(tmp_path, learner):
    settings = config.load(None, laq_paper.TASK + laq_paper.METHODS["LAQ"].split()).config
    _, whole = laq_paper.play_all(settings, learner, 130, tmp_path / "whole.part")
    laq_paper.play_all(settings, learner, 100, tmp_path / "part")
    models, counts = laq_paper.play_all(settings, learner, 130, tmp_path / "part")
    assert counts == whole and len(models) == 131
