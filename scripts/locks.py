#!/usr/bin/env python3
"""Whole sets of packages with the hashes of their files, from the requirements that FLQ pins.

    python -m scripts.locks make [NAME]      # needs uv; versions that are locked stay
    python -m scripts.locks make --upgrade   # the newest that the requirements allow
    python -m scripts.locks audit            # needs pip-audit; known flaws of what is locked

A lock names every package of a set, those that others bring too, with the SHA-256 of each file that
PyPI has of that version. pip then takes nothing else:

    python -m pip install --require-hashes -r locks/fed.txt

Exit code of audit: 0 nothing is known, 1 something is, 75 the data could not be reached.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "locks"
UNREACHABLE = 75


class Lock(NamedTuple):
    """One set. python: its version. files, constraints: below the root. more: lines that the files
    leave to pip.
    """

    python: str
    files: Tuple[str, ...]
    constraints: Tuple[str, ...] = ()
    more: Tuple[str, ...] = ()


LOCKS = {
    # TensorFlow 2.12 asks for the second package on aarch64 alone, which uv does not see on x86-64;
    # its TensorBoard imports pkg_resources, which setuptools 82 has not.
    "fed": Lock("3.9", ("requirements-fed.txt",), ("constraints/py39-tf2.12.txt",), (
        'tensorflow-cpu-aws == 2.12.0; sys_platform == "linux" and platform_machine == "aarch64"',
        "setuptools < 81")),
    "py311": Lock("3.11", ("requirements-master.txt", "requirements-tensorflow.txt"),
                  ("constraints/py311-tf2.21.txt",)),
}


def make(name: str, upgrade: bool) -> None:
    """Write the lock of a set anew."""
    lock, path = LOCKS[name], FOLDER / f"{name}.txt"
    with tempfile.TemporaryDirectory() as folder:
        # Without a project uv would also look for versions for every later Python.
        (Path(folder) / "pyproject.toml").write_text(
            f'[project]\nname = "lock"\nversion = "0"\nrequires-python = "=={lock.python}.*"\n'
            f"[tool.uv]\nenvironments = [\"python_version == '{lock.python}'\"]\n")
        (Path(folder) / "more.txt").write_text("\n".join(lock.more))
        words = ["uv", "pip", "compile", "--universal", "--generate-hashes", "--no-annotate",
                 "--no-header", "--quiet", "--python-version", lock.python, "--output-file",
                 str(path), *(str(ROOT / file) for file in lock.files), "more.txt"]
        for file in lock.constraints:
            words += ["--constraint", str(ROOT / file)]
        subprocess.run(words + ["--upgrade"] * upgrade, cwd=folder, check=True)
    head = (f"# Python {lock.python}: {', '.join(lock.files)} with all that they bring, made by\n"
            "# `python -m scripts.locks make`.\n")
    body = "".join(line for line in path.read_text().splitlines(keepends=True)
                   if not line.startswith("#"))
    path.write_text(head + body)


def pins(path: Path) -> List[Tuple[str, str, str]]:
    """(name, version, marker) of each package of a lock. Raises ValueError for another line."""
    found = []
    for entry in path.read_text().replace("\\\n", "").splitlines():
        if not entry or entry.startswith("#"):
            continue
        match = re.fullmatch(
            r"([a-z0-9._-]+)==([^\s;]+)(?: ; (.*?))?((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", entry)
        if match is None:
            raise ValueError(f"{path}: no pin with hashes: {entry[:100]}")
        found.append((match.group(1), match.group(2), match.group(3) or ""))
    return found


def audit(name: str) -> int:
    """What pip-audit knows of the packages of a lock, for whatever machine they are."""
    left, asked = pins(FOLDER / f"{name}.txt"), 0
    flaws: List[str] = []
    unknown: List[str] = []
    while left:
        now = {package: version for package, version, _ in reversed(left)}
        left = [pin for pin in left if now[pin[0]] != pin[1]]  # another version for other machines
        for package in _audited(now):
            asked += 1
            told = f"{package['name']} {package.get('version', '')}".strip()
            if "skip_reason" in package:
                unknown.append(told)
            for flaw in package.get("vulns", ()):
                fixed = " or ".join(flaw["fix_versions"]) or "no version"
                flaws.append(f"{told}: {flaw['id']}, fixed in {fixed}")
    if len(unknown) == asked:
        print(f"{name}: the data of known flaws could not be reached", file=sys.stderr)
        return UNREACHABLE
    for line in flaws + [f"{package}: nothing is known of it" for package in unknown]:
        print(f"{name}: {line}")
    print(f"{name}: {asked} packages, {len(flaws)} known flaws")
    return 1 if flaws else 0


def _audited(versions: Dict[str, str]) -> List[Dict[str, Any]]:
    """pip-audit's objects of these packages; none where it had nobody to ask."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{package}=={version}\n" for package, version in versions.items())
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--format", "json",
             "--progress-spinner", "off", "--timeout", "10", "-r", file.name],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    try:
        found: List[Dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it says nothing where there is no network
        return []
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("make", "audit"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LOCKS)}")
    parser.add_argument("--upgrade", action="store_true", help="do not keep the locked versions")
    arguments = parser.parse_args()
    names = arguments.names or list(LOCKS)
    if set(names) - set(LOCKS):
        parser.error(f"expected of {', '.join(LOCKS)}; got {', '.join(names)}")
    if arguments.command == "make":
        for name in names:
            make(name, arguments.upgrade)
        return 0
    return max(map(audit, names))


if __name__ == "__main__":
    sys.exit(main())
