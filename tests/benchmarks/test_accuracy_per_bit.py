"""Bits to an accuracy: what is read off a run, what a wire adds, and a whole run in small."""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy_per_bit as benchmark
from benchmarks import laq_paper
from flq import config
from flq.records import Evaluation
from flq.simulation.run import simulate

OVERHEADS = {"one_phase": {"up": 100.0, "down": 50.0}, "two_phase": {"up": 200.0, "down": 60.0}}
RESULT = {
    "name": "rd", "seed": 0, "two_phase": False, "workers": 2,
    "points": [[1, 0.5, 2.0, 1000, 3000, 1.0], [3, 0.81, 0.9, 2000, 4000, 3.0],
               [5, 0.79, 0.8, 4000, 6000, 5.0]]
}


def test_the_wire_adds_each_workers_headers_of_each_round():
    points = benchmark.on_wire(RESULT, OVERHEADS)
    assert points[1] == [3, 0.81, 2000 + 3 * 2 * 8 * 100, 4000 + 3 * 2 * 8 * 50, 3.0]
    assert benchmark.on_wire(dict(RESULT, two_phase=True),
                             OVERHEADS)[0][2:4] == [1000 + 2 * 8 * 200, 3000 + 2 * 8 * 60]


def test_the_headers_of_a_round_are_those_of_its_cohort():
    points = benchmark.on_wire(dict(RESULT, cohorts=2), OVERHEADS)
    assert points[1] == [3, 0.81, 2000 + 3 * 8 * 100, 4000 + 3 * 8 * 50, 3.0]


def test_an_accuracy_can_be_the_mean_of_tests_in_a_row():
    points = benchmark.on_wire(RESULT, OVERHEADS)
    assert benchmark.averaged(points, 1) == points
    first, last = benchmark.averaged(points, 2)
    assert first == [3, pytest.approx(0.655), *points[1][2:]]
    assert last == [5, pytest.approx(0.8), *points[2][2:]]
    assert benchmark.averaged(points, 4) == []


def test_a_run_is_judged_by_the_best_mean_of_tests_in_a_row():
    assert benchmark.best_mean([0.5, 0.9, 0.1, 0.8], 2) == pytest.approx(0.7)
    assert benchmark.best_mean([0.5, 0.9], 3) == 0.0


def test_a_cell_has_the_means_of_the_runs_that_reached_the_level():
    runs = [[[3, 0.81, 1e6, 2e6, 3.0]], [[5, 0.82, 2e6, 3e6, 5.0]], [[7, 0.5, 0, 0, 0]]]
    assert benchmark.to_level(runs[:2], 0.8) == "4; 4.00e6; 4"
    assert benchmark.to_level(runs, 0.8) == "4; 4.00e6; 4 (2 of 3)"
    assert benchmark.to_level(runs, 0.9) == "not reached"


def test_a_level_is_reached_by_the_first_test_above_it():
    points = benchmark.on_wire(RESULT, OVERHEADS)
    assert benchmark.first_at(points, 0.8)[0] == 3 and benchmark.first_at(points, 0.9) is None


@pytest.mark.parametrize("bits, best", [(4000, 0.5), (7000, 0.81), (100, None), (20000, None)])
def test_the_best_within_a_budget_needs_a_run_that_spent_it(bits, best):
    points = [[rounds, accuracy, up, down, seconds]
              for rounds, accuracy, _, up, down, seconds in RESULT["points"]]
    assert benchmark.best_within(points, bits) == best


def test_a_share_of_the_workers_is_selected():
    size = benchmark.SIZES["full"]
    settings = benchmark.settings_of(size, benchmark.VARIANTS["rd of 30 %"], ["local_steps=3"],
                                     "fmnist", 2, 7)
    assert settings.budget_selection.sel_clients == 6 and settings.model.local_steps == 3
    assert settings.dataset.seed == 2 and settings.system.max_rounds == 7


@pytest.mark.parametrize("size", benchmark.SIZES)
@pytest.mark.parametrize("variant", [*benchmark.VARIANTS.values(), *benchmark.BEFORE.values()])
def test_every_variant_is_a_configuration(size, variant):
    settings = benchmark.settings_of(benchmark.SIZES[size], variant, [], "fmnist", 0, 1)
    assert settings.system.quorum == "all" and settings.dataset.batch_size == 64


@pytest.mark.parametrize("variant", benchmark.BEFORE)
def test_what_was_measured_before_follows_no_default_of_today(variant):
    settings = benchmark.settings_of(benchmark.SIZES["full"], benchmark.BEFORE[variant], [],
                                     "fmnist", 0, 1)
    assert settings.system.cohorts == 1 and settings.model.averaging == 0
    assert settings.flq_algorithm.memory_rate == 1
    assert "context" not in (settings.flq_algorithm.entropy_coding,
                             settings.flq_algorithm.entropy_coding_down)


def test_a_row_without_one_part_differs_in_that_alone():
    def algorithm(name):
        return benchmark.settings_of(benchmark.SIZES["full"], benchmark.VARIANTS[name], [],
                                     "fmnist", 0, 1)

    rd = algorithm("rd")
    assert rd.system.cohorts == 2 and rd.flq_algorithm.memory_rate == 0.4
    for name, section, key, value in (
            ("rd, all workers", "system", "cohorts", 1),
            ("rd, memory rate 1", "flq_algorithm", "memory_rate", 1.0),
            ("rd, blocks down", "flq_algorithm", "radius_down", "block"),
            ("rd, no average", "model", "averaging", 0.0)):
        other, changed = algorithm(name), getattr(rd, section)._replace(**{key: value})
        if name == "rd, all workers":  # whose correction follows from the cohorts
            other = other._replace(flq_algorithm=other.flq_algorithm._replace(
                correction=rd.flq_algorithm.correction))
        assert other == rd._replace(**{section: changed})
    coding = algorithm("rd, no contexts").flq_algorithm
    assert coding == rd.flq_algorithm._replace(entropy_coding=True, entropy_coding_down=True)


def test_the_memory_rates_differ_in_nothing_else():
    built = {
        name: benchmark.settings_of(benchmark.SIZES["small"], variant, [], "fmnist", 0, 1)
        for name, variant in benchmark.MEMORY_RATES.items()
    }
    for name, settings in built.items():
        mode, _, rate = name.partition(", a = ")
        assert settings.flq_algorithm.memory == "reference"
        assert settings.flq_algorithm.memory_rate == float(rate)
        others = settings.flq_algorithm._replace(memory_rate=1.0)
        assert others == built[mode + ", a = 1"].flq_algorithm


@pytest.mark.parametrize("until, bits", [(0.5, float("inf")), (1.0, 1.0)], ids=["accuracy", "bits"])
def test_a_run_stops_when_it_has_reached_what_it_is_for(tmp_path, monkeypatch, until, bits):
    monkeypatch.setattr(laq_paper.Regression, "evaluate", lambda *_: Evaluation(0.5, 1.0, 20))
    learner = laq_paper.Regression(
        np.arange(120, dtype=np.uint8).reshape(20, 6),
        np.arange(20) % 10)
    settings = config.load(None, laq_paper.TASK + ["mode=rd", "max_rounds=20000"]).config
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        _, run = executor.submit(simulate, settings, str(tmp_path / "run"), learner,
                                 benchmark.watcher(until, 3, bits, 0.01)).result()
    assert 0 < run.summary["rounds"] < 20000 and run.summary["phase"] == "STOPPED"


def test_the_smallest_run_gives_a_table(tmp_path):
    script = [sys.executable, str(Path(benchmark.__file__)), "--out", str(tmp_path)]
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    smallest = ["--small", "--dataset", "digits", "--variants", "rd", "--rounds", "3"]
    ran = subprocess.run(script + smallest, env=environment, stdout=subprocess.PIPE, check=True)
    assert b"rd seed 0: best 0." in ran.stdout and not (tmp_path / "rd-0.run").exists()
    (tmp_path / "overhead.json").write_text(json.dumps(OVERHEADS))
    shown = subprocess.run(
        script + ["--table", "--plot", str(tmp_path / "plot.png")], env=environment,
        stdout=subprocess.PIPE, check=True)
    assert b"| rd | 1 |" in shown.stdout and (tmp_path / "plot.png").stat().st_size > 0
