"""Runs beside each other: which of them repeat one another, and what to call the rest.

Standard library only.
"""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from flq.config import build_told, flat
from flq.errors import FlqError, in_one_line
from flq.keys import BY_PATH, KEYS
from flq.modes import MODES
from flq.records import Run

_SEED = "dataset.seed"
# What changes no number of a run: it is not what somebody compares.
_CHANGES_NOTHING = {key.path for key in KEYS if key.local} | {
    "security.protect_reads", "security.allowed_hosts"}
# Their values say what they are.
_SPEAK_FOR_THEMSELVES = ("flq_algorithm.mode", "dataset.name", "model.name")
# What people compare most often comes first in a label.
_ORDER = ("flq_algorithm.mode", "flq_algorithm.b_up", "dataset.name", "model.name",
          "system.total_workers", *(key.path for key in KEYS))
_IN_A_LABEL = 3
_LONGEST_VALUE = 40


class Group(NamedTuple):
    """Runs that differ only in their seeds, often one alone.

    label: unique among the groups that were made together. folders: the runs' folders, each as
    short as tells them apart. keys: the values of the keys in which the groups differ.
    """

    label: str
    runs: Tuple[Run, ...]
    folders: Tuple[str, ...]
    keys: Dict[str, Any]


def grouped(runs: Sequence[Tuple[Path, Run]]) -> List[Group]:
    """Groups in the order of their first runs, named by the keys that differ, where none do by the
    folders.

    Keys that follow from others are no difference: with `mode: rd` come its bits and its coding.
    Runs of one configuration whose seeds repeat stay alone, because somebody wants to see what else
    made them differ.
    """
    folders = _short([path for path, _ in runs])
    alike: Dict[str, List[int]] = {}
    values = [_values(run) for _, run in runs]
    for index, found in enumerate(values):
        alike.setdefault(_text({key: value for key, value in found.items() if key != _SEED}),
                         []).append(index)
    members: List[List[int]] = []
    for indices in alike.values():
        seeds = {_text(values[index].get(_SEED)) for index in indices}
        members += [indices] if len(seeds) == len(indices) else [[index] for index in indices]
    members.sort()
    differing = _differing([_chosen(values[indices[0]]) for indices in members])
    keys = [{path: values[indices[0]].get(path) for path in differing} for indices in members]
    labels = _labels(keys)
    groups = []
    for indices, label, row in zip(members, labels, keys):
        if labels.count(label) > 1:
            label = f"{label} ({folders[indices[0]]})" if label else folders[indices[0]]
        groups.append(
            Group(label or in_one_line(runs[indices[0]][1].summary["mode"]),
                  tuple(runs[index][1] for index in indices),
                  tuple(folders[index] for index in indices), row))
    return groups


def unnamed(groups: Sequence[Group]) -> List[str]:
    """The keys that differ and are not in the labels, because others tell the groups apart."""
    return [path for path in (groups[0].keys if groups else ())
            if any(key_text(path, group.keys[path]) not in group.label.split(" ")
                   for group in groups)]


def seeds_of(group: Group) -> List[Any]:
    """The seed of each of its runs."""
    return [_values(run).get(_SEED) for run in group.runs]


def set_by_hand(run: Run) -> Dict[str, Any]:
    """The values of a run, by path, that are neither defaults nor follow from other keys."""
    chosen = _chosen(_values(run))
    return {path: value for path, value in chosen.items()
            if path not in BY_PATH or _text(value) != _text(BY_PATH[path].default)}


def key_text(path: str, value: Any) -> str:
    """b_up=4; of mode, data set and model the value alone."""
    text = in_one_line(value if isinstance(value, str) else _text(value))
    if len(text) > _LONGEST_VALUE:
        text = text[:_LONGEST_VALUE - 3] + "..."
    if path in _SPEAK_FOR_THEMSELVES:
        return text
    name = path.rpartition(".")[2]
    alone = sum(key.name == name for key in KEYS) == 1
    return f"{in_one_line(name if alone else path)}={text}"


def _values(run: Run) -> Dict[str, Any]:
    """By path what may change a number; a key that the run's version did not know means what that
    version did.
    """
    values: Dict[str, Any] = {
        key.path: key.default if key.older is None else key.older for key in KEYS
    }
    for section, keys in run.config.items():
        if isinstance(keys, dict):
            values.update((f"{section}.{name}", value) for name, value in keys.items())
    return {path: value for path, value in values.items() if path not in _CHANGES_NOTHING}


def _chosen(values: Dict[str, Any]) -> Dict[str, Any]:
    """The values without those that stand where null would give the same."""
    if values["flq_algorithm.mode"] not in MODES:
        return values  # a user's own code, which is not imported to look at a run
    known = {path: value for path, value in values.items() if path in BY_PATH}
    return {path: value for path, value in values.items() if not _follows(path, known)}


def _follows(path: str, values: Dict[str, Any]) -> bool:
    """Whether a key has the value that the others give it where it is null."""
    if path not in BY_PATH or BY_PATH[path].default is not None:
        return False
    try:
        resolved = flat(build_told({**values, path: None}))[path]
    except (FlqError, TypeError, ValueError, OverflowError):
        return False  # of another version or origin
    return _text(resolved) == _text(values[path])


def _differing(rows: Sequence[Dict[str, Any]]) -> List[str]:
    """The keys that have several values, in the order of labels."""
    paths = list(dict.fromkeys([*_ORDER, *(path for row in rows for path in row)]))
    return [path for path in paths
            if path != _SEED and len({_text(row.get(path)) for row in rows}) > 1]


def _labels(rows: Sequence[Dict[str, Any]]) -> List[str]:
    """A text for each row: all that differs where that is little, else as many keys as tell the
    rows apart.
    """
    paths = list(rows[0]) if rows else []
    if len(paths) > _IN_A_LABEL:
        needed: List[str] = []
        for path in paths:
            if _kinds(rows, needed + [path]) > _kinds(rows, needed):
                needed.append(path)
        paths = needed
    return [" ".join(key_text(path, row[path]) for path in paths) for row in rows]


def _kinds(rows: Sequence[Dict[str, Any]], paths: Sequence[str]) -> int:
    return len({tuple(_text(row[path]) for path in paths) for row in rows})


def _short(paths: Sequence[Path]) -> List[str]:
    """The last parts of each path, as many as tell all of them apart."""
    full = [path.absolute() for path in paths]
    for length in range(1, max((len(path.parts) for path in full), default=1)):
        short = ["/".join(path.parts[-length:]) for path in full]
        if len(set(short)) == len(set(full)):
            return [in_one_line(name) for name in short]
    return [in_one_line(path) for path in full]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
