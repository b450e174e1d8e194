"""Tokens: one secret, a token of its own for every worker, and what a wrong file or a wrong token
gets.
"""

import errno
import hashlib
import hmac
import os
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import revoked, tokens
from flq.errors import ConfigError, UnreachableError

SECRET = "0123456789abcdef" * 4


def _file(tmp_path, text, mode=0o600):
    path = str(tmp_path / "token")
    with open(path, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode("ascii"))
    os.chmod(path, mode)
    return path


def test_the_file_is_the_given_one_else_the_environments_else_the_home_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("FLQ_TOKEN", raising=False)
    assert tokens.token_path() == "/home/somebody/.flq/token"
    monkeypatch.setenv("FLQ_TOKEN", "/run/flq-token")
    assert tokens.token_path() == "/run/flq-token"
    assert tokens.token_path("mine") == "mine"


def test_a_secret_is_made_once_for_the_owner_alone(tmp_path):
    path = str(tmp_path / "new" / "folder" / "token")
    secret = tokens.make_secret(path)
    assert len(secret) == 64 and int(secret, 16) >= 0
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert tokens.make_secret(path) == secret == tokens.read_secret(path)


def test_two_secrets_differ(tmp_path):
    assert tokens.make_secret(str(tmp_path / "a")) != tokens.make_secret(str(tmp_path / "b"))


def test_rotating_makes_every_old_token_void(tmp_path):
    path = str(tmp_path / "token")
    old = tokens.make_secret(path)
    new = tokens.rotate_secret(path)
    assert new != old and tokens.read_secret(path) == new and os.listdir(str(tmp_path)) == ["token"]
    assert tokens.worker_of(new, tokens.worker_token(
        old, 3)) is None and not tokens.is_operator(new, old)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_rotation_that_was_cut_off_is_no_obstacle(tmp_path):
    path = str(tmp_path / "token")
    tokens.make_secret(path)
    with open(path + ".new", "w") as file:
        file.write("ha")
    assert len(tokens.rotate_secret(path)) == 64


def test_a_token_is_the_documented_one():
    mac = hmac.new(SECRET.encode("ascii"), b"worker 7", hashlib.sha256).hexdigest()
    assert tokens.worker_token(SECRET, 7) == "flq1.7." + mac


@given(st.integers(0, 65535))
def test_a_token_is_its_workers_and_nobody_elses(worker):
    token = tokens.worker_token(SECRET, worker)
    assert tokens.worker_of(SECRET, token) == worker
    assert tokens.worker_of(SECRET[::-1], token) is None
    assert tokens.worker_of(SECRET, token[:-1]) is None and tokens.worker_of(SECRET,
                                                                             token + "0") is None
    other = token.replace(f".{worker}.", f".{(worker + 1) % 65536}.")
    assert tokens.worker_of(SECRET, other) is None
    assert not tokens.is_operator(SECRET, token)


@pytest.mark.parametrize("token", [
    "", ".", "flq1", "flq1..", "flq1.1", "flq1.-1.x", "flq1.x.y", "flq1.1.2.3", "flq1.007.x",
    "flq1.123456.x", "flq1.\u00b2.x", "flq1.\u0663.x", "flq2.1.x", "flq1.1.\u00e4", SECRET
])
def test_what_is_no_token_is_nobodys(token):
    assert tokens.worker_of(SECRET, token) is None


def test_the_operators_token_is_the_secret_and_nothing_else():
    assert tokens.is_operator(SECRET, SECRET)
    for token in ("", SECRET[:-1], SECRET + "0", SECRET.upper(), "\u00e4"):
        assert not tokens.is_operator(SECRET, token)


@pytest.mark.parametrize("text, got", [("", "nothing"), ("\n", "nothing"),
                                       (tokens.worker_token(SECRET, 1), "a derived token")])
def test_a_file_without_a_secret_is_refused(tmp_path, text, got):
    with pytest.raises(ConfigError) as refusal:
        tokens.read_secret(_file(tmp_path, text))
    assert refusal.value.got == got


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (str(tmp_path / "nowhere"), str(tmp_path), _file(tmp_path, b"\xff\xfe")):
        with pytest.raises(ConfigError) as refusal:
            tokens.read_secret(path)
        assert path in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", [
    b"\xff\xfe5\x00e\x00", b"two words", b"5e\r\n5e\n", b"flq1.4.5e\nX-Header: 1", b"flq1.4.5e\x00"
])
def test_a_file_that_holds_no_token_is_named_to_a_worker_too(tmp_path, text):
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as refusal:
        tokens.token_for_worker(path, 4)
    assert str(refusal.value).startswith(f"{path} holds no token; expected one line")


def test_a_file_that_a_worker_cannot_read_now_is_no_missing_one(tmp_path):
    with pytest.raises(UnreachableError) as refusal:
        tokens.token_for_worker(str(tmp_path), 4)
    assert str(refusal.value).startswith(
        f"cannot read the token file {tmp_path}; got Is a directory; ")


def test_a_file_that_cannot_be_made_is_named(tmp_path):
    _file(tmp_path, "a file, no folder")
    os.symlink(str(tmp_path / "gone"), str(tmp_path / "dangling"))
    for path in (str(tmp_path / "token" / "x"), str(tmp_path / "dangling" / "x")):
        with pytest.raises(ConfigError) as refusal:
            tokens.make_secret(path)
        assert path in str(refusal.value) and "--token_file" in str(refusal.value)


def test_a_full_disk_leaves_the_old_secret_or_none(tmp_path, monkeypatch):
    path = str(tmp_path / "token")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="cannot write the token file .* No space left"):
            tokens.make_secret(path)
    assert os.listdir(str(tmp_path)) == []
    secret = tokens.make_secret(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="cannot write the token file .* No space left"):
            tokens.rotate_secret(path)
    assert tokens.read_secret(path) == secret and os.listdir(str(tmp_path)) == ["token"]


def test_a_folder_in_the_place_of_the_secret_is_one_line_and_stays_alone(tmp_path):
    (tmp_path / "token").mkdir()
    with pytest.raises(ConfigError, match="cannot write the token file .* Is a directory"):
        tokens.rotate_secret(str(tmp_path / "token"))
    assert os.listdir(str(tmp_path)) == ["token"]


def test_of_two_masters_that_start_at_once_both_have_the_secret_of_the_first(tmp_path, monkeypatch):
    path, link = str(tmp_path / "token"), os.link
    first = []

    def other_is_first(mine, target):
        monkeypatch.setattr(os, "link", link)
        first.append(tokens.make_secret(str(tmp_path / "token")))
        link(mine, target)

    monkeypatch.setattr(os, "link", other_is_first)
    monkeypatch.setattr(os, "getpid", lambda: 1)  # of both, where each has a container of its own
    assert tokens.make_secret(path) == first[0] and os.listdir(str(tmp_path)) == ["token"]


def test_a_worker_derives_its_token_or_reads_its_own(tmp_path):
    own = tokens.worker_token(SECRET, 4)
    assert tokens.token_for_worker(_file(tmp_path, SECRET + "\n"), 4) == own
    assert tokens.token_for_worker(_file(tmp_path, own + "\n"), 4) == own
    assert tokens.token_for_worker(str(tmp_path / "not yet"), 4) is None
    assert tokens.token_for_worker(_file(tmp_path, ""), 4) is None


def test_another_workers_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        tokens.token_for_worker(_file(tmp_path, tokens.worker_token(SECRET, 4)), 5)
    assert refusal.value.expected == "worker 5" and refusal.value.got == "worker 4"
    assert "--worker 5" in refusal.value.hint


def test_a_secret_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path):
    for mode, words in ((0o604, "read it"), (0o602, "change it"), (0o660, "change it")):
        path = _file(tmp_path, SECRET + "\n", mode)
        for reader in (tokens.read_secret, tokens.make_secret,
                       lambda path: tokens.token_for_worker(path, 4)):
            with pytest.raises(ConfigError) as refusal:
                reader(path)
            line = str(refusal.value)
            assert words in line and f"got {mode:04o}; chmod 600 {path}" in line
            assert SECRET not in line and "\n" not in line
    os.chmod(path, 0o600)
    assert tokens.read_secret(path) == SECRET


def test_a_new_secret_can_be_made_where_the_old_one_was_open(tmp_path):
    path = _file(tmp_path, SECRET + "\n", 0o644)
    fresh = tokens.rotate_secret(path)
    assert tokens.read_secret(path) == fresh != SECRET


def test_a_workers_own_token_is_read_whoever_else_may(tmp_path):
    own = tokens.worker_token(SECRET, 4)
    assert tokens.token_for_worker(_file(tmp_path, own, 0o644), 4) == own


def test_a_secret_that_can_be_guessed_is_told_of():
    assert tokens.weakness(SECRET) is None
    for weak in ("hunter2", SECRET[:31], "ab" * 32):
        assert "--rotate" in tokens.weakness(weak)


@pytest.mark.parametrize("key, holder", [("0", ("worker", "0")), ("65535", ("worker", "65535")),
                                         ("operator-ann", ("operator", "ann")),
                                         ("viewer-7_x-y", ("viewer", "7_x-y"))])
def test_every_holder_has_a_key_and_a_token_of_its_own(key, holder):
    found = tokens.holder(key)
    assert found == holder and found.key == key
    token = tokens.token_of(SECRET, found)
    assert token.startswith(f"flq1.{key}.") and tokens.holder_of(SECRET, token) == found
    assert tokens.holder_of(SECRET[::-1], token) is None
    other = token.replace("operator-", "viewer-").replace("viewer-7", "operator-7")
    assert other == token or tokens.holder_of(SECRET, other) is None, "a role is not exchanged"
    assert (tokens.worker_of(SECRET, token) is None) == (holder[0] != "worker")
    assert not tokens.is_operator(SECRET, token)


@pytest.mark.parametrize("key", [
    "", "-1", "007", "65536", "operator", "operator-", "operator-Ann", "operator-a b",
    "operator-owner", "operator-" + "x" * 33, "viewer-\u00e4", "worker-3", "3\n", "viewer-a.b"
])
def test_what_is_no_holder_is_refused(key):
    with pytest.raises(ConfigError, match="nobody has a token by that name"):
        tokens.holder(key)
    assert tokens.holder_of(SECRET, f"flq1.{key}." + "0" * 64) is None


def test_a_revoked_token_is_void_and_the_next_one_and_all_others_are_good(tmp_path):
    path = _file(tmp_path, SECRET + "\n")
    listed = revoked.beside(path)
    first = {m: tokens.worker_token(SECRET, m) for m in (2, 3)}
    assert revoked.revoke_token(path, "3") == 1
    now = revoked.read(listed)
    assert tokens.worker_of(SECRET, first[3], now) is None
    assert tokens.worker_of(SECRET, first[2], now) == 2
    second = tokens.worker_token(SECRET, 3, now)
    assert second != first[3] and tokens.worker_of(SECRET, second, now) == 3
    assert tokens.token_for_worker(path, 3) == second, "derived where the secret is"
    assert tokens.was_revoked(SECRET, first[3], now) and not tokens.was_revoked(
        SECRET, second, now) and not tokens.was_revoked(SECRET, second[:-1], now)
    assert revoked.revoke_token(path, "3") == 2
    now = revoked.read(listed)
    assert tokens.worker_of(SECRET, second, now) is None
    assert tokens.was_revoked(SECRET, first[3], now) and tokens.was_revoked(SECRET, second, now)


def test_the_line_for_a_shell_gives_curl_the_token_in_no_argument(tmp_path):
    path = str(tmp_path / "the token's file")
    with open(path, "w") as file:
        file.write(SECRET + "\n")
    line = tokens.operator_command("PATCH", "http://127.0.0.1:5000/config", {"system.C": 3}, path,
                                   "a ca.pem")
    told = tmp_path / "told"
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >' + str(told) + "\ncat >>" + str(told) + "\n")
    curl.chmod(0o755)
    subprocess.check_call(["sh", "-c", line],
                          env=dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}"))
    assert told.read_text() == (
        '--cacert\na ca.pem\n-K\n-\n-X\nPATCH\n-d\n{"system.C": 3}\n'
        f'http://127.0.0.1:5000/config\nheader = "Authorization: Bearer {SECRET}"')
