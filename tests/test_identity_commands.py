"""python -m flq token, certs and audit, without a master."""

import json
import os
import stat

import pytest

from flq import command_line, identity_commands, revoked, tokens
from flq.errors import ConfigError

SECRET = "0123456789abcdef" * 4


@pytest.fixture
def flq(tmp_path, capsys):
    """flq(words...) -> what the command printed; its token file is tmp_path/token."""
    def run(*words):
        parser = command_line.Parser(prog="flq")
        commands = parser.add_subparsers()
        identity_commands.add(commands)
        arguments = parser.parse_args([str(word) for word in words])
        assert arguments.run(arguments) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def make_store():
    from flq.master.store.run_store import RunStore

    return lambda directory: RunStore(directory, {"run_id": "run-1", "config": {}, "shapes": []})


@pytest.fixture
def token_file(tmp_path):
    path = str(tmp_path / "token")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(SECRET + "\n")
    return path


def test_each_holder_gets_its_token_and_after_a_revocation_the_next(flq, token_file):
    for words, key in ((("--worker", 3), "3"), (("--operator", "ann"), "operator-ann"),
                       (("--viewer", "bob"), "viewer-bob")):
        first = flq("token", *words, "--token_file", token_file).strip()
        assert first == tokens.token_of(SECRET, tokens.holder(key))
        text = flq("token", "--revoke", key, "--token_file", token_file)
        assert text.startswith(f"revoked: all tokens of {words[0][2:]} {words[1]} so far (1), in "
                               f"{token_file}.revoked\n")
        assert f"python -m flq token --{words[0][2:]} {words[1]}" in text
        second = flq("token", *words, "--token_file", token_file).strip()
        assert second != first
        listed = revoked.read(revoked.beside(token_file))
        assert tokens.holder_of(SECRET, second, listed) == tokens.holder(key)
    assert flq("token", "--token_file", token_file).strip() == SECRET


def test_a_rotation_voids_all_and_forgets_no_revocation(flq, token_file):
    flq("token", "--revoke", "3", "--token_file", token_file)
    fresh = flq("token", "--rotate", "--token_file", token_file).strip()
    assert fresh != SECRET and tokens.read_secret(token_file) == fresh
    assert revoked.read(revoked.beside(token_file)).times("3") == 1
    printed = flq("token", "--worker", 3, "--token_file", token_file).strip()
    assert printed == tokens.token_for_worker(token_file, 3)


@pytest.mark.parametrize("words", [("--revoke", "worker-3"), ("--revoke", "operator-owner"),
                                   ("--operator", "Ann"), ("--viewer", "a b")])
def test_nobody_by_that_name_has_a_token(flq, token_file, words):
    with pytest.raises(ConfigError, match="nobody has a token by that name"):
        flq("token", *words, "--token_file", token_file)
    assert not os.path.exists(revoked.beside(token_file))


def test_only_beside_a_secret_something_is_revoked(flq, tmp_path):
    path = tmp_path / "token"
    path.write_text(tokens.worker_token(SECRET, 3))
    for words in (("token", "--revoke", "3"), ("certs", "--revoke", "ab" * 32)):
        with pytest.raises(ConfigError, match="does not hold the operator's token"):
            flq(*words, "--token_file", path)
        with pytest.raises(ConfigError, match="cannot read the token file"):
            flq(*words, "--token_file", tmp_path / "none")
    assert os.listdir(str(tmp_path)) == ["token"]


def test_the_list_is_for_its_owner_alone(flq, token_file):
    flq("token", "--revoke", "3", "--token_file", token_file)
    assert stat.S_IMODE(os.stat(revoked.beside(token_file)).st_mode) == 0o600


def test_a_certificate_is_revoked_by_its_digits_as_openssl_prints_them(flq, token_file):
    digits = ":".join(["AB"] * 32)
    assert "ab" * 32 in flq("certs", "--revoke", digits, "--token_file", token_file)
    assert list(revoked.read(revoked.beside(token_file)).certificates) == ["ab" * 32]


@pytest.mark.parametrize("words, said", [
    ((), "what is to be made"), (("--out", "c"), "what is to be made"),
    (("host",), "what is to be made"), (("--revoke", "x", "--out", "c"), "--revoke makes no"),
    (("--worker", "0-300", "--out", "c"), "not for that many"),
    (("--worker", "x", "--out", "c"), "a number like 3 or a range"),
    (("--operator", "owner", "--out", "c"), "nobody has a token by that name")])
def test_what_cannot_be_made_is_one_line_and_makes_nothing(flq, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        flq("certs", *words)
    assert not (tmp_path / "c").exists()


def test_an_audit_shows_who_did_what_when_and_from_where(flq, tmp_path, make_store):
    from flq.master.store.events import Join, KeyChange, Pause, Remove, Rollback, Stop

    store = make_store(tmp_path / "run")
    store.add_events(0, [Join(3, 7), KeyChange("model.lr", "10.0.0.9", None, 0.5)])
    store.add_events(4, [Pause("ann@10.0.0.9", 1764547200.0), Remove(3, True),
                         Rollback(2, "u@local")])
    store.add_events(5, [Stop("owner@::1 certificate " + "ab" * 32, 1764547201.5)])
    store.close()
    lines = flq("audit", tmp_path / "run").splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "- round 1 config model.lr: null -> 0.5 by 10.0.0.9",
        "2025-12-01T00:00:00Z round 5 pause by ann@10.0.0.9",
        "- round 5 remove worker 3 by unknown",
        "- round 5 rollback to the model of round 3 by u@local",
        "2025-12-01T00:00:01Z round 6 stop by owner@::1 certificate " + "ab" * 32]
    rows = json.loads(flq("audit", tmp_path / "run", "--json"))
    assert rows[1] == {"round": 4, "at": 1764547200.0, "by": "ann@10.0.0.9", "event": "pause"}
    assert rows[2]["by"] is None and rows[3]["to"] == 2


def test_a_run_that_nobody_steered_has_an_empty_audit(flq, tmp_path, make_store):
    make_store(tmp_path / "run").close()
    assert flq("audit", tmp_path / "run") == "no operator did anything\n"
    assert json.loads(flq("audit", tmp_path / "run", "--json")) == []
    with pytest.raises(ConfigError):
        flq("audit", tmp_path / "none")
