"""What the locks pin is what the requirements say, with a hash of every file."""

import json
import os
import re
import stat

import pytest

from scripts import locks
from scripts.requirements import parse_requirements, parse_version

EVERY_LOCK = pytest.mark.parametrize("name", sorted(locks.LOCKS))


def pinned(name):
    return {package: parse_version(version)
            for package, version, _ in locks.pins(locks.FOLDER / (name + ".txt"))}


@EVERY_LOCK
def test_a_lock_has_what_its_files_ask_for(name):
    lock = locks.LOCKS[name]
    python = tuple(map(int, lock.python.split(".")))
    found = pinned(name)
    for file in lock.files:
        for requirement in parse_requirements(str(locks.ROOT / file), python):
            version = found.get(requirement.name.lower())
            assert version is not None and requirement.is_met_by(version), str(requirement)
    for file in lock.constraints:
        for pin in parse_requirements(str(locks.ROOT / file), python):
            assert pin.name not in found or pin.is_met_by(found[pin.name]), str(pin)


@EVERY_LOCK
def test_every_line_is_a_version_with_hashes_and_no_other_index(name):
    path = locks.FOLDER / (name + ".txt")
    assert len(locks.pins(path)) > 30  # raises for any other line
    assert "--index" not in path.read_text() and "http" not in path.read_text()


def test_another_line_is_refused(tmp_path):
    for line in ("numpy==1.0", "numpy>=1.0 --hash=sha256:" + "0" * 64, "-r other.txt",
                 "--extra-index-url https://x", "numpy==1.0 --hash=sha256:12"):
        (tmp_path / "lock.txt").write_text("# head\n" + line + "\n")
        with pytest.raises(ValueError):
            locks.pins(tmp_path / "lock.txt")


def test_packages_are_pinned_for_aarch64_too():
    found = locks.pins(locks.FOLDER / "fed.txt")
    marker, = [marker for package, _, marker in found if package == "tensorflow-cpu-aws"]
    assert "platform_machine == 'aarch64'" in marker
    assert not {package for package, _, _ in found} & {"tensorflow-cpu"}


def fake(monkeypatch, tmp_path, answer):
    """A Python whose pip_audit gives this answer and notes what it was asked."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nfor word; do file=$word; done\ncat \"$file\" >>\"{0}/asked\"\n"
                       "cat \"{0}/answer\"\n".format(tmp_path))
    program.chmod(stat.S_IRWXU)
    (tmp_path / "answer").write_text(answer)
    monkeypatch.setattr(locks.sys, "executable", str(program))


@pytest.mark.parametrize("packages, code, said", [
    ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages, 0 known flaws"),
    ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}], 1,
     "a 1: CVE-1, fixed in 1.1"),
    ([{"name": "a", "skip_reason": "?"}, {"name": "b", "version": "1", "vulns": []}], 0,
     "a: nothing is known of it"),
    ([{"name": "a", "skip_reason": "?"}], locks.UNREACHABLE, "could not be reached"),
    (None, locks.UNREACHABLE, "could not be reached"),
])
def test_an_audit_says_what_is_known_and_whether_anything_was(monkeypatch, tmp_path, capsys,
                                                              packages, code, said):
    fake(monkeypatch, tmp_path, "" if packages is None else json.dumps({"dependencies": packages}))
    monkeypatch.setattr(locks, "pins", lambda path: [("a", "1", "")])
    assert locks.audit("fed") == code
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_an_audit_asks_of_every_version_once(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path, json.dumps({"dependencies": [{"name": "a", "vulns": []}]}))
    locks.audit("fed")
    asked = (tmp_path / "asked").read_text().split()
    assert sorted(asked) == sorted({"{}=={}".format(package, version) for package, version, _ in
                                    locks.pins(locks.FOLDER / "fed.txt")})


def test_a_program_finds_the_locks_where_they_are():
    assert sorted(os.listdir(str(locks.FOLDER))) == [name + ".txt" for name in sorted(locks.LOCKS)]
    assert all(re.match(r"3\.[0-9]+$", lock.python) for lock in locks.LOCKS.values())
