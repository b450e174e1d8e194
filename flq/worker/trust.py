"""What a worker does at its master's word (docs/security.md).

The configuration of a run names code to be imported and files to be read, and it comes over the
network. A worker imports and reads only what its owner named: in its own configuration under the
same key, in security.allow or with --allow, and what lies in its own data folder.
"""

import os
import re
import shlex
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from flq.config import Loaded
from flq.errors import ConfigError, DataError, in_one_line
from flq.learning.datasets import names
from flq.learning.datasets.files import data_dir_or_default

_CODE = ("model.name", "dataset.name", "flq_algorithm.mode")
"""Keys whose value can be `package.module:NAME`."""
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*)?\Z")


class Place(NamedTuple):
    """A file, or a folder with all below it, of one kind of data; kind None: of every kind."""

    kind: Optional[str]
    path: str

    def holds(self, kind: str, path: str) -> bool:
        """Whether a path is that of this place or lies below it. By its letters: a link is the
        owner's, and a path that climbs is in no folder."""
        place, asked = _steps(self.path), _steps(path)
        return (self.kind in (None, kind) and asked[:len(place)] == place
                and os.pardir not in asked[len(place):])


def _steps(path: str) -> List[str]:
    """The names on the way from the root. `..` stays one: where it leads depends on links."""
    whole = os.path.join(os.getcwd(), path).replace(os.altsep or os.sep, os.sep)
    return [name for name in whole.split(os.sep) if name not in ("", os.curdir)]


def check_entries(allow: Sequence[str]) -> None:
    """Raises ConfigError for an entry of security.allow that could never match."""
    for entry in allow:
        kind, colon, path = entry.partition(":")
        if kind in names.OPTIONS and colon and path:
            try:
                names.parse(entry, None)
            except DataError as error:
                raise ConfigError(error.message, error.expected, error.got, error.hint)
        elif not _MODULE.match(entry):
            raise ConfigError(
                "security.allow and --allow cannot take this value", "package.module, "
                f"package.module:NAME, or KIND:PATH with a kind of {', '.join(names.OPTIONS)}",
                entry)


def check(shared: Dict[str, Any], own: Loaded, allow: Sequence[str]) -> None:
    """Refuse a master's configuration that names code or a file which the owner did not.

    shared: what the master said, by path, unchecked. own: the worker's own configuration, whose
    keys are the owner's words; one that differs is refused by config.adopt. allow: the entries of
    security.allow and --allow. Raises ConfigError, which says what the owner would have to pass.
    """
    check_entries(allow)
    for path in _CODE:
        name = shared.get(path)
        if not isinstance(name, str) or ":" not in name or path in own.explicit:
            continue
        if path == "dataset.name" and name.partition(":")[0] in names.OPTIONS:
            _check_files(name, own.config.dataset.data_dir, allow)
        elif not any(_covers(entry, name) for entry in allow):
            module = name.partition(":")[0]
            raise ConfigError(f"the master wants this worker to run {path} {in_one_line(name)}",
                              "code that --allow or security.allow names", list(allow) or "none",
                              f"{_granting(module)}, if you trust that module")


def _covers(entry: str, name: str) -> bool:
    """Whether an entry is the name itself, its module, or a package that the module is in."""
    module = name.partition(":")[0]
    return entry in (name, module) or module.startswith(entry + ".")


def _check_files(name: str, data_dir: Optional[str], allow: Sequence[str]) -> None:
    source = names.parse(name, data_dir)
    assert source is not None, "its kind was asked for"
    granted = list(_places(data_dir, allow))
    for path in filter(None, (source.path, source.test_path)):
        if not any(place.holds(source.kind, path) for place in granted):
            raise ConfigError(
                f"the master wants this worker to read {source.kind}:{in_one_line(path)}",
                "data in its own dataset.data_dir or FLQ_DATA_DIR, or that --allow or "
                "security.allow names", _shown(granted) or "none",
                f"{_granting(source.kind + ':' + path)}, if that is your data for this run")


def _places(data_dir: Optional[str], allow: Sequence[str]) -> Iterator[Place]:
    folder = data_dir_or_default(data_dir)
    if folder:
        yield Place(None, folder)
    for entry in allow:
        source = names.parse(entry, data_dir)
        if source is not None:
            for path in filter(None, (source.path, source.test_path)):
                yield Place(source.kind, path)


def _granting(entry: str) -> str:
    """The option that grants something, for a shell: the name in it is the master's."""
    return f"--allow {shlex.quote(in_one_line(entry))} grants it"


def _shown(granted: Sequence[Place]) -> List[str]:
    return [f"{place.kind}:{place.path}" if place.kind else place.path for place in granted]
