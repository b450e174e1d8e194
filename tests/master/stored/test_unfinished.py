"""Which run goes on by itself: the newest one that is unfinished and means the same."""

import json
import logging
import sqlite3

import pytest

from flq import config
from flq.errors import ConfigError
from flq.master.process import open_run
from flq.master.store.events import KeyChange
from flq.master.store.run_store import PAGE_BYTES, Ending, RunStore
from flq.master.stored.unfinished import newest_unfinished
from tests.master.store.test_run_store import commit_of


@pytest.fixture
def make(tmp_path):
    """make(run id, rounds, key=value...) -> the folder of a run of three rounds at most with that
    many closed.
    """
    def make_run(run_id, rounds, *settings, events=()):
        given = config.load(None, ["max_rounds=3", *settings]).config
        directory = tmp_path / ("run-" + run_id)
        store = RunStore(directory, {"run_id": run_id, "config": config.to_dict(given)})
        for round_ in range(rounds):
            store.commit_round(commit_of(round_, events=events if round_ == 0 else ()))
        store.close()
        return directory

    return make_run


@pytest.fixture
def find(tmp_path, caplog):
    """find(key=value...) -> (name of the folder or None, log lines)."""
    caplog.set_level(logging.INFO)

    def found(*settings):
        caplog.clear()
        answer = newest_unfinished(tmp_path, config.load(None, ["max_rounds=3", *settings]).config)
        if answer is not None:
            answer[1].close()
        return None if answer is None else answer[0].name, caplog.messages

    return found


def test_the_newest_unfinished_run_of_the_same_configuration_goes_on(make, find):
    assert find(
    )[0] is None and "(runs that are over: 0, of another configuration: 0): a new run" in find(
    )[1][0]
    make("20261124-100000-a", 1)
    make("20261124-110000-b", 2)
    make("20261124-120000-c", 3)
    make("20261124-130000-d", 1, "seed=7")
    name, said = find()
    assert name == "run-20261124-110000-b"
    assert any(
        "run-20261124-130000-d is unfinished but has another dataset.seed (7, not 0): not resumed"
        in line for line in said)
    assert any("run-20261124-110000-b: 2 rounds are done" in line for line in said)
    assert find("seed=7")[0] == "run-20261124-130000-d"


def test_a_machines_own_keys_make_no_other_configuration(make, find):
    make("a", 1, "log_level=DEBUG")
    assert find("log_level=ERROR")[0] == "run-a"


def test_the_number_of_rounds_in_force_decides_whether_a_run_is_over(make, find):
    def changed(new):
        return [
            KeyChange("system.max_rounds", "operator", 3, new)
        ]

    make("a", 2, events=changed(2))
    assert find()[0] is None
    make("b", 3, events=changed(4))
    assert find()[0] == "run-b"


@pytest.mark.parametrize("phase, over", [("FINISHED", True), ("STOPPED", True),
                                         ("UNFINISHED", False)])
def test_a_run_that_ended_is_over_until_it_goes_further(make, find, phase, over):
    store = RunStore(make("a", 2))
    store.add_ending(Ending(2, phase, {}, {}), ())
    store.close()
    assert find()[0] == (None if over else "run-a")
    store = RunStore(store.path.parent)
    store.commit_round(commit_of(2))
    store.add_events(
        3, [KeyChange("system.max_rounds", "operator", 3, 9)])
    store.close()
    assert find()[0] == "run-a", "it went on since"


def test_what_cannot_be_read_is_passed_over_with_a_warning(make, find, tmp_path):
    make("a", 1)
    torn = make("b", 2)
    with sqlite3.connect(torn / "run.db") as database:
        page = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'answers'").fetchone()[0]
    data = bytearray((torn / "run.db").read_bytes())
    data[PAGE_BYTES * (page - 1):PAGE_BYTES * page] = b"\7" * PAGE_BYTES
    (torn / "run.db").write_bytes(data)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.db").write_text("no database at all")
    name, said = find()
    assert name == "run-a"
    assert sum("c/run.db cannot be read" in line for line in said) == 1
    assert sum("run-b/run.db is damaged" in line for line in said) == 1


def test_a_run_that_is_being_served_is_not_begun_again_beside_it(make, find):
    serving = RunStore(make("a", 1))
    with pytest.raises(ConfigError, match="another master serves .*run-a.*--fresh"):
        find()
    serving.close()
    assert find()[0] == "run-a"


def test_keys_of_another_version_make_another_configuration(make, find):
    directory = make("a", 1)
    with sqlite3.connect(directory / "run.db") as database:
        database.execute(
            "UPDATE meta SET value = '{\"system\": {\"max_rounds\": 3, \"gone\": 1}}' WHERE key = "
            "'config'"
        )
    name, said = find()
    assert name is None and any("another set of keys" in line for line in said)


def test_a_run_that_was_stored_with_a_key_that_is_gone_goes_on(make, find):
    directory = make("a", 1)
    with sqlite3.connect(directory / "run.db") as database:
        given = json.loads(
            database.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()[0])
        given["lazy_selection"]["lazy_rule"] = "laq"
        database.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(given),))
    assert find()[0] == "run-a"
    asked = config.load(None, ["max_rounds=3", "lazy_rule=laq"])
    opened = open_run(str(directory), asked.config, asked.explicit)
    opened.store.close()
    assert opened.config == asked.config


@pytest.mark.parametrize("section, key, older, other", [("flq_algorithm", "memory_rate", 1.0, 0.5),
                                                         ("model", "averaging", 0.0, 0.5)])
def test_a_run_from_before_there_was_a_key_goes_on_without(make, find, section, key, older, other):
    directory, asked = make("a", 1), config.build({"mode": "bin", "max_rounds": 3})
    given = config.to_dict(asked)
    del given[section][key]
    with sqlite3.connect(directory / "run.db") as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(given),))
    opened = open_run(str(directory), asked, set())
    opened.store.close()
    assert getattr(getattr(opened.config, section), key) == older
    refusing = config.load(None, [f"{key}={other}"])
    with pytest.raises(ConfigError) as refused:
        open_run(str(directory), refusing.config, refusing.explicit)
    assert f"another {section}.{key}" in str(refused.value)
