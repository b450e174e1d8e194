"""The requirements-*.txt of FLQ, read and compared with what is installed: standard library only,
Python 3.6.
"""

import os
import platform
import re
import sys
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

Version = Tuple[int, ...]


class Requirement(NamedTuple):
    """One line of a requirements file: every (operator, version) must hold."""

    name: str
    bounds: Tuple[Tuple[str, Version], ...]

    def __str__(self) -> str:
        bounds = (f"{sign} {'.'.join(map(str, version))}" for sign, version in self.bounds)
        return f"{self.name} {', '.join(bounds)}".rstrip()

    def is_met_by(self, version: Version) -> bool:
        return all(_COMPARE[sign](version, bound) for sign, bound in self.bounds)

    def is_below(self, version: Version) -> bool:
        """Whether the version is older than the oldest supported one."""
        return any(sign in (">=", "==") and version[:len(bound)] < bound
                   for sign, bound in self.bounds)


_COMPARE: Dict[str, Callable[[Version, Version], bool]] = {
    ">=": lambda version, bound: version >= bound,
    "<": lambda version, bound: version < bound,
    "==": lambda version, bound: version[:len(bound)] == bound,
}


def parse_requirements(path: str, python: Optional[Version] = None) -> List[Requirement]:
    """The requirements of a file that apply to a Python such as (3, 9), to this one where it is
    None.

    Understands what these files use: `name >= a, < b`, `name == a.*` and the markers
    python_version, sys_platform and platform_machine. Raises ValueError with the line where it is
    anything else.
    """
    requirements = []
    with open(path, encoding="utf-8") as file:
        lines = [line.split("#")[0].strip() for line in file]
    for line in filter(None, lines):
        text, _, marker = line.partition(";")
        match = re.match(r"^([A-Za-z0-9-]+)\s*((?:(?:>=|<|==)\s*[0-9.]+(?:\.\*)?\s*,?\s*)*)$",
                         text.strip())
        if match is None:
            raise ValueError(f"{path}: cannot read the requirement {line!r}")
        if _applies(marker.strip(), python or sys.version_info[:2]):
            bounds = re.findall(r"(>=|<|==)\s*([0-9]+(?:\.[0-9]+)*)", match.group(2))
            requirements.append(
                Requirement(match.group(1),
                            tuple((sign, parse_version(version)) for sign, version in bounds)))
    return requirements


def _applies(marker: str, python: Version) -> bool:
    """Whether an environment marker holds here: comparisons joined by all `and` or all `or`."""
    if not marker:
        return True
    values: Dict[str, Any] = {
        "python_version": python, "sys_platform": sys.platform,
        "platform_machine": platform.machine()
    }
    results = []
    for comparison in re.split(r"\s+(?:and|or)\s+", marker):
        match = re.match(
            r'^(python_version|sys_platform|platform_machine)\s*(>=|<|==|!=)\s*"([^"]+)"$',
            comparison)
        if match is None:
            raise ValueError(f"cannot read the marker {marker!r}")
        name, sign, text = match.groups()
        wanted: Any = parse_version(text) if name == "python_version" else text
        found = values[name]
        results.append({
            ">=": found >= wanted, "<": found < wanted, "==": found == wanted, "!=": found != wanted
        }[sign])
    return any(results) if " or " in marker else all(results)


def parse_version(text: str) -> Version:
    """The leading numbers: 2.12.0 -> (2, 12, 0), NVIDIA's 2.7.0+nv22.1 -> (2, 7, 0)."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(int(part) for part in match.group(0).split(".")) if match else ()


def installed_version(distribution: str) -> Optional[str]:
    """The version of an installed distribution, without importing it; None when it is not there."""
    if sys.version_info >= (3, 8):
        from importlib import metadata
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            return None
    return _version_in_folders(distribution, sys.path)


def _version_in_folders(distribution: str, folders: Iterable[str]) -> Optional[str]:
    """What an older Python can see without setuptools, which it may lack: by the names of the
    folders and files that describe what is installed (PEP 376).
    """
    wanted = _comparable(distribution)
    form = re.compile(r"(.+?)-([0-9][^-]*)(?:-py[0-9].*)?\.(?:dist-info|egg-info|egg)$")
    for folder in folders:
        try:
            entries = os.listdir(folder or ".")
        except OSError:  # not there, a file, or not to be read
            continue
        for match in filter(None, map(form.match, entries)):
            if _comparable(match.group(1)) == wanted:
                return match.group(2)
    return None


def _comparable(distribution: str) -> str:
    """The name of a distribution however it is written (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
