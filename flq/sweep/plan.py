"""What a sweep's file asks for: every variant with every combination of the grid's values."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

from flq import config as configuration
from flq.errors import ConfigError
from flq.keys import by_path, find
from flq.settings import Config

LOGS = "logs"
"""The folder with the logs, beside those of the runs."""
_TAKEN = (LOGS, "comparison.png", "comparison.svg", "comparison.xlsx")

_PARTS = ("config", "variants", "grid")
_MOST_RUNS = 10_000
_LONGEST_NAME = 200  # a folder's name has at most 255 bytes, and files beside it are longer


class Planned(NamedTuple):
    """One run: the name of its folder, its configuration, and the keys that the file sets."""

    name: str
    config: Config
    explicit: frozenset[str]


def read_plan(path: Path) -> list[Planned]:
    """The runs of a sweep's file, in the order in which they are played.

    The file is a JSON object. config: the keys of every run, as a configuration's file has them, or
    the path of one beside the sweep's file. variants: names, each with keys of its own. grid: keys,
    each with a list of values. Raises ConfigError, for what cannot be read and for every run whose
    configuration cannot be, before any is played.

    >>> import json, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name) / "sweep.json"
    >>> _ = file.write_text(json.dumps({"variants": {"one bit": {"mode": "bin"}},
    ...                                 "grid": {"seed": [0, 1]}}))
    >>> [planned.name for planned in read_plan(file)]
    ['one_bit,seed=0', 'one_bit,seed=1']
    >>> folder.cleanup()
    """
    document = configuration.read_json(str(path))
    for name in document:
        if name not in _PARTS:
            raise ConfigError(f"{path}: unknown part {name}", " or ".join(_PARTS), name)
    common = _common(path, document.get("config", {}))
    variants = _variants(path, document.get("variants", {}))
    grid = _grid(path, document.get("grid", {}))
    for name, values in variants.items():
        for key in sorted(grid.keys() & values):
            raise ConfigError(f"{path}: {key} is in the grid and in variant {name}",
                              "each key in one of them", key)
    number = len(variants)
    for values_of in grid.values():
        number *= len(values_of)
    if number > _MOST_RUNS:
        raise ConfigError(f"{path} asks for too many runs", f"at most {_MOST_RUNS}", number)
    plan: dict[str, Planned] = {}
    for variant, values in variants.items():
        for chosen in itertools.product(*grid.values()):
            planned = _planned(path, variant, {**common, **values}, dict(zip(grid, chosen)))
            if planned.name in plan:
                raise ConfigError(f"{path}: two runs have the folder {planned.name}",
                                  "variants and values that differ in letters and digits")
            plan[planned.name] = planned
    return list(plan.values())


def _common(path: Path, given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        return by_path(configuration.read_json(str(path.parent / given)), given)
    return by_path(_object(path, "config", given), str(path))


def _variants(path: Path, given: Any) -> dict[str, dict[str, Any]]:
    """{"": {}} where there are none: one variant without a name."""
    found = {name: by_path(_object(path, f"variant {name}", values), f"{path}, variant {name}")
             for name, values in _object(path, "variants", given).items()}
    return found or {"": {}}


def _grid(path: Path, given: Any) -> dict[str, list[Any]]:
    grid: dict[str, list[Any]] = {}
    for name, values in _object(path, "grid", given).items():
        key = find(name, f"{path}, grid").path
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}, grid: {name} has no list of values", "[value, ...]", values)
        if key in grid:
            raise ConfigError(f"{path}, grid: {key} is there twice", "each key once", name)
        grid[key] = values
    return grid


def _object(path: Path, what: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: {what} is no object", "names and values", given)
    return given


def _planned(path: Path, variant: str, values: dict[str, Any], chosen: dict[str, Any]) -> Planned:
    parts = ([variant] if variant else []) + [
        f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items()
    ]
    name = re.sub(r"[^\w.=+,-]", "_", ",".join(parts), flags=re.ASCII).lstrip(".-") or "run"
    if name in _TAKEN:
        raise ConfigError(f"{path}: a run cannot have the name {name}",
                          "another one: the sweep itself writes there", name)
    if len(name) > _LONGEST_NAME:
        raise ConfigError(f"{path}: the name of a run's folder is too long",
                          f"at most {_LONGEST_NAME} letters", name)
    values = {**values, **chosen}
    try:
        loaded = configuration.simulated(configuration.load(None, values=values))
    except ConfigError as error:
        raise ConfigError(f"{path}, run {name}: {error.message}", error.expected, error.got,
                          error.hint)
    return Planned(name, loaded.config, frozenset(values))
