"""Whole rounds without a network.

That they are those of a simulation is shown in tests/benchmarks/test_laq_paper.py.
"""

import json
import os

import numpy as np
import pytest

from flq import config as configuration
from flq import keys
from flq.algorithm import play, uplink
from flq.modes import MODES
from flq.parameters import Layout
from flq.records import LocalResult
from tests.algorithm.proposals import decoded
from tests.golden import make
from tests.vectors import same_bits

LAYOUT = Layout(((4, 3), (3,)), ((2,),))
SAMPLES = [30, 10, 25]


def config_of(**values):
    return configuration.build(dict({"lr": 0.5, "b_down": 0}, **values))


def begin(config):
    draw = np.random.RandomState(0)
    return play.begin("run", config, LAYOUT,
                      draw.standard_normal(LAYOUT.num_params).astype(np.float32),
                      np.zeros(2, np.float32), SAMPLES)


def results_of(round_):
    draw = np.random.RandomState(round_ + 1)
    return [
        LocalResult(
            draw.standard_normal(LAYOUT.num_params).astype(np.float32),
            draw.standard_normal(2).astype(np.float32), 1.0, 5) for _ in SAMPLES
    ]


with open(os.path.join(os.path.dirname(os.path.abspath(make.__file__)), "models.json")) as _file:
    GOLDEN = json.load(_file)


def test_every_configuration_gives_the_models_that_it_gave():
    """What stored runs rely on: a round that is computed again gives the hash that was stored."""
    assert json.loads(json.dumps(list(make.models()))) == GOLDEN
    assert {keys["mode"] for keys, _ in GOLDEN} == set(MODES)


@pytest.mark.parametrize("cohorts", [1, 2, 3])
@pytest.mark.parametrize("mode", keys.MODES)
def test_master_and_workers_hold_the_same_references_after_every_round(mode, cohorts):
    config = config_of(mode=mode, total_workers=3, cohorts=cohorts)
    position = begin(config)
    for round_ in range(4 * cohorts):
        turn = play.turn(position, config)
        assert turn == tuple(worker for worker in range(3) if (worker - round_) % cohorts == 0)
        results = [results_of(round_)[worker] for worker in turn]
        played = play.play_round(position, results, config, LAYOUT, lambda samples: 5)
        assert len(played.proposals) == len(turn) and played.closed.model is played.position.model
        position = played.position
        assert position.model.version == round_ + 1
        assert position.model.members == tuple(
            worker for worker in range(3) if worker % cohorts <= round_)
        for worker, held in enumerate(position.uplinks):
            assert held.reference_hash == position.model.accounts[worker].reference_hash
            assert held.clock == position.model.accounts[worker].clock
            assert (held.clock == 0) == (worker in position.model.members)
        if config.flq_algorithm.memory == "reference":
            held = sum(samples * state.memory for samples, state in zip(SAMPLES, position.uplinks))
            assert np.allclose(position.model.reference_sum, held, rtol=1e-12, atol=1e-12)


def test_a_worker_with_no_news_is_silent():
    config = config_of(mode="laq", thr_scale=1e9, C=2)
    position, silent = begin(config), []
    for round_ in range(5):
        played = play.play_round(position, results_of(round_), config, LAYOUT, lambda samples: 5)
        silent.append([proposal.skip for proposal in played.proposals])
        for before, after, proposal in zip(position.uplinks, played.position.uplinks,
                                           played.proposals):
            assert after == proposal.kept if proposal.skip else after == proposal.committed
            assert not proposal.skip or after.clock == before.clock + 1
        position = played.position
    assert silent[0] == [False] * 3 and [True] * 3 in silent and [False] * 3 in silent[1:]


def test_every_outcome_is_the_workers_and_the_masters():
    config = config_of(mode="bbit", memory="reference", weighting="uniform")
    settings, position = uplink.settings_from(config, LAYOUT), begin(config)
    proposals = [
        play.propose(position, worker, result, config, settings)
        for worker, result in enumerate(results_of(0))
    ]
    outcomes = [play.ACCEPTED, play.SKIPPED, play.REFUSED]
    after, closed = play.close(position, list(zip(proposals, outcomes)), config, LAYOUT, settings,
                               lambda samples: 5)
    assert after.uplinks == (proposals[0].committed, proposals[1].kept, proposals[2].kept)
    assert closed.model.members == (0,)
    assert same_bits(closed.model.non_trainable, proposals[0].non_trainable)
    assert same_bits(closed.model.reference_sum,
                     decoded(proposals[0], settings).astype(np.float64), np.float64)
    assert [account.absent for _, account in sorted(closed.model.accounts.items())] == [0, 0, 0]
