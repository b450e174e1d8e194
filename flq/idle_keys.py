"""Keys that change nothing beside others: who sets one is told so.

`IDLE` has one row for each way in which a key can be without effect.
"""

import collections
import json
from typing import Callable, Dict, Iterator, List, NamedTuple, Set

from flq.config import build, flat
from flq.keys import BY_PATH, RETIRED
from flq.modes import (
    ALWAYS,
    BLOCK,
    CONTEXT,
    MEAN,
    MODES,
    NEVER,
    QUANTIZER_ROWS,
    WITH_REFERENCES,
    Parameter,
    mode_of,
)
from flq.settings import Config


class Idle(NamedTuple):
    """A key changes nothing while `holds(config)`. reason: what holds then."""

    path: str
    holds: Callable[[Config], bool]
    reason: str


def _waits_for_all(config: Config) -> bool:
    return config.system.quorum == "all"


def _starts_with_enough(config: Config) -> bool:
    """With several cohorts min_workers counts one of them, and start_workers all."""
    system = config.system
    return system.cohorts == 1 and (system.start_workers or 1) <= system.min_workers


def _sends_float32_down(config: Config) -> bool:
    return config.flq_algorithm.b_down in (0, 32)


def _is_never_silent(config: Config) -> bool:
    return config.lazy_selection.thr_scale == 0


def _has_no_budget(config: Config) -> bool:
    return not (config.budget_selection.sel_clients or config.budget_selection.up_budget_bits)


def _has_no_references(config: Config) -> bool:
    return config.flq_algorithm.memory not in WITH_REFERENCES


def _takes_the_mean(config: Config) -> bool:
    return config.flq_algorithm.aggregation == MEAN


def _is_not_local(config: Config) -> bool:
    return config.dataset.partition != "local"


def _has_one_step(config: Config) -> bool:
    model = config.model
    return model.local_steps == 1 or (model.local_epochs == 1 and config.dataset.batch_size == 0)


def _mode_is_without(parameter: Parameter) -> Callable[[Config], bool]:
    return lambda config: parameter not in mode_of(config.flq_algorithm.mode).parameters


def _downlink_is_without(parameter: Parameter) -> Callable[[Config], bool]:
    return lambda config: parameter not in MODES[config.flq_algorithm.downlink].parameters


def _is_set(name: str) -> Callable[[Config], bool]:
    return lambda config: getattr(config.flq_algorithm, name) is not None


def _idle_beside_modes() -> Iterator[Idle]:
    """What follows from the table of modes."""
    for row in QUANTIZER_ROWS.values():
        for parameter in row.parameters:
            yield Idle("flq_algorithm." + parameter.name, _mode_is_without(parameter),
                       f"flq_algorithm.mode is not {row.name}")
            if parameter.replaces:
                for way in ("", "_down") if row.down_bits is not None else ("",):
                    yield Idle(f"flq_algorithm.{parameter.replaces}{way}",
                               _is_set(parameter.name + way),
                               f"flq_algorithm.{parameter.name}{way} is set")
            if row.down_bits is not None:
                path = f"flq_algorithm.{parameter.name}_down"
                yield Idle(path, _downlink_is_without(parameter),
                           f"flq_algorithm.downlink is not {row.name}")
                yield Idle(path, _sends_float32_down, "flq_algorithm.b_down is 0 or 32")
    yield Idle("flq_algorithm.entropy_coding",
               lambda config: mode_of(config.flq_algorithm.mode).coding == ALWAYS
               and config.flq_algorithm.entropy_coding is False, "the mode is always coded")
    yield Idle("flq_algorithm.entropy_coding",
               lambda config: mode_of(config.flq_algorithm.mode).coding == NEVER,
               "the mode is never coded")
    yield Idle("flq_algorithm.entropy_coding_down",
               lambda config: MODES[config.flq_algorithm.downlink].coding == ALWAYS
               and config.flq_algorithm.entropy_coding_down is False,
               "the downlink is always coded")


_MEAN = f"flq_algorithm.aggregation is {MEAN}"
_NO_REFERENCES = f"flq_algorithm.memory is not {' or '.join(WITH_REFERENCES)}"

# One row for each way in which a key can be without effect. tests/simulation/test_idle_keys.py and
# tests/learning/test_idle_keys.py show for every row that runs with and without the key are the
# same.
IDLE = (
    Idle("system.min_workers", _waits_for_all, "system.quorum is all"),
    Idle("system.start_workers", _waits_for_all, "system.quorum is all"),
    Idle("system.start_workers", _starts_with_enough, "system.min_workers is not smaller"),
    Idle("system.round_deadline_s", _waits_for_all, "system.quorum is all"),
    Idle("system.longest_deadline_s", _waits_for_all, "system.quorum is all"),
    Idle("system.longest_deadline_s", lambda config: config.system.round_deadline_s is not None,
         "system.round_deadline_s is set"),
    Idle("system.absent_rounds", _waits_for_all, "system.quorum is all"),
    Idle("system.master_side_information_mb",
         lambda config: config.flq_algorithm.entropy_coding != CONTEXT,
         "flq_algorithm.entropy_coding is not context"),
    Idle("system.master_side_information_mb",
         lambda config: mode_of(config.flq_algorithm.mode).coding == NEVER,
         "the mode is never coded"),
    Idle("dataset.dir_alpha", lambda config: config.dataset.partition != "non_iid",
         "dataset.partition is not non_iid"),
    Idle("model.init", lambda config: ":" in config.model.name,
         "model.name is a model of your own, which brings its own weights"),
    Idle("model.momentum", lambda config: config.model.server_optimizer == "sgd",
         "model.server_optimizer is sgd"),
    Idle("model.adam_beta2", lambda config: config.model.server_optimizer != "adam",
         "model.server_optimizer is not adam"),
    Idle("model.adam_epsilon", lambda config: config.model.server_optimizer != "adam",
         "model.server_optimizer is not adam"),
    Idle("model.l2_biases", lambda config: config.model.l2 == 0, "model.l2 is 0"),
    Idle(
        "model.local_lr", lambda config: _has_one_step(config) and
        (config.model.lr is not None or config.model.server_optimizer == "adam"),
        "one local step sends its gradient, and model.lr is not derived from it"),
    Idle("flq_algorithm.downlink", _sends_float32_down, "flq_algorithm.b_down is 0 or 32"),
    *_idle_beside_modes(),
    Idle("flq_algorithm.radius_down", _sends_float32_down, "flq_algorithm.b_down is 0 or 32"),
    Idle("flq_algorithm.block_size", lambda config: config.flq_algorithm.radius != BLOCK,
         "flq_algorithm.radius is not block"),
    Idle("flq_algorithm.block_size_down", lambda config: config.flq_algorithm.radius_down != BLOCK,
         "flq_algorithm.radius_down is not block"),
    Idle("flq_algorithm.block_size_down", _sends_float32_down, "flq_algorithm.b_down is 0 or 32"),
    Idle("flq_algorithm.entropy_coding_down", _sends_float32_down,
         "flq_algorithm.b_down is 0 or 32, and float32 is never coded"),
    Idle("flq_algorithm.sel_ref", lambda config: not config.flq_algorithm.scale_by_selected,
         "flq_algorithm.scale_by_selected is false"),
    Idle("flq_algorithm.scale_max", lambda config: not config.flq_algorithm.scale_by_selected,
         "flq_algorithm.scale_by_selected is false"),
    Idle("system.references_mb", _takes_the_mean, _MEAN),
    Idle("system.references_mb", _has_no_references, _NO_REFERENCES),
    Idle("flq_algorithm.bad_workers", _takes_the_mean, _MEAN),
    Idle("flq_algorithm.memory_rate", _has_no_references, _NO_REFERENCES),
    Idle("flq_algorithm.correction", _has_no_references, _NO_REFERENCES),
    Idle("flq_algorithm.rho_max", _has_no_references, _NO_REFERENCES),
    Idle("flq_algorithm.rho_max", lambda config: config.flq_algorithm.correction == "none",
         "flq_algorithm.correction is none"),
    Idle("lazy_selection.D", _is_never_silent,
         "lazy_selection.thr_scale is 0 (only the recorded history_sum differs)"),
    Idle("lazy_selection.D", lambda config: config.lazy_selection.ck == 0,
         "lazy_selection.ck is 0, so that no step of the model counts"),
    Idle("lazy_selection.ck", _is_never_silent,
         "lazy_selection.thr_scale is 0 (only the recorded history_sum differs)"),
    # With a budget C also says who is selected first.
    Idle("lazy_selection.C", lambda config: _is_never_silent(config) and _has_no_budget(config),
         "lazy_selection.thr_scale is 0 and there is no budget"),
    Idle("lazy_selection.warmup", _is_never_silent, "lazy_selection.thr_scale is 0"),
    Idle("lazy_selection.lazy_eps", _is_never_silent, "lazy_selection.thr_scale is 0"),
    Idle("security.max_samples", _is_not_local, "dataset.partition is not local"),
    Idle("security.max_weight_share", _is_not_local, "dataset.partition is not local"),
    Idle("security.max_weight_share", lambda config: config.flq_algorithm.weighting == "uniform",
         "flq_algorithm.weighting is uniform"),
)


def without_effect(config: Config, explicit: Set[str]) -> List[str]:
    """One line for each key that somebody set (explicit) and that changes nothing in this
    configuration.

    A key that says what it would be anyway is not among them, as in a copy of flq_config.json.
    """
    values = flat(config)
    reasons: Dict[str, str] = collections.OrderedDict()
    for row in IDLE:
        if row.path in explicit and row.holds(config) and build(
                dict(values, **{row.path: BY_PATH[row.path].default})) != config:
            reasons.setdefault(row.path, row.reason)
    return ([
        f"{path} {json.dumps(values[path])} has no effect: {reason}"
        for path, reason in reasons.items()
    ] + [
        f"{key.path} is no key any more: {key.doc}; remove it"
        for key in RETIRED if key.path in explicit
    ])
