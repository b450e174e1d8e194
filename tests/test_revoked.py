"""The list of what was revoked: written whole, read strictly, and none of two changes is lost."""

import json
import os
import shutil
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


# --- another machine's list
# --------------------------------------------------------------------------------------------

NOTE = {"at": 1764547200, "by": "ann"}


def listed(tokens=None, certificates=None):
    """A list as another machine writes it. tokens: {key: times}."""
    notes = {key: dict(NOTE, times=times) for key, times in (tokens or {}).items()}
    document = {"tokens": notes, "certificates": dict.fromkeys(certificates or (), NOTE)}
    return json.dumps(document).encode("utf-8")


def content(token_file):
    with open(revoked.beside(token_file), "rb") as file:
        return file.read()


def test_of_two_lists_the_larger_number_of_each_holder_counts_and_every_certificate(token_file):
    for key in ("3", "3", "4", "viewer-bob"):
        revoked.revoke_token(token_file, key)
    revoked.revoke_certificate(token_file, FINGERPRINT)
    before = revoked.read(revoked.beside(token_file))
    assert revoked.merge(token_file, listed({"3": 1, "4": 5, "7": 1}, ["cd" * 32]))
    found = revoked.read(revoked.beside(token_file))
    assert {key: found.times(key) for key in found.tokens} == {
        "3": 2, "4": 5, "7": 1, "viewer-bob": 1}
    assert set(found.certificates) == {FINGERPRINT, "cd" * 32}
    assert found.tokens["3"] == before.tokens["3"] and found.tokens["4"]["by"] == "ann"
    assert stat.S_IMODE(os.stat(revoked.beside(token_file)).st_mode) == 0o600


def test_both_ways_two_lists_become_the_same_and_are_then_left_alone(token_file, tmp_path):
    (tmp_path / "there").mkdir()
    there = str(tmp_path / "there" / "token")
    shutil.copy(token_file, there)
    revoked.revoke_token(token_file, "3")
    revoked.revoke_certificate(there, FINGERPRINT)
    assert revoked.merge(token_file, content(there)) and revoked.merge(there, content(token_file))
    assert content(token_file) == content(there)
    seen = [os.stat(revoked.beside(path)).st_ino for path in (token_file, there)]
    assert not revoked.merge(token_file, content(there))
    assert not revoked.merge(there, listed())
    assert [os.stat(revoked.beside(path)).st_ino for path in (token_file, there)] == seen


def test_an_empty_list_of_another_machine_makes_no_file(token_file):
    assert not revoked.merge(token_file, listed())
    assert not os.path.exists(revoked.beside(token_file))


@pytest.mark.parametrize("data, got", [
    (b"", "no JSON"), (b"[" * 100000, "no JSON"), (b"\xff{}", "no JSON"), (b"[]", "no object"),
    (b"{}", "other JSON"), (b" " * (revoked.LARGEST + 1), "more than 4194304 bytes"),
    (listed({"3": 1001}), "a wrong number of times"), (listed({"3": 0}), "a wrong number of times"),
    (listed({"../3": 1}), "a name of nobody"), (listed((), ["\x1b[2J"]), "a name of nobody"),
    (listed({"3": 1}).replace(b'"times": 1', b'"times": ' + b"1" * 10 ** 6), "no JSON"),
    (listed({"3": 1}).replace(b'"times": 1', b'"times": 1e400'), "a wrong number of times"),
    (listed({"3": 1}).replace(b'"ann"', b'"\\u001b]0;title"'), "other notes"),
    (listed({"3": 1}).replace(b'"ann"', b'"' + b"a" * 257 + b'"'), "other notes"),
    (listed({"3": 1}).replace(b"1764547200", b"-1"), "other notes"),
    (listed({"3": 1}).replace(b"1764547200", b"true"), "other notes"),
    (listed({"3": 1}).replace(b'"by"', b'"more": {}, "by"'), "other notes"),
    (listed((), ["ab" * 32]).replace(b'"by": "ann"', b'"times": 1'), "other notes"),
])
def test_a_list_of_a_wrong_form_is_not_taken_and_changes_nothing(token_file, data, got):
    revoked.revoke_token(token_file, "3")
    before = content(token_file)
    with pytest.raises(ConfigError, match="another machine's list") as refusal:
        revoked.merge(token_file, data)
    assert refusal.value.got == got and str(refusal.value).isprintable()
    assert content(token_file) == before


def test_lists_do_not_grow_without_end(token_file, monkeypatch):
    revoked.revoke_certificate(token_file, FINGERPRINT)
    before = content(token_file)
    monkeypatch.setattr(revoked, "LARGEST", len(before) + 20)
    with pytest.raises(ConfigError, match="too much for one"):
        revoked.merge(token_file, listed((), ["cd" * 32]))
    assert content(token_file) == before


def test_what_is_revoked_while_lists_are_merged_is_not_lost(token_file):
    code = ("from flq import revoked; import sys; "
            "[revoked.revoke_token(sys.argv[1], '3') for _ in range(20)]")
    running = subprocess.Popen([sys.executable, "-c", code, token_file])
    for number in range(20):
        assert revoked.merge(token_file, listed((), [f"{number:064x}"]))
    assert running.wait() == 0
    found = revoked.read(revoked.beside(token_file))
    assert found.times("3") == 20 and len(found.certificates) == 20
