"""The configuration: files and overrides, read strictly over the defaults of flq/keys.py, and what
keys must say together.
"""

import collections
import json
from typing import (
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
    get_type_hints,
)

from flq import robust_keys
from flq.errors import ConfigError
from flq.keys import BY_PATH, KEYS, SECTIONS, by_path, check_value, find
from flq.modes import (
    BLOCK_SIZES,
    DOWNLINKS,
    MEAN,
    MODES,
    TENSOR,
    WITH_REFERENCES,
    mode_of,
    with_radius,
)
from flq.settings import Config

_SECTION_TYPES = get_type_hints(Config)
_REFERENCES = " or ".join(WITH_REFERENCES)
_COHORT_OF, _MOST_COHORTS = 10, 3


class Loaded(NamedTuple):
    """A configuration and the paths that somebody set, retired ones too, as opposed to defaults;
    null sets nothing.
    """

    config: Config
    explicit: Set[str]


def load(source: Union[None, str, Dict[str, Any]] = None, overrides: Sequence[str] = (),
         values: Optional[Dict[str, Any]] = None) -> Loaded:
    """Read a file, or what one would hold (nested sections or flat keys), and `section.key=value`
    overrides, over the defaults.

    values: as a file has them, over both. Raises ConfigError for an unknown key, a wrong type, a
    value out of range and a contradiction.
    """
    merged: Dict[str, Any] = {}
    if source is not None:
        merged.update(
            by_path(source, "configuration") if isinstance(source, dict) else _read_file(source))
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError("--set takes section.key=value", "section.key=value", override)
        merged[find(name.strip(), "--set").path] = _parse_value(text.strip())
    merged.update(by_path(values or {}, "configuration"))
    return Loaded(build(merged), {path for path, value in merged.items() if value is not None})


def simulated(loaded: Loaded) -> Loaded:
    """The same for a simulation: it has no network and every worker is there, so that each round
    waits for all unless somebody set that.
    """
    if "system.quorum" in loaded.explicit:
        return loaded
    values = {path: value for path, value in flat(loaded.config).items() if path in loaded.explicit}
    return Loaded(build(dict(values, **{"system.quorum": "all"})),
                  loaded.explicit | {"system.quorum"})


def build(values: Dict[str, Any]) -> Config:
    """Values by name as a file has them (sections, paths, short keys), over the defaults -> a
    checked and resolved Config.
    """
    values = by_path(values, "configuration")
    for path, value in values.items():
        check_value(find(path, "configuration"), value)
    merged = {key.path: values.get(key.path, key.default) for key in KEYS}
    if "model.local_epochs" in values and values[
            "model.local_epochs"] is not None and "model.local_steps" not in values:
        merged["model.local_steps"] = None
    _resolve(merged)
    config = Config(
        **{
            section: _SECTION_TYPES[section](
                **{key.name: merged[key.path] for key in KEYS
                   if key.section == section}) for section in SECTIONS
        })
    _check_together(config)
    return config


def build_told(values: Dict[str, Any]) -> Config:
    """The Config that a master or a store says, by path: a key of which an older version says
    nothing means what that version did.
    """
    older = {key.path: key.older for key in KEYS if key.older is not None}
    return build({**older, **values})


def to_dict(config: Config) -> Dict[str, Dict[str, Any]]:
    """Nested sections, ready for JSON."""
    return collections.OrderedDict(
        (section, collections.OrderedDict(getattr(config, section)._asdict()))
        for section in SECTIONS)


def flat(config: Config) -> Dict[str, Any]:
    """Values by path."""
    return collections.OrderedDict(
        (key.path, getattr(getattr(config, key.section), key.name)) for key in KEYS)


def shared_values(config: Config) -> Dict[str, Any]:
    """What the master hands out at registration: the values of all keys that are not a machine's
    own.
    """
    return {path: value for path, value in flat(config).items() if not BY_PATH[path].local}


def adopt(shared: Dict[str, Any], own: Loaded,
          check: Callable[[Dict[str, Any]], None] = lambda shared: None) -> Config:
    """A worker's configuration: the master's shared values and its own local ones, whatever the
    master says of those. check(the shared values): may refuse them before they are used, which can
    import what they name.

    Raises ConfigError naming the key and both values when the worker's file set a shared key
    differently.
    """
    mine = flat(own.config)
    shared = {path: value for path, value in shared.items()
              if path in BY_PATH and not BY_PATH[path].local}
    for path in sorted(own.explicit.intersection(mine)):
        if path in shared and mine[path] != shared[path]:
            raise ConfigError(
                f"{path} differs from the master's", json.dumps(shared[path]),
                json.dumps(mine[path]),
                "remove the key from the worker's file: the master hands the shared keys out")
    values = {path: value for path, value in mine.items() if BY_PATH[path].local}
    values.update(shared)
    check(shared)
    return build_told(values)


def change(config: Config, path: str, value: Any) -> Config:
    """The configuration with one value changed at run time.

    Raises ConfigError when that is not possible.
    """
    key = find(path, "configuration")
    if not key.runtime:
        raise ConfigError(f"{key.path} cannot be changed while a run goes on",
                          "one of " + ", ".join(k.path for k in KEYS if k.runtime), key.path)
    values = flat(config)
    values[key.path] = value
    return build(values)


def _read_file(path: str) -> Dict[str, Any]:
    return by_path(read_json(path), path)


def read_json(path: str) -> Dict[str, Any]:
    """The JSON object in a file of somebody's. Raises ConfigError, also for a name that is there
    twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file, object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}", got=error.strerror,
                          hint="name a JSON file with --config")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON", got=str(error))
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a JSON object", "sections or keys",
                          type(document).__name__)
    return document


def _no_duplicates(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} appears twice")
    return collections.OrderedDict(pairs)


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _resolve(values: Dict[str, Any]) -> None:
    """Fill in what null stands for where the other keys decide it."""
    mode = mode_of(values["flq_algorithm.mode"])
    for name, default in mode.defaults.items():
        if values["flq_algorithm." + name] is None:
            values["flq_algorithm." + name] = default
    if values["flq_algorithm.memory_rate"] is None:
        # LAQ's rule was made for references that hold all that was committed (algorithm.md 4).
        learns_slowly = (values["flq_algorithm.memory"] == "reference"
                         and values["lazy_selection.thr_scale"] == 0)
        values["flq_algorithm.memory_rate"] = mode.memory_rate if learns_slowly else 1.0
    if values["flq_algorithm.b_down"] is None:
        values["flq_algorithm.b_down"] = MODES[values["flq_algorithm.downlink"]].down_bits
    if values["system.min_workers"] is None:
        values["system.min_workers"] = values["system.total_workers"] if values[
            "system.quorum"] == "all" else 1
    if values["system.cohorts"] is None:
        values["system.cohorts"] = _cohorts_of(values)
    is_mean = values["flq_algorithm.aggregation"] == MEAN
    if values["flq_algorithm.weighting"] is None:
        values["flq_algorithm.weighting"] = "samples" if is_mean else "uniform"
    if values["flq_algorithm.bad_workers"] is None:
        values["flq_algorithm.bad_workers"] = max(1, values["system.total_workers"] // 5)
    if values["flq_algorithm.correction"] is None:
        # The bids of one cohort say little of the others (algorithm.md 3).
        alone = "bids" if values["system.cohorts"] == 1 else "count"
        values["flq_algorithm.correction"] = alone if is_mean else "none"
    if values["lazy_selection.lazy_eps"] is None:
        # An error above a quarter of ||d||^2 would silence a coarse quantiser for ever
        # (algorithm.md 4).
        fine = mode.fine_from is not None and values["flq_algorithm.b_up"] >= mode.fine_from
        values["lazy_selection.lazy_eps"] = 3.0 if fine else 0.0
    for key in KEYS:
        if key.kind in (float, list) and values[key.path] is not None:
            values[key.path] = key.kind(values[key.path])


def _cohorts_of(values: Dict[str, Any]) -> int:
    """J where nobody says it: as many as were measured to pay, of ten workers or more each.

    Not with quorum deadline, where nobody knows how many workers will come, nor where all must be
    asked (docs/decisions/0029).
    """
    asks_all = (values["system.quorum"] != "all" or values["flq_algorithm.aggregation"] != MEAN
                or values["flq_algorithm.memory"] not in WITH_REFERENCES
                or values["budget_selection.sel_clients"] > 0
                or values["budget_selection.up_budget_bits"] > 0
                or values["lazy_selection.thr_scale"] > 0)
    return 1 if asks_all else max(
        1, min(_MOST_COHORTS, values["system.total_workers"] // _COHORT_OF))


def _check_together(config: Config) -> None:
    algorithm, model, system, lazy = (config.flq_algorithm, config.model, config.system,
                                      config.lazy_selection)
    if system.min_workers > system.total_workers:
        raise ConfigError("system.min_workers is larger than system.total_workers",
                          f"at most {system.total_workers}", system.min_workers)
    if system.start_workers is not None and system.start_workers > system.total_workers:
        raise ConfigError("system.start_workers is larger than system.total_workers",
                          f"at most {system.total_workers}", system.start_workers)
    if system.cohorts > system.total_workers:
        raise ConfigError("system.cohorts is larger than system.total_workers",
                          f"at most {system.total_workers}", system.cohorts,
                          "every cohort needs a worker")
    smallest = system.total_workers // system.cohorts
    if system.quorum == "deadline" and system.min_workers > smallest:
        raise ConfigError(
            "system.min_workers is larger than the smallest cohort", f"at most {smallest}",
            system.min_workers,
            f"{system.total_workers} workers in {system.cohorts} cohorts: total_workers // cohorts "
            "is the size of the smallest")
    if (model.local_epochs is None) == (model.local_steps is None):
        raise ConfigError("set one of model.local_epochs and model.local_steps",
                          "one of the two null",
                          {"local_epochs": model.local_epochs, "local_steps": model.local_steps})
    mode, down = mode_of(algorithm.mode), MODES[algorithm.downlink]
    if not mode.takes(algorithm.b_up):
        others = [row.name for row in MODES.values() if row.takes(algorithm.b_up)]
        raise ConfigError(f"flq_algorithm.b_up does not fit mode {algorithm.mode}", mode.widths,
                          algorithm.b_up,
                          f"use mode {' or '.join(others)} for that" if others else None)
    if algorithm.b_down not in (0, 32) and not down.takes(algorithm.b_down):
        raise ConfigError(f"flq_algorithm.b_down does not fit downlink {algorithm.downlink}",
                          f"0, 32 or {down.widths}", algorithm.b_down)
    if algorithm.memory not in mode.memories:
        raise ConfigError(f"flq_algorithm.memory does not fit mode {algorithm.mode}",
                          " or ".join(mode.memories), algorithm.memory)
    if algorithm.radius not in mode.radii:
        raise ConfigError(
            f"flq_algorithm.radius {algorithm.radius} is for modes "
            f"{_listed(with_radius(algorithm.radius))}", " or ".join(mode.radii), algorithm.radius)
    if algorithm.radius_down not in down.radii:
        able = [name for name in DOWNLINKS if algorithm.radius_down in MODES[name].radii]
        raise ConfigError(
            f"flq_algorithm.radius_down {algorithm.radius_down} is for downlinks {_listed(able)}",
            TENSOR, algorithm.radius_down)
    for name in ("block_size", "block_size_down"):
        size = getattr(algorithm, name)
        if size & (size - 1):
            raise ConfigError(f"flq_algorithm.{name} is no power of two",
                              f"one of {', '.join(map(str, BLOCK_SIZES))}", size)
    budget = config.budget_selection
    if system.late_updates == "apply" and (algorithm.memory not in WITH_REFERENCES
                                           or system.quorum != "deadline" or budget.sel_clients
                                           or budget.up_budget_bits):
        raise ConfigError(
            "system.late_updates apply does not fit the other keys",
            f"memory {_REFERENCES}, quorum deadline and no budget", {
                "memory": algorithm.memory, "quorum": system.quorum,
                "sel_clients": budget.sel_clients, "up_budget_bits": budget.up_budget_bits
            }, "system.late_updates refuse goes with everything")
    if lazy.thr_scale > 0 and algorithm.memory not in WITH_REFERENCES:
        raise ConfigError(f"lazy transmission needs memory {_REFERENCES}",
                          f"lazy_selection.thr_scale 0 or flq_algorithm.memory {_REFERENCES}",
                          {"thr_scale": lazy.thr_scale, "memory": algorithm.memory})
    robust_keys.check(config)


def _listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
