"""A worker runs code and reads files at its master's word only where its owner named them."""

import os

import pytest

from flq import config
from flq.errors import ConfigError
from flq.worker import trust


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("FLQ_DATA_DIR", raising=False)


def check(shared, *allow, **own):
    trust.check(shared, config.load(None, own.get("settings", ())), allow)


def refusal(shared, *allow, **own):
    with pytest.raises(ConfigError) as refused:
        check(shared, *allow, **own)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- code

CODE = [("model.name", "mine.models:build"), ("dataset.name", "mine.models:load"),
        ("flq_algorithm.mode", "mine.models:SIGNS")]


@pytest.mark.parametrize("path, name", CODE)
def test_code_that_nobody_named_is_refused_with_what_grants_it(path, name):
    said = refusal({path: name})
    assert said == (
        f"the master wants this worker to run {path} {name}; expected code that --allow or "
        "security.allow names; got none; --allow mine.models grants it, if you trust that module")


@pytest.mark.parametrize("path, name", CODE)
@pytest.mark.parametrize("entry", ["mine.models", "mine", None])
def test_an_entry_is_a_name_its_module_or_a_package(path, name, entry):
    check({path: name}, "something.else", entry or name)


@pytest.mark.parametrize("entry", ["min", "mine.model", "mine.models.build", "mine.models:other",
                                   "mine.models.more", "models", "npz:mine.models"])
def test_an_entry_grants_nothing_beside_it(entry):
    assert "got ['" + entry in refusal({"model.name": "mine.models:build"}, entry)


def test_what_the_owners_own_configuration_names_is_granted():
    check({"dataset.name": "npz:/srv/mine.npz"}, settings=["dataset.name=npz:/srv/mine.npz"])
    shared = {"flq_algorithm.mode": "examples.custom_quantizer:TERNARY"}
    check(shared, settings=["mode=examples.custom_quantizer:TERNARY"])


def test_names_of_flq_need_no_grant():
    check(config.shared_values(config.build({"model.name": "mlp", "mode": "rd"})))
    check({"model.name": 5, "dataset.name": None, "flq_algorithm.mode": ["a:b"]})  # refused later


def test_a_name_cannot_steer_the_terminal_that_shows_the_refusal():
    assert "\x1b" not in refusal({"model.name": "mine\x1b[2J:build"})


@pytest.mark.parametrize("shared, hint", [
    ({"model.name": "mine; reboot:build"}, "--allow 'mine; reboot' grants it"),
    ({"dataset.name": "npz:/data/$(reboot).npz"}, "--allow 'npz:/data/$(reboot).npz' grants it"),
])
def test_what_grants_it_does_nothing_else_in_a_shell(shared, hint):
    """Who reads the refusal copies it, and the name is the master's."""
    assert hint in refusal(shared)


@pytest.mark.parametrize("entry", ["", "mine models", "mine/models.py", ":build", "mine:", "npz:",
                                   "--set", "mine..models", "mine.models:a:b", "7up"])
def test_an_entry_that_could_never_match_is_refused(entry):
    with pytest.raises(ConfigError) as refused:
        trust.check_entries(["mine", entry])
    assert "security.allow and --allow cannot take this value" in str(refused.value)


# --- files


def test_a_file_that_nobody_named_is_refused_with_what_grants_it():
    assert refusal({"dataset.name": "npz:/etc/shadow"}) == (
        "the master wants this worker to read npz:/etc/shadow; expected data in its own "
        "dataset.data_dir or FLQ_DATA_DIR, or that --allow or security.allow names; got none; "
        "--allow npz:/etc/shadow grants it, if that is your data for this run")
    assert "npz:mine.npz" in refusal({"dataset.name": "npz:mine.npz"})


def test_the_owners_data_folder_is_granted_and_nothing_beside_it(monkeypatch):
    names = ["npz:a.npz", "csv:b/c.csv?label=x&test=d.csv", "images:.", "npz:/data/a.npz"]
    for name in names:
        check({"dataset.name": name}, settings=["data_dir=/data"])
    monkeypatch.setenv("FLQ_DATA_DIR", "/data")
    for name in names:
        check({"dataset.name": name})
    for name in ("npz:../a.npz", "npz:b/../../a.npz", "npz:/database/a.npz", "npz:~/a.npz",
                 "images:/", "csv:b.csv?label=x&test=../c.csv", "csv:b.csv?label=x&test=/etc/c.csv",
                 "npz:/data/../etc/a.npz", "images:.."):
        assert "got ['/data']" in refusal({"dataset.name": name}), name


def test_a_path_that_climbs_is_in_no_folder_even_where_it_comes_back():
    """By its letters it would be inside; where `b` is a link it is not."""
    for name in ("npz:b/../a.npz", "images:b/..", "images:./b/./.."):
        assert "got ['/data']" in refusal({"dataset.name": name}, settings=["data_dir=/data"]), name
    assert "b/../a.npz" in refusal({"dataset.name": "npz:b/../a.npz"}, "npz:a.npz")


def test_a_path_climbs_by_each_separator_that_the_system_has(monkeypatch):
    monkeypatch.setattr(os, "altsep", "\\")  # Windows has two
    for name in ("npz:b\\..\\..\\a.npz", "npz:b/..\\../a.npz"):
        assert "got ['/data']" in refusal({"dataset.name": name}, settings=["data_dir=/data"]), name
    check({"dataset.name": "npz:b\\a.npz"}, "npz:b")


def test_a_folder_that_its_owner_wrote_with_dots_is_granted():
    for folder in ("../data", "./data/", "b/../data"):
        check({"dataset.name": "npz:a.npz"}, settings=["data_dir=" + folder])
        check({"dataset.name": f"npz:{folder}/a.npz"}, "npz:" + folder)
        refusal({"dataset.name": "npz:../a.npz"}, settings=["data_dir=" + folder])


def test_an_entry_names_a_file_or_a_folder_of_one_kind(tmp_path):
    os.symlink("/", str(tmp_path / "link"))
    check({"dataset.name": "npz:mine.npz"}, "npz:mine.npz")
    check({"dataset.name": "npz:./mine.npz"}, "npz:mine.npz")
    check({"dataset.name": "npz:data/mine.npz"}, "npz:data")
    check({"dataset.name": "csv:t.csv?label=x&test=u.csv"}, "csv:t.csv", "csv:u.csv")
    check({"dataset.name": f"npz:{tmp_path}/link/a.npz"}, f"npz:{tmp_path}")  # the owner's link
    assert "u.csv" in refusal({"dataset.name": "csv:t.csv?label=x&test=u.csv"}, "csv:t.csv")
    assert "csv:mine" in refusal({"dataset.name": "csv:mine?label=x"}, "npz:mine")
    assert "mine.npz2" in refusal({"dataset.name": "npz:mine.npz2"}, "npz:mine.npz")


def test_an_entry_may_be_the_whole_name_of_a_data_set():
    name = "csv:t.csv?label=x&test=u.csv"
    check({"dataset.name": name}, name)
    check({"dataset.name": "csv:t.csv?label=y"}, name)
    assert "v.csv" in refusal({"dataset.name": "csv:t.csv?label=x&test=v.csv"}, name)
    with pytest.raises(ConfigError, match="has an option that cannot be used.*did you mean label"):
        trust.check_entries(["csv:t.csv?lable=x"])


def test_a_master_does_not_set_what_is_a_machines_own():
    """It would be a way around all of this: the data folder is a key too."""
    shared = dict(config.shared_values(config.build({})), **{
        "dataset.data_dir": "/", "security.allow": ["os"], "security.max_params": 2**40,
        "logging.log_dir": "/etc", "jetson_optimization.gpu_memory_limit_mb": 1})
    own = config.load(None, ["data_dir=/data"])
    assert config.adopt(shared, own) == own.config
