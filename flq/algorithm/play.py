"""Whole rounds without a network: master and workers as one value, for experiments on the
algorithm.

    position = begin("run", config, layout, params, non_trainable, num_samples)
    played = play_round(position, [train(position.model, worker)
                                   for worker in turn(position, config)],
                        config, layout, local_steps_of)

What is played is what a simulation with quorum all plays, bit for bit, where every update is
selected. An experiment that proposes or selects in another way calls `lazy_terms` and `close`
itself.
"""

from typing import Callable, NamedTuple, Sequence, Tuple

import numpy as np

from flq import rng
from flq.algorithm import cohorts, uplink
from flq.algorithm import round as rounds
from flq.algorithm.lazy import LazyTerms
from flq.algorithm.model_state import Answers, Closed, ModelState, Upload
from flq.algorithm.uplink import Proposal, UplinkSettings, UplinkState
from flq.compression import codec
from flq.parameters import Layout
from flq.records import LocalResult
from flq.settings import Config

ACCEPTED, SKIPPED, REFUSED = "accepted", "skipped", "refused"


class Position(NamedTuple):
    """Before a round: the master's model, and the state of each worker, by its number."""

    model: ModelState
    uplinks: Tuple[UplinkState, ...]


class Played(NamedTuple):
    """A round: what stands after it, and how it came about. proposals: of each worker whose turn it
    was, one that is silent has no body.
    """

    position: Position
    proposals: Tuple[Proposal, ...]
    closed: Closed


def begin(run_id: str, config: Config, layout: Layout, params: np.ndarray,
          non_trainable: np.ndarray, num_samples: Sequence[int]) -> Position:
    """Version 0, with an account for each worker. num_samples: of worker 0, 1, ..."""
    model = rounds.initial_state(config, layout, params, non_trainable)
    for worker, samples in enumerate(num_samples):
        model = rounds.open_account(model, run_id, worker, samples,
                                    config.flq_algorithm.weighting == "uniform")
    settings = uplink.settings_from(config, layout)
    return Position(
        model,
        tuple(
            uplink.initial_state(settings, layout.num_params, config.flq_algorithm.b_up,
                                 model.accounts[worker].reference_hash)
            for worker in range(len(num_samples))))


def lazy_terms(config: Config, model: ModelState, worker: int) -> LazyTerms:
    """What the lazy rule of a worker reads in the round that starts from this model."""
    lazy, mean = config.lazy_selection, model.mean_weight
    return LazyTerms(lazy.thr_scale, rounds.history_sum(config.lazy_selection,
                                                        model), lazy.C, lazy.warmup, lazy.lazy_eps,
                     model.accounts[worker].weight / mean if mean > 0 else 1.0)


def turn(position: Position, config: Config) -> Tuple[int, ...]:
    """The workers whose turn the open round is."""
    return tuple(worker for worker in range(len(position.uplinks))
                 if cohorts.plays(worker, position.model.version, config.system.cohorts))


def propose(position: Position, worker: int, result: LocalResult, config: Config,
            settings: UplinkSettings) -> Proposal:
    """What a worker answers to the round, from what its training gave."""
    round_ = position.model.version
    draw = rng.Stream(config.dataset.seed, rng.UPLINK, worker, round_).uniform
    return uplink.propose(position.uplinks[worker], result, round_, settings,
                          lazy_terms(config, position.model, worker), draw)


def close(position: Position, answers: Sequence[Tuple[Proposal, str]], config: Config,
          layout: Layout, settings: UplinkSettings,
          local_steps_of: Callable[[int], int]) -> Tuple[Position, Closed]:
    """Close a round with the proposal of each worker whose turn it is and what became of it:
    ACCEPTED, SKIPPED or REFUSED.

    settings: how an accepted body is read. local_steps_of(num_samples): for the server rate, as
    close_round takes it.
    """
    answered, uploads = dict(zip(turn(position, config), answers)), []
    for worker, (proposal, outcome) in answered.items():
        if outcome == ACCEPTED:
            assert proposal.body is not None, "nobody accepts a silence"
            history = uplink.history(settings, position.model.accounts[worker].activity)
            encoded = codec.from_body(proposal.body, settings.quantizer, proposal.bits,
                                      settings.sizes, history)
            uploads.append(
                Upload(worker, codec.decode(encoded, settings.sizes), proposal.non_trainable,
                       proposal.committed.reference_hash, proposal.gain,
                       codec.next_activity(history, encoded)))
    skipped = tuple(worker for worker, (_, outcome) in answered.items() if outcome == SKIPPED)
    refused = tuple((worker, proposal.gain) for worker, (proposal, outcome) in answered.items()
                    if outcome == REFUSED)
    closed = rounds.close_round(position.model, Answers(tuple(uploads), skipped, refused, ()),
                                config, layout, local_steps_of)
    uplinks = list(position.uplinks)
    for worker, (proposal, outcome) in answered.items():
        uplinks[worker] = uplink.settle(proposal, outcome == ACCEPTED)
    return Position(closed.model, tuple(uplinks)), closed


def play_round(position: Position, results: Sequence[LocalResult], config: Config, layout: Layout,
               local_steps_of: Callable[[int], int]) -> Played:
    """One round in which every worker whose turn it is answers and whatever it offers is selected.
    results: of these workers, in order.
    """
    settings = uplink.settings_from(config, layout)
    proposals = tuple(
        propose(position, worker, result, config, settings)
        for worker, result in zip(turn(position, config), results))
    answers = [(proposal, SKIPPED if proposal.skip else ACCEPTED) for proposal in proposals]
    after, closed = close(position, answers, config, layout, settings, local_steps_of)
    return Played(after, proposals, closed)
