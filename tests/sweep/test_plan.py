"""What a sweep's file asks for, and how it is refused."""

import json

import pytest

from flq.errors import ConfigError
from flq.sweep.plan import read_plan


@pytest.fixture
def plan_of(tmp_path):
    def read(document):
        file = tmp_path / "sweep.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_plan(file)
    return read


def test_every_variant_meets_every_combination_of_the_grid_in_the_order_of_the_file(plan_of):
    plan = plan_of({
        "config": {"model": {"name": "softmax"}, "total_workers": 3},
        "variants": {"one bit": {"mode": "bin"}, "rd": {"mode": "rd", "rd_step": 4}},
        "grid": {"seed": [1, 0], "dir_alpha": [0.5, 10]},
    })
    assert [planned.name for planned in plan] == [
        f"{variant},seed={seed},dir_alpha={alpha}" for variant in ("one_bit", "rd")
        for seed in (1, 0) for alpha in (0.5, 10)
    ]
    last = plan[-1]
    assert (last.config.flq_algorithm.mode, last.config.flq_algorithm.rd_step) == ("rd", 4.0)
    assert (last.config.dataset.seed, last.config.dataset.dir_alpha) == (0, 10.0)
    assert all(planned.config.model.name == "softmax" and planned.config.system.total_workers == 3
               and planned.config.system.quorum == "all" for planned in plan)
    assert last.explicit == {
        "model.name", "system.total_workers", "flq_algorithm.mode", "flq_algorithm.rd_step",
        "dataset.seed", "dataset.dir_alpha"
    }


def test_every_part_may_be_missing(plan_of):
    assert [planned.name for planned in plan_of({})] == ["run"]
    assert [planned.name for planned in plan_of({"grid": {"seed": [3]}})] == ["seed=3"]
    assert [planned.name for planned in plan_of({"variants": {"a": {}}})] == ["a"]


def test_the_configuration_may_be_a_file_beside_it(plan_of, tmp_path):
    (tmp_path / "base.json").write_text('{"system": {"max_rounds": 7}}')
    assert plan_of({"config": "base.json"})[0].config.system.max_rounds == 7


def test_a_key_of_the_grid_wins_over_the_common_one(plan_of):
    plan = plan_of({"config": {"seed": 9}, "grid": {"dataset.seed": [1]}})
    assert [planned.config.dataset.seed for planned in plan] == [1]


@pytest.mark.parametrize("document, said", [
    ("[]", "is not a JSON object"),
    ("{", "is not valid JSON"),
    ('{"grid": {}, "grid": {}}', "appears twice"),
    ({"sets": {}}, "unknown part sets; expected config or variants or grid"),
    ({"config": 3}, "config is no object"),
    ({"config": {"sed": 1}}, "unknown key sed"),
    ({"config": "nowhere.json"}, "nowhere.json"),
    ({"variants": {"a": 3}}, "variant a is no object"),
    ({"variants": []}, "variants is no object"),
    ({"variants": {"a": {"modus": 1}}}, "variant a: unknown key modus"),
    ({"grid": {"seed": 3}}, "seed has no list of values"),
    ({"grid": {"seed": []}}, "seed has no list of values"),
    ({"grid": {"seed": [1], "dataset.seed": [2]}}, "dataset.seed is there twice"),
    ({"grid": {"sed": [1]}}, "grid: unknown key sed"),
    ({"variants": {"a": {"seed": 1}}, "grid": {"seed": [2]}},
     "dataset.seed is in the grid and in variant a"),
    ({"grid": {"seed": [1, 1]}}, "two runs have the folder seed=1"),
    ({"variants": {"a b": {}, "a_b": {}}}, "two runs have the folder a_b"),
    ({"variants": {"logs": {}}}, "cannot have the name logs"),
    ({"variants": {"comparison.png": {}}}, "cannot have the name comparison.png"),
    ({"variants": {"a" * 201: {}}}, "the name of a run's folder is too long"),
    ({"grid": {"seed": list(range(101)), "max_rounds": list(range(1, 101))}},
     "too many runs; expected at most 10000; got 10100"),
    ({"variants": {"few": {"total_workers": 2, "min_workers": 3}}},
     "run few: system.min_workers is larger than system.total_workers"),
    ({"grid": {"mode": ["bin", "laqq"]}}, "run mode=laqq: "),
])
def test_what_it_cannot_be_is_one_line(plan_of, document, said):
    with pytest.raises(ConfigError) as refused:
        plan_of(document)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("variant, folder", [
    ("../../etc", "_.._etc"), ("/", "_"), ("..", "run"), ("-rf", "rf"), ("a\x1b[2J\n", "a__2J_"),
    ("中文", "__"),
])
def test_a_name_makes_a_folder_inside_the_sweeps_own(plan_of, variant, folder):
    assert plan_of({"variants": {variant: {}}})[0].name == folder
