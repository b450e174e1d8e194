"""flq.Config: from keywords, dicts, files and other configurations, checked as a file is."""

import copy
import doctest
import json
import pathlib
import pickle

import numpy as np
import pytest

import flq
import flq.api.configuration
from flq import config as configuration
from flq.errors import ConfigError


def test_its_examples():
    results = doctest.testmod(flq.api.configuration)
    assert results.failed == 0 and results.attempted > 4


@pytest.mark.parametrize("source", [
    {"mode": "bin", "max_rounds": 7, "dataset.name": "fmnist"},
    {"flq_algorithm": {"mode": "bin"}, "system": {"max_rounds": 7}, "dataset": {"name": "fmnist"}},
    {"flq_algorithm.mode": "bin", "system.max_rounds": np.int64(7), "dataset.name": "fmnist"},
], ids=["short keys", "sections", "paths"])
def test_every_way_to_say_it_is_the_same(tmp_path, source):
    path = tmp_path / "given.json"
    path.write_text(json.dumps(source, default=int))
    built = configuration.build(
        {"flq_algorithm.mode": "bin", "system.max_rounds": 7, "dataset.name": "fmnist"})
    for config in (flq.Config(source), flq.Config(
            str(path)), flq.Config(path), flq.Config(**source), flq.Config(flq.Config(source))):
        assert config == built and config.explicit == {
            "flq_algorithm.mode", "system.max_rounds", "dataset.name"
        }


def test_keywords_count_over_the_source_and_the_mode_decides_anew():
    config = flq.Config(flq.Config(mode="laq8", max_rounds=3), mode="bin",
                        data_dir=pathlib.Path("data"))
    assert (config.flq_algorithm.b_up, config.system.max_rounds,
            config.dataset.data_dir) == (1, 3, "data")
    assert flq.Config({"b_up": 3}, b_up=None).flq_algorithm.b_up == 4


@pytest.mark.parametrize("values",
                         [{}, {"mode": "laq8"}, {"mode": "rd", "rd_step": 1.0, "radius": "tensor"},
                          {"local_epochs": 2}, {"quorum": "all", "total_workers": 9},
                          {"sel_clients": 3, "lr": 0.5, "allowed_hosts": ["a", "b"]}])
def test_what_it_shows_makes_it_again(values):
    config, plain = flq.Config(values), configuration.build(values)
    assert eval(repr(config), {"Config": flq.Config}) == config == plain
    assert len(repr(config)) < 120
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), flq.Config(plain),
                  flq.Config._make(plain)):
        assert type(again) is flq.Config and again == plain and set(
            again.explicit) - {"system.quorum"} <= set(config.explicit)


def test_a_configuration_that_came_resolved_takes_another_mode():
    assert flq.Config(configuration.build({"mode": "laq8"}), mode="bin") == flq.Config(mode="bin")


def test_the_quorum_of_a_resolved_configuration_is_kept_in_a_simulation():
    given = flq.Config(configuration.build({"quorum": "deadline"}))
    assert configuration.simulated(configuration.Loaded(given, set(
        given.explicit))).config.system.quorum == "deadline"
    assert configuration.simulated(configuration.load()).config.system.quorum == "all"


@pytest.mark.parametrize("source, keywords, line", [
    (None, {"mod": "bin"}, "configuration: unknown key mod; did you mean mode?"),
    (None, {"name": "mlp"
            }, "configuration: unknown key name; expected dataset.name or model.name; got name"),
    (None, {"data_dir": object},
     "dataset.data_dir cannot take this value; expected a text or null; got \"<class 'object'>\""),
    (7, {},
     "this is no configuration; expected a flq.Config, a dict, the path of a file or None; got int"
     ),
    ("no/such.json", {},
     "cannot read the configuration no/such.json; got No such file or directory; name a JSON file "
     "with --config"
     ),
])
def test_a_mistake_is_one_line(source, keywords, line):
    with pytest.raises(ConfigError) as refusal:
        flq.Config(source, **keywords)
    assert str(refusal.value) == line
