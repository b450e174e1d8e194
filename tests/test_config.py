"""The configuration: files and overrides, read strictly, and what keys must say together."""

import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import config
from flq.errors import ConfigError
from flq.idle_keys import without_effect
from flq.keys import KEYS, SECTIONS, check_value
from flq.modes import MEMORIES, MODES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NUMBERS = [key for key in KEYS if key.kind in (int, float)]
BY_KEY = pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)


def refusal(values=None, path=None, overrides=()):
    """The one line that a configuration is refused with."""
    with pytest.raises(ConfigError) as refused:
        if values is None:
            config.load(path, overrides)
        else:
            config.build(values)
    line = str(refused.value)
    assert "\n" not in line and refused.value.exit_code == 2
    return line


def file_of(tmp_path, document):
    path = str(tmp_path / "given.json")
    with open(path, "wb") as file:
        file.write(
            document if isinstance(document, bytes) else json.dumps(document).encode("ascii"))
    return path


# --- files


@pytest.mark.parametrize("flat, expected", [
    ({"total_workers": 4, "max_rounds": 100, "batch_size": 32, "mode": "laq8", "b_up": 8}, {
        "system.total_workers": 4, "system.max_rounds": 100, "dataset.batch_size": 32,
        "flq_algorithm.mode": "laq8", "flq_algorithm.b_up": 8
    }),
    ({
        "total_workers": 16, "max_rounds": 500, "batch_size": 64, "mode": "bbit",
        "up_budget_bits": 50000000
    }, {
        "system.total_workers": 16, "system.max_rounds": 500, "dataset.batch_size": 64,
        "flq_algorithm.mode": "bbit", "budget_selection.up_budget_bits": 50000000,
        "flq_algorithm.b_up": 4, "flq_algorithm.memory": "residual"
    }),
    ({"total_workers": 64, "max_rounds": 1000, "batch_size": 32, "mode": "bin", "sel_clients": 8}, {
        "system.total_workers": 64, "system.max_rounds": 1000, "dataset.batch_size": 32,
        "flq_algorithm.mode": "bin", "budget_selection.sel_clients": 8, "flq_algorithm.b_up": 1
    }),
], ids=["laq8", "bbit", "bin"])
def test_flat_keys_are_read_over_the_defaults(tmp_path, flat, expected):
    loaded = config.load(file_of(tmp_path, flat))
    assert loaded.explicit == {path for path in expected if path.split(".")[1] in flat}
    values, untouched = config.flat(loaded.config), config.flat(
        config.build({"flq_algorithm.mode": flat["mode"]}))
    assert {path: values[path] for path in expected} == expected
    follows = {"flq_algorithm.bad_workers"}  # total_workers
    assert {path for path in values if values[path] != untouched[path]} <= set(expected) | follows


def test_sections_and_flat_keys_may_stand_in_one_file(tmp_path):
    values = config.flat(
        config.load(
            file_of(tmp_path,
                    {"system": {"max_rounds": 7}, "dataset.name": "mnist", "mode": "bin"})).config)
    assert (values["system.max_rounds"], values["dataset.name"],
            values["flq_algorithm.mode"]) == (7, "mnist", "bin")


@pytest.mark.parametrize("document", [
    {"mode": "bin", "max_rounds": 7, "local_epochs": 2},
    {"flq_algorithm": {"mode": "bin"}, "system.max_rounds": 7, "model": {"local_epochs": 2}}])
def test_build_takes_the_names_that_a_file_takes(tmp_path, document):
    built = config.build(document)
    assert built == config.load(file_of(tmp_path, document)).config
    assert (built.flq_algorithm.mode, built.system.max_rounds, built.model.local_epochs,
            built.model.local_steps) == ("bin", 7, 2, None)


@pytest.mark.parametrize("document", [{"mode": "bin", "flq_algorithm.mode": "laq"},
                                      {"flq_algorithm": {"mode": "bin"}, "mode": "bin"}])
def test_a_key_by_two_of_its_names_is_refused(tmp_path, document):
    for line in (refusal(document), refusal(path=file_of(tmp_path, document))):
        assert "flq_algorithm.mode is set twice; expected one value" in line


def test_without_a_file_the_defaults_count():
    loaded = config.load()
    assert loaded.explicit == set() and loaded.config == config.build({})


@pytest.mark.parametrize(
    "document, words",
    [(b"", "not valid JSON"), (b"{", "not valid JSON"), (b"\xff\xfe", "not valid JSON"),
     (b"\xef\xbb\xbf{}", "not valid JSON"), (b"[]", "not a JSON object"),
     (b"null", "not a JSON object"), (b'{"mode": "bin", "mode": "laq"}', "'mode' appears twice"),
     (b'{"system": {}, "system": {}}', "'system' appears twice"),
     (b'{"system": {"max_rounds": 1, "max_rounds": 2}}', "'max_rounds' appears twice"),
     (b'{"system": {"max_rounds": 1}, "max_rounds": 2}', "system.max_rounds is set twice"),
     (b'{"max_rounds": 1, "system.max_rounds": 2}', "system.max_rounds is set twice"),
     (b'{"system": 3}', "section system is not an object"),
     (b'{"system": {"max_round": 3}}', "did you mean system.max_rounds?"),
     (b'{"system": {"mode": "bin"}}', "unknown key system.mode"),
     (b'{"sytem": {"max_rounds": 3}}', "unknown section sytem; expected system,"),
     (b'{"sytem": {"max_rounds": 3}}', "did you mean system?"),
     (b'{"zzzzzz": {}}', "unknown section zzzzzz; expected system,"),
     (b'{"sytem.max_rounds": 3}', "did you mean system.max_rounds?"),
     (b'{"l2": NaN}', "model.l2 cannot take this value"),
     (b'{"l2": Infinity}', "model.l2 cannot take this value"), ])
def test_a_file_that_cannot_be_used_is_named(tmp_path, document, words):
    path = file_of(tmp_path, document)
    line = refusal(path=path)
    assert words in line and (path in line or "cannot take" in line)


@pytest.mark.parametrize("path", ["nowhere.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, path):
    path = str(tmp_path / path)
    assert path in refusal(path=path)


def test_a_file_that_is_nested_too_deeply_is_named(tmp_path):
    assert "not valid JSON" in refusal(path=file_of(tmp_path, b"[" * 100000))


# --- names


@pytest.mark.parametrize("name, meant", [("batchsize", "batch_size"),
                                         ("system.totalworkers", "system.total_workers"),
                                         ("max_round", "max_rounds"), ("momentun", "momentum"),
                                         ("flq_algorithm.bup", "flq_algorithm.b_up"),
                                         ("thr_scal", "thr_scale"), ("sytem", "system"),
                                         ("system_quorum", "system.quorum"),
                                         ("flq_algoritm", "flq_algorithm")])
def test_an_unknown_key_is_refused_with_the_nearest_name(name, meant):
    assert f"unknown key {name}; did you mean {meant}?" in refusal({name: 1})
    assert f"--set: unknown key {name}; did you mean {meant}?" in refusal(overrides=[name + "=1"])


def test_a_section_is_no_key():
    assert "--set: system is a section; expected system.KEY" in refusal(overrides=["system=3"])
    with pytest.raises(ConfigError, match="system is a section"):
        config.change(config.build({}), "system", 3)


def test_a_name_like_no_other_is_refused_with_where_to_look():
    said = refusal({"zzzzzz": 1})
    assert "unknown key zzzzzz; docs/guide/configuration.md lists the keys" in said


def test_a_name_of_two_sections_needs_its_section():
    """name is the data set's and the model's."""
    assert "unknown key name" in refusal({"name": "mnist"})
    assert config.build({"dataset.name": "mnist"}).dataset.name == "mnist"


def test_a_name_of_two_sections_is_refused_with_both():
    line = refusal({"name": "mnist"})
    assert "dataset.name" in line and "model.name" in line


# --- values


@BY_KEY
def test_a_value_of_another_type_is_refused_by_name(key):
    wrong = {
        bool: [0, 1, "true", 1.0, [], {}], int: [1.0, "1", True, [], {}],
        float: ["1", True, [], {}], str: [1, True, 1.5, [],
                                          {}], list: ["x", 1, {}, [1], [None], True]
    }[key.kind]
    for value in wrong + ([] if key.null_means else [None]):
        line = refusal({key.path: value})
        assert line.startswith(
            key.path +
            " ") and "expected " + key.allowed in line and "got " + json.dumps(value) in line


@pytest.mark.parametrize("key", NUMBERS, ids=lambda key: key.path)
def test_a_number_out_of_its_range_is_refused(key):
    step = 1 if key.kind is int else 1e-3
    for value in ([] if key.low is None else [key.low - step]) + ([] if key.high is None else
                                                                  [key.high * 1.01 + step]):
        value = int(value) if key.kind is int else value
        assert refusal({key.path: value}).startswith(key.path + " cannot take this value")
    if key.kind is float:
        for value in (math.nan, math.inf, -math.inf):
            assert refusal({key.path: value}).startswith(key.path + " cannot take this value")


def test_an_integer_beyond_float64_is_out_of_range():
    assert refusal({"model.l2": 10 ** 400}).startswith("model.l2 cannot take this value")


@pytest.mark.parametrize("key", [key for key in KEYS if key.choices], ids=lambda key: key.path)
def test_a_word_that_is_a_choice_is_taken_beside_what_the_type_takes(key):
    for value in key.choices + ((True, False) if key.kind is bool else ()):
        check_value(key, value)


@pytest.mark.parametrize("key", [key for key in KEYS if key.choices], ids=lambda key: key.path)
def test_a_word_that_is_no_choice_is_refused_with_the_nearest_one(key):
    assert f"did you mean {key.choices[0]}?" in refusal({key.path: key.choices[0] + "x"})
    assert "expected " + key.allowed in refusal({key.path: ""})


def test_an_integer_is_a_number():
    rate = config.build({"model.lr": 1}).model.lr
    assert rate == 1.0 and isinstance(rate, float)


@pytest.mark.parametrize(
    "values, words",
    [({"system.min_workers": 5}, "system.min_workers is larger than system.total_workers"),
     ({"system.start_workers": 5}, "system.start_workers is larger than system.total_workers"),
     ({"model.local_epochs": 1, "model.local_steps": 1
       }, "set one of model.local_epochs and model.local_steps"),
     ({"model.local_steps": None}, "set one of model.local_epochs and model.local_steps"),
     ({"flq_algorithm.b_up": 1}, "use mode bin for that"),
     ({"flq_algorithm.b_up": 17}, "flq_algorithm.b_up does not fit mode laq"),
     ({"flq_algorithm.mode": "laq8", "flq_algorithm.b_up": 4
       }, "flq_algorithm.b_up does not fit mode laq8"),
     ({"flq_algorithm.mode": "bin", "flq_algorithm.b_up": 2
       }, "flq_algorithm.b_up does not fit mode bin"),
     ({"flq_algorithm.mode": "fedavg", "flq_algorithm.b_up": 8
       }, "flq_algorithm.b_up does not fit mode fedavg"),
     ({"flq_algorithm.mode": "qsgd", "flq_algorithm.b_up": 32
       }, "flq_algorithm.b_up does not fit mode qsgd"),
     ({"flq_algorithm.downlink": "laq", "flq_algorithm.b_down": 1
       }, "flq_algorithm.b_down does not fit downlink laq"),
     ({"flq_algorithm.downlink": "bin", "flq_algorithm.b_down": 4
       }, "flq_algorithm.b_down does not fit downlink bin"),
     ({"flq_algorithm.b_down": 17}, "flq_algorithm.b_down does not fit downlink"),
     ({"flq_algorithm.mode": "qsgd", "flq_algorithm.memory": "residual"
       }, "memory does not fit mode qsgd; expected none; got residual"),
     ({"flq_algorithm.mode": "bbit", "flq_algorithm.radius": "vector"
       }, "flq_algorithm.radius vector is for modes laq and rd"),
     ({"flq_algorithm.mode": "rd", "flq_algorithm.radius": "block"
       }, "flq_algorithm.radius block is for modes laq, bbit, bin and qsgd"),
     ({"flq_algorithm.downlink": "rd", "flq_algorithm.radius_down": "block"
       }, "flq_algorithm.radius_down block is for downlinks laq, bbit and bin; expected tensor"),
     ({"flq_algorithm.block_size": 96
       }, "flq_algorithm.block_size is no power of two; expected one of 16, 32, 64, 128, 256, 512"),
     ({"flq_algorithm.block_size_down": 4095}, "flq_algorithm.block_size_down is no power of two"),
     ({"flq_algorithm.memory": "none", "lazy_selection.thr_scale": 1
       }, "lazy transmission needs memory reference"),
     ({"flq_algorithm.mode": "bbit", "lazy_selection.thr_scale": 1
       }, "lazy transmission needs memory reference"),
     ({"system.cohorts": 5}, "system.cohorts is larger than system.total_workers; expected at most "
      "4; got 5"),
     ({"system.total_workers": 5, "system.cohorts": 2, "system.min_workers": 3
       }, "system.min_workers is larger than the smallest cohort; expected at most 2; got 3"),
     ({"flq_algorithm.aggregation": "krum"}, "flq_algorithm.aggregation krum with 1 bad workers "
      "needs more workers; expected system.total_workers 5 or more; got 4"),
     ({"flq_algorithm.aggregation": "median", "flq_algorithm.bad_workers": 2},
      "expected system.total_workers 5 or more; got 4"),
     ({"flq_algorithm.aggregation": "median", "flq_algorithm.weighting": "samples"},
      "flq_algorithm.weighting does not fit aggregation median; expected uniform; got samples; a "
      "worker says itself how many samples it has"),
     ({"flq_algorithm.aggregation": "median", "flq_algorithm.correction": "bids"},
      "flq_algorithm.correction does not fit aggregation median; expected none; got bids"),
     ({"flq_algorithm.aggregation": "median", "flq_algorithm.memory": "none"},
      "and memory none needs 3 uploads in every round; expected at least 3 with "
      "system.min_workers; got 1"),
     ({"flq_algorithm.aggregation": "median", "flq_algorithm.memory": "none", "system.quorum":
         "all", "budget_selection.sel_clients": 2}, "at least 3 with budget_selection.sel_clients"),
     ({"flq_algorithm.aggregation": "median", "flq_algorithm.mode": "bbit", "system.quorum": "all",
       "system.cohorts": 2}, "needs 3 uploads in every round; expected at least 3 with "
      "system.cohorts; got 2"),
     ({"flq_algorithm.aggregation": "median", "flq_algorithm.memory": "none", "system.quorum":
         "all", "budget_selection.up_budget_bits": 9000}, "up_budget_bits 0; got 9000"), ])
def test_values_that_contradict_each_other_are_refused(values, words):
    assert words in refusal(values)


# --- what null stands for


@pytest.mark.parametrize("mode, bits, memory", [("fedavg", 32, "none"), ("laq", 4, "reference"),
                                                ("laq8", 8, "reference"), ("bbit", 4, "residual"),
                                                ("bin", 1, "reference"), ("qsgd", 4, "none")])
def test_the_mode_decides_what_null_stands_for(mode, bits, memory):
    flq = config.build({"flq_algorithm.mode": mode}).flq_algorithm
    assert (flq.b_up, flq.memory) == (bits, memory) and mode in MODES
    assert config.build(
        {"flq_algorithm.mode": mode, "flq_algorithm.b_up": None,
         "flq_algorithm.memory": None}).flq_algorithm == flq


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_decides_the_memory_rate_where_nothing_is_lazy(mode):
    def rate(**values):
        return config.build(dict(values, mode=mode)).flq_algorithm.memory_rate

    row = MODES[mode]
    assert rate() == rate(memory_rate=None) == (row.memory_rate
                                                if row.memory == "reference" else 1.0)
    if "reference" in row.memories:
        assert rate(memory="reference") == row.memory_rate
        assert rate(memory="reference", thr_scale=1) == 1.0
        assert rate(memory="reference", thr_scale=1, memory_rate=0.25) == 0.25
    if "residual" in row.memories:
        assert rate(memory="residual") == 1.0


def test_a_rule_that_becomes_lazy_while_the_run_goes_on_leaves_the_memory_rate():
    """Both sides go on from what they hold."""
    before = config.build({"memory_rate": 0.25})
    assert config.change(before, "thr_scale", 1.0).flq_algorithm.memory_rate == 0.25
    assert config.change(config.build({}), "thr_scale", 1.0).flq_algorithm.memory_rate == 1.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_every_mode_but_qsgd_goes_with_every_memory(mode, memory):
    values = {"flq_algorithm.mode": mode, "flq_algorithm.memory": memory}
    if mode == "qsgd" and memory != "none":
        assert "flq_algorithm.memory does not fit mode qsgd; expected none" in refusal(values)
    else:
        assert config.build(values).flq_algorithm.memory == memory


@pytest.mark.parametrize("mode, bits, lazy_eps",
                         [("laq", 2, 0.0), ("laq", 3, 3.0), ("laq8", 8, 3.0), ("bbit", 4, 0.0),
                          ("bin", 1, 0.0), ("fedavg", 32, 0.0)])
def test_a_coarse_quantisers_errors_do_not_silence_it(mode, bits, lazy_eps):
    values = {"flq_algorithm.mode": mode, "flq_algorithm.b_up": bits}
    assert config.build(values).lazy_selection.lazy_eps == lazy_eps
    assert config.build(dict(values,
                             **{"lazy_selection.lazy_eps": 1.5})).lazy_selection.lazy_eps == 1.5


def test_the_quorum_decides_min_workers():
    assert config.build({"system.total_workers": 7}).system.min_workers == 1
    assert config.build({"system.total_workers": 7, "system.quorum": "all"}).system.min_workers == 7
    assert config.build(
        {"system.total_workers": 7, "system.quorum": "all",
         "system.min_workers": 3}).system.min_workers == 3


def test_the_number_of_cohorts_decides_the_correction():
    for cohorts, correction in ((1, "bids"), (2, "count")):
        nothing = config.build({"system.cohorts": cohorts, "flq_algorithm.correction": None})
        assert nothing.flq_algorithm.correction == correction
        bids = config.build({"system.cohorts": cohorts, "flq_algorithm.correction": "bids"})
        assert bids.flq_algorithm.correction == "bids"


@pytest.mark.parametrize("workers, bad", [(2, 1), (4, 1), (10, 2), (14, 2), (100, 20)])
def test_a_rule_against_bad_workers_believes_nothing_that_they_say(workers, bad):
    values = {"system.total_workers": workers, "system.quorum": "all"}
    flq = config.build(values).flq_algorithm
    assert (flq.weighting, flq.bad_workers) == ("samples", bad) and flq.correction != "none"
    if workers > 2 * bad:
        built = config.build(dict(values, aggregation="trimmed_mean"))
        flq = built.flq_algorithm
        assert (flq.weighting, flq.bad_workers, flq.correction) == ("uniform", bad, "none")
        assert built.system.cohorts == 1


def test_how_many_may_be_bad_can_change_while_a_run_goes_on():
    built = config.build({"system.total_workers": 10, "flq_algorithm.aggregation": "krum"})
    assert config.change(built, "bad_workers", 3).flq_algorithm.bad_workers == 3
    with pytest.raises(ConfigError, match="needs more workers"):
        config.change(built, "bad_workers", 4)
    with pytest.raises(ConfigError, match="cannot be changed"):
        config.change(built, "aggregation", "median")


def test_with_quorum_all_every_worker_is_there_whatever_its_cohort():
    system = config.build({"system.quorum": "all", "system.cohorts": 2}).system
    assert system.min_workers == system.total_workers == 4


def test_local_epochs_take_the_place_of_local_steps():
    model = config.build({"model.local_epochs": 2}).model
    assert (model.local_epochs, model.local_steps) == (2, None)
    assert config.build({"model.local_epochs": None}).model.local_steps == config.build(
        {}).model.local_steps


def test_null_stays_where_the_run_decides():
    nulls = {key.path: None for key in KEYS if key.null_means and key.name != "local_steps"}
    left = {path for path, value in config.flat(config.build(nulls)).items() if value is None}
    assert left == {
        "system.start_workers", "system.round_deadline_s", "dataset.data_dir", "model.lr",
        "model.local_epochs",
        "flq_algorithm.rd_target_bits", "flq_algorithm.rd_target_bits_down",
        "flq_algorithm.rho_max", "security.cafile"
    }


# --- overrides


@pytest.mark.parametrize(
    "override, path, value", [("system.max_rounds=5", "system.max_rounds", 5),
                              ("max_rounds=5", "system.max_rounds", 5),
                              (" max_rounds = 5 ", "system.max_rounds", 5),
                              ("lr=null", "model.lr", None), ("lr=0.5", "model.lr", 0.5),
                              ("lr=1e-3", "model.lr", 0.001),
                              ("l2_biases=true", "model.l2_biases", True),
                              ("mode=bin", "flq_algorithm.mode", "bin"),
                              ('mode="bin"', "flq_algorithm.mode", "bin"),
                              ("data_dir=/a=b", "dataset.data_dir", "/a=b"),
                              ('allowed_hosts=["a", "b"]', "security.allowed_hosts", ["a", "b"]),
                              ("master_url=http://h:1", "system.master_url", "http://h:1"),
                              ("dataset.name=npz:a.npz", "dataset.name", "npz:a.npz")])
def test_an_override_is_json_or_a_text(override, path, value):
    loaded = config.load(None, [override])
    assert config.flat(loaded.config)[path] == value and loaded.explicit == ({path} if value
                                                                             is not None else set())


def test_the_last_override_wins_over_the_file(tmp_path):
    loaded = config.load(file_of(tmp_path, {"max_rounds": 3, "mode": "bin"}),
                         ["max_rounds=4", "system.max_rounds=5"])
    assert loaded.config.system.max_rounds == 5 and loaded.config.flq_algorithm.mode == "bin"
    assert loaded.explicit == {"system.max_rounds", "flq_algorithm.mode"}


def test_an_override_without_a_value_is_refused():
    assert "--set takes section.key=value" in refusal(overrides=["max_rounds"])
    assert "system.max_rounds cannot take this value" in refusal(overrides=["max_rounds="])
    assert "system.max_rounds cannot take this value" in refusal(overrides=["max_rounds=true"])


# --- between machines


def test_the_shared_keys_are_all_but_a_machines_own():
    shared = config.shared_values(config.build({}))
    assert set(shared) == {key.path for key in KEYS if not key.local}
    assert json.loads(json.dumps(shared)) == shared, "they travel as JSON"


@pytest.mark.parametrize("values", [
    {}, {"flq_algorithm.mode": "bin", "system.quorum": "all", "system.total_workers": 9},
    {"model.local_epochs": 3, "lazy_selection.thr_scale": 0.5},
    {"flq_algorithm.mode": "fedavg", "model.lr": 0.25, "system.round_deadline_s": 12}])
def test_a_worker_adopts_the_masters_values_and_keeps_its_own(values):
    master = config.build(dict(values, **{"logging.log_level": "ERROR"}))
    adopted = config.adopt(json.loads(json.dumps(config.shared_values(master))),
                           config.load(None, ["log_level=DEBUG", "data_dir=/data"]))
    assert (adopted.logging.log_level, adopted.dataset.data_dir) == ("DEBUG", "/data")
    assert config.shared_values(adopted) == config.shared_values(master)


def test_a_worker_whose_file_says_the_same_is_welcome():
    master = config.build({"flq_algorithm.mode": "bin"})
    assert config.adopt(config.shared_values(master), config.load(None,
                                                                  ["mode=bin", "b_up=1"])) == master


def test_a_worker_whose_file_differs_learns_the_key_and_both_values():
    shared = config.shared_values(config.build({"system.max_rounds": 9}))
    with pytest.raises(ConfigError) as refused:
        config.adopt(shared, config.load(None, ["max_rounds=8"]))
    assert "system.max_rounds differs from the master's; expected 9; got 8" in str(refused.value)


def test_null_in_a_workers_file_sets_nothing():
    master = config.build({"flq_algorithm.mode": "laq8"})
    assert config.adopt(config.shared_values(master), config.load(None, ["b_up=null"])) == master


def test_a_newer_masters_keys_are_no_trouble():
    shared = dict(config.shared_values(config.build({})), **{"system.of_tomorrow": 1})
    assert config.adopt(shared, config.load()) == config.build({})


@pytest.mark.parametrize("mode", MODES)
def test_what_an_older_master_does_not_say_is_what_it_did(mode):
    """Nothing was below a memory rate of 1 before there was one, whatever a mode's default is."""
    shared = config.shared_values(config.build({"mode": mode}))
    del shared["flq_algorithm.memory_rate"]
    assert config.adopt(shared, config.load()).flq_algorithm.memory_rate == 1.0
    assert config.build_told(shared) == config.build({"mode": mode, "memory_rate": 1.0})


# --- at run time


@pytest.mark.parametrize("key", [key for key in KEYS if key.runtime], ids=lambda key: key.path)
def test_a_key_of_the_run_time_changes_alone(key):
    before = config.build({})
    value = 2 if key.kind is int else 0.5
    for name in (key.path, key.name):
        after = config.change(before, name, value)
        values = config.flat(after)
        assert values.pop(key.path) == value
        assert values == {
            path: old for path, old in config.flat(before).items() if path != key.path
        }


def test_a_change_of_the_lazy_threshold_leaves_the_memory_rate_of_the_run():
    """Both sides keep their sums for one rate."""
    run = config.load(None, ["mode=bin"]).config
    assert config.load(None, ["mode=bin", "thr_scale=1"]).config.flq_algorithm.memory_rate == 1.0
    changed = config.change(run, "lazy_selection.thr_scale", 1.0)
    assert changed.flq_algorithm == run.flq_algorithm and run.flq_algorithm.memory_rate == 0.1


@pytest.mark.parametrize("key", [key for key in KEYS if not key.runtime], ids=lambda key: key.path)
def test_every_other_key_cannot_change(key):
    with pytest.raises(ConfigError) as refused:
        config.change(config.build({}), key.path, key.default)
    assert f"{key.path} cannot be changed while a run goes on" in str(refused.value)


@pytest.mark.parametrize("path, value", [("system.max_rounds", 0), ("model.lr", "fast"),
                                         ("system.min_workers", 5), ("max_round", 3)])
def test_a_change_is_checked_like_a_file(path, value):
    with pytest.raises(ConfigError):
        config.change(config.build({}), path, value)


def test_a_change_is_checked_together_with_the_rest():
    with pytest.raises(ConfigError) as refused:
        config.change(config.build({"flq_algorithm.mode": "bbit"}), "lazy_selection.thr_scale", 1.0)
    assert "lazy transmission needs memory reference" in str(refused.value)


def test_null_at_run_time_is_the_default_again():
    changed = config.change(config.build({"system.total_workers": 3, "system.quorum": "all"}),
                            "min_workers", 2)
    assert config.change(changed, "min_workers", None).system.min_workers == 3


# --- keys that are gone


@pytest.mark.parametrize("name", ["lazy_selection.lazy_rule", "lazy_rule"])
def test_a_key_that_is_gone_is_read_and_named_in_a_warning(tmp_path, name):
    for loaded in (config.load(file_of(tmp_path,
                                       {name: "laq"})), config.load(None, [name + "=laq"])):
        assert loaded.config == config.build({})
        assert without_effect(loaded.config, loaded.explicit) == [
            "lazy_selection.lazy_rule is no key any more: LAQ's is the only lazy rule; remove it"]
    assert "lazy_selection.lazy_rule has an unknown value; expected laq; got \"lasg\"" in refusal(
        {name: "lasg"})
    with pytest.raises(ConfigError, match="lazy_selection.lazy_rule cannot be changed"):
        config.change(config.build({}), name, "laq")


def test_a_key_that_is_gone_is_no_trouble_between_machines():
    """The master may be of before, and the worker's file too."""
    shared = dict(config.shared_values(config.build({})), **{"lazy_selection.lazy_rule": "laq"})
    assert config.adopt(shared, config.load(None, ["lazy_rule=laq"])) == config.build({})


def test_nobody_is_led_to_a_key_that_is_gone():
    assert "lazy_rule" not in refusal({"lazy_rul": "laq"}) + refusal(
        {"lazy_selection.lazyrule": "laq"}).split("did you mean")[1]


# --- as JSON


def test_a_configuration_survives_json():
    built = config.build(
        {"flq_algorithm.mode": "bin", "model.lr": 0.1, "security.allowed_hosts": ["a"]})
    nested = json.loads(json.dumps(config.to_dict(built)))
    assert list(nested) == list(SECTIONS)
    values = {
        f"{section}.{name}": value for section, inner in nested.items()
        for name, value in inner.items()
    }
    assert values == config.flat(built) and config.build(values) == built


# --- anything at all

_TEXTS = st.lists(st.text(max_size=3), max_size=2)
_VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2**64, 2**64), st.floats(),
                    st.text(max_size=6), _TEXTS)


@given(st.dictionaries(st.sampled_from([key.path for key in KEYS]), _VALUES, max_size=5))
def test_values_of_anything_are_a_configuration_or_refused(values):
    try:
        built = config.build(values)
    except ConfigError as refused:
        assert "\n" not in str(refused)
        return
    assert config.build(config.flat(built)) == built


@pytest.mark.parametrize(
    "other", ["quorum=all", "memory=none", "mode=qsgd", "sel_clients=2", "up_budget_bits=100000"])
def test_late_updates_need_a_reference_a_deadline_and_no_budget(other):
    assert config.load(None, ["late_updates=apply"]).config.system.late_updates == "apply"
    with pytest.raises(
            ConfigError, match=
            "system.late_updates apply does not fit .*memory reference, quorum deadline and no "
            "budget"
    ):
        config.load(None, ["late_updates=apply", other])
    with pytest.raises(ConfigError, match="late_updates"):
        config.change(
            config.load(None, ["late_updates=apply"]).config, "budget_selection.sel_clients", 2)
