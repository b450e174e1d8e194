"""A run out of its store, for the master that goes on with it or begins it."""

from __future__ import annotations

import logging
from typing import Callable, NamedTuple

from flq.algorithm import robust, uplink
from flq.algorithm.model_state import ModelState
from flq.algorithm.round import Start, at_once
from flq.learning.interface import Learner
from flq.master.run.broadcasts import Broadcasts
from flq.master.run.checks import check_budget
from flq.master.run.closing import RoundCloser
from flq.master.run.history import History
from flq.master.run.recovery import Replayer, changed_config, first_model
from flq.master.run.run import Run, is_tested
from flq.master.store.run_store import RunStore
from flq.parameters import constants_hash
from flq.protocol.frames import Expected
from flq.settings import Config

_log = logging.getLogger("flq.master")

# rounds that a master looks back over for tests that the one before it did not come to
_LONGEST_UNTESTED = 100


class Opened(NamedTuple):
    """A run, what closes its rounds, and the models that the last master did not come to test, by
    round.
    """

    run: Run
    closer: RoundCloser
    untested: dict[int, ModelState]


def recover(config: Config, learner: Learner, store: RunStore, run_id: str,
            wire: Callable[[], tuple[int, int]] | None, now: float,
            start: Start = at_once) -> Opened:
    """config: what the run was started with. start: of the RoundCloser.

    Raises ConfigError for a budget that no upload can meet and for references that take too much
    memory, StoreError for a damaged store.
    """
    layout = learner.layout
    settings = uplink.settings_from(config, layout)
    check_budget(config, settings, layout)
    robust.check_room(config, layout.num_params)
    if uplink.wants_history(config) and not settings.keeps_history:
        _log.warning(
            "flq_algorithm.entropy_coding counts as true: histories of %d workers with %d weights "
            "take more than the %d MiB of system.master_side_information_mb",
            config.system.total_workers, layout.num_params,
            config.system.master_side_information_mb)
    if layout.num_constants:
        _keep_constants(learner, store)
    history, first = History(store, wire), first_model(config, learner, store)
    in_force = changed_config(config, store)  # a run that was made shorter has another last model
    untested = history.untested(lambda record: is_tested(in_force, record), _LONGEST_UNTESTED)
    # the last master died while it closed the round before the one that it had named
    store.move_removals(len(history))
    recovered = Replayer(run_id, store, layout, settings).recover(config, first, untested=untested)
    expected = Expected(run_id, layout, settings.sizes, settings.quantizer)
    broadcasts = Broadcasts(expected, config.system.cohorts)
    run = Run(run_id, config, learner, store, history, recovered, first, broadcasts, now)
    closer = RoundCloser(run_id, config, store, broadcasts, settings, expected, start)
    return Opened(run, closer, recovered.untested)


def _keep_constants(learner: Learner, store: RunStore) -> None:
    """The frozen layers keep the values that the run began with, also where the model's function
    draws others now.
    """
    kept = store.constants()
    if kept is None:
        store.add_constants(learner.constants)
    elif learner.hold_constants(constants_hash(kept), lambda: kept):
        _log.info(
            "the frozen layers have the values that the run began with: this process had drawn "
            "others"
        )
