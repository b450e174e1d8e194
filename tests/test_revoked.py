"""The list of what was revoked: written whole, read strictly, and none of two changes is lost."""

import json
import os
import stat
import subprocess
import sys

import pytest

from flq import revoked
from flq.errors import ConfigError

FINGERPRINT = "ab" * 32


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("secret\n")
    return str(path)


def test_nothing_is_revoked_without_a_file(token_file):
    assert revoked.read(revoked.beside(token_file)) == revoked.NOTHING == ({}, {})
    assert revoked.NOTHING.times("3") == 0


def test_what_was_revoked_is_read_again_with_who_did_it_and_when(token_file):
    revoked.revoke_token(token_file, "3")
    revoked.revoke_token(token_file, "viewer-bob")
    revoked.revoke_certificate(token_file, FINGERPRINT)
    revoked.revoke_certificate(token_file, FINGERPRINT)
    path = revoked.beside(token_file)
    found = revoked.read(path)
    assert set(found.tokens) == {"3", "viewer-bob"} and list(found.certificates) == [FINGERPRINT]
    assert found.times("3") == 1 and found.times("4") == 0
    for note in (found.tokens["3"], found.certificates[FINGERPRINT]):
        assert note["by"] == revoked.login_name() and note["at"] > 1600000000
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert revoked.NOTHING == ({}, {}), "the empty list stays empty"


def test_of_many_changes_at_once_none_is_lost(token_file):
    code = ("from flq import revoked; import sys; "
            "[revoked.revoke_token(sys.argv[1], '3') for _ in range(20)]")
    running = [subprocess.Popen([sys.executable, "-c", code, token_file]) for _ in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    assert revoked.read(revoked.beside(token_file)).times("3") == 60


@pytest.mark.parametrize("text, got", [
    ("", "no JSON"), ("[]", "no object"), ("{}", "other JSON"), ("\xff", "no JSON"),
    ("[" * 100000, "no JSON"),
    ({"tokens": {"3": {"times": 1}}, "certificates": []}, "other JSON"),
    ({"tokens": {"3": 1}, "certificates": {}}, "other JSON"),
    ({"tokens": {"03": {"times": 1}}, "certificates": {}}, "a name of nobody"),
    ({"tokens": {}, "certificates": {"AB" * 32: {}}}, "a name of nobody"),
    ({"tokens": {"3": {"times": True}}, "certificates": {}}, "a wrong number of times"),
    ({"tokens": {"3": {"times": -1}}, "certificates": {}}, "a wrong number of times"),
    ({"tokens": {"3": {"times": 10 ** 9}}, "certificates": {}}, "a wrong number of times"),
])
def test_a_damaged_list_is_no_empty_one(token_file, text, got):
    path = revoked.beside(token_file)
    with open(path, "wb") as file:
        file.write((text if isinstance(text, str) else json.dumps(text)).encode("latin-1"))
    with pytest.raises(ConfigError) as refusal:
        revoked.read(path)
    assert refusal.value.got == got and path in str(refusal.value)
    with pytest.raises(ConfigError):
        revoked.revoke_token(token_file, "3")


def test_what_cannot_be_read_or_written_is_named(token_file, tmp_path):
    os.mkdir(revoked.beside(token_file))
    with pytest.raises(ConfigError, match="Is a directory"):
        revoked.read(revoked.beside(token_file))
    with pytest.raises(ConfigError, match="cannot write .*; got No such file"):
        revoked.revoke_token(str(tmp_path / "none"), "3")


@pytest.mark.parametrize("given", ["", "ab", "AB" * 32, "ab" * 33, "worker-3.pem"])
def test_only_a_fingerprint_names_a_certificate(token_file, given):
    with pytest.raises(ConfigError, match="no certificate"):
        revoked.revoke_certificate(token_file, given)
