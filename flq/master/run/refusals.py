"""Which answers of a round are beyond a bound, and by what their workers are flagged (algorithm.md
10).

All of it is decided when the round is closed, from its uploads and what was accepted before. So the
order in which uploads came decides nothing, and the rows say what a replay needs.
"""

from __future__ import annotations

import math
from typing import Callable, Iterable, Mapping

from flq.algorithm import bounds
from flq.algorithm import round as rounds
from flq.algorithm.bounds import Refusal
from flq.algorithm.model_state import ModelState
from flq.algorithm.uplink import UplinkSettings
from flq.kernels import squared_norm
from flq.learning.batches import local_steps_of
from flq.master.run.checks import Received
from flq.master.store.events import Flagged
from flq.protocol import round_machine as machine
from flq.settings import Config

_FAR = 20.0


def flagged_in(effect: machine.Aggregate, state: machine.RoundState, model: ModelState,
               received: Mapping[int, Received], departing: Iterable[int], config: Config,
               settings: UplinkSettings, is_out: Callable[[int, int], bool]) -> tuple[Flagged, ...]:
    """One for each worker that does not get what it asked for, in worker order. received: the
    uploads of effect.selected. is_out: History's.
    """
    found: dict[int, Flagged] = {}

    def flag(worker: int, reason: str, value: float, limit: float) -> None:
        found.setdefault(worker, Flagged(worker, effect.round, reason, value, limit))

    for worker in received:
        if is_out(worker, effect.round):
            flag(worker, bounds.EXPELLED, 0.0, 0.0)
    # A late upload was looked at when it came: its worker was told that it can be taken.
    received = {worker: item for worker, item in received.items() if not item.staleness}
    for refusal in _beyond(model, received, departing, config, settings):
        flag(*refusal)
    if state.granted is not None:
        for worker, item in received.items():
            limit = bounds.GAIN_RATIO * item.norm2
            if settings.memory.bounds_gain and item.option.gain > limit:
                flag(worker, bounds.GAIN, item.option.gain, limit)
        for worker in effect.missing:
            if worker in state.granted:
                flag(worker, bounds.NOT_DELIVERED, 0.0, 0.0)
    return tuple(found[worker] for worker in sorted(found))


def flagged_late(item: Received, model: ModelState, departing: Iterable[int], config: Config,
                 settings: UplinkSettings) -> Flagged | None:
    """The same for an upload of a closed round, which the open one is to take; None where it may.
    """
    found = _beyond(model, {item.bid.worker: item}, departing, config, settings)
    return Flagged(found[0].worker, item.computed_in, *found[0][1:]) if found else None


def weight_share(config: Config) -> float | None:
    """The largest part of all weight that one worker may have, None where nothing bounds it: the
    master deals the samples out itself, or they do not count.
    """
    counts = (config.dataset.partition == "local"
              and config.flq_algorithm.weighting != "uniform")
    return config.security.max_weight_share if counts else None


def _beyond(model: ModelState, received: Mapping[int, Received], departing: Iterable[int],
            config: Config, settings: UplinkSettings) -> list[Refusal]:
    share = config.security.max_weight_share
    found = [
        Refusal(worker, bounds.WEIGHT, model.accounts[worker].num_samples, share)
        for worker in _too_heavy(model, received, config)
    ]
    if model.observed is not None:
        uploads = rounds.examined(model, [item.upload for item in received.values()],
                                  settings.memory)
        found += bounds.refusals(bounds.forget(model.observed, departing), settings.memory, uploads,
                                 config.security.max_norm_ratio,
                                 lambda: _floor(model, config, received))
    return found


def _too_heavy(model: ModelState, received: Mapping[int, Received], config: Config) -> list[int]:
    share = weight_share(config)
    if share is None:
        return []
    weights = {worker: model.accounts[worker].weight for worker in {*model.members, *received}}
    return [worker for worker in bounds.too_heavy(weights, share) if worker in received]


def _floor(model: ModelState, config: Config, received: Mapping[int, Received]) -> float:
    """What is typical before there is anything to compare with: an update whose local steps lead
    _FAR times as far from the model as the model is from 0, at least 1. Honest models that begin
    near 0 go far in their first round, so that this stops only what would destroy any of them.
    """
    steps = [local_steps_of(config, model.accounts[worker].num_samples) for worker in received]
    path = config.model.local_lr * max(steps, default=0)
    far = _FAR * max(1.0, math.sqrt(squared_norm(model.broadcast)))
    return far / path if path else math.inf
