"""Files with secrets: what is refused, what is told, and what has no modes to judge."""

import os

import pytest

from flq.errors import ConfigError
from flq.host import private_files


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "a key"
    file.write_text("secret")
    return str(file)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o440, 0o610])
def test_what_others_cannot_read_or_change_is_let_in(path, mode):
    os.chmod(path, mode)
    private_files.check(path, "a secret")
    assert (private_files.warning(path, "a secret") is None) == (not mode & 0o077)


@pytest.mark.parametrize("mode, words", [(0o644, "read it"), (0o604, "read it"),
                                         (0o620, "change it"), (0o602, "change it"),
                                         (0o777, "change it")])
def test_what_others_can_is_refused_with_the_command(path, mode, words):
    os.chmod(path, mode)
    with pytest.raises(ConfigError) as refusal:
        private_files.check(path, "a secret")
    assert f"other users of this machine may {words}" in str(refusal.value)
    assert f"chmod 600 '{path}'" in str(refusal.value)
    assert f"has mode {mode:04o}" in private_files.warning(path, "a secret")


def test_what_is_no_file_and_what_has_no_modes_is_not_judged(path, tmp_path, monkeypatch):
    private_files.check(str(tmp_path / "none"), "a secret")
    private_files.check(str(tmp_path), "a secret")
    private_files.check("/dev/null", "a secret")
    os.chmod(path, 0o644)
    monkeypatch.setattr(os, "name", "nt")
    private_files.check(path, "a secret")
    assert private_files.warning(path, "a secret") is None


def test_a_link_is_judged_by_what_it_leads_to(path, tmp_path):
    os.chmod(path, 0o600)
    os.symlink(path, str(tmp_path / "link"))
    private_files.check(str(tmp_path / "link"), "a secret")
