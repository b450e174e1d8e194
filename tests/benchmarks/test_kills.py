"""Ends of every kind: a plan has them all, a short run survives them, and what is compared finds
what is wrong.
"""

import json
import random

import pytest

from benchmarks import kills
from benchmarks.kills import Cell, End, Failure
from flq.reports.run_files import load_run
from tests.system.processes import Site
from tests.system.quadratic import simulate_here

SCRIPTS = kills.PROGRAMS["quadratic"]


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(30))
def test_a_plan_has_ends_of_every_kind_and_no_point_that_nothing_arms(seed):
    for cell in (Cell("laq", "reference", "all"), Cell("laq", "reference", "simulate")):
        possible = kills.ENDS_OF_A_SIMULATION if cell.quorum == "simulate" else kills.ENDS
        planned, _ = kills.plan(cell, len(kills.ENDS), seed)
        assert {(end.victim, end.how) for end in planned} == set(possible)
        assert planned == kills.plan(cell, len(kills.ENDS), seed)[0]
        of_master = [end for end in planned if end.victim in ("master", "both")]
        assert not any(before.how == "stop" and after.point
                       for before, after in zip(of_master, of_master[1:]))
        assert all(end.how == "kill" and end.victim != "both" for end in planned if end.point)


def test_a_short_run_ends_as_if_nothing_had_happened(site):
    planned = [
        End("worker", "term", ""),
        End("master", "stop", ""),
        End("master", "paused term", "")
    ]
    rounds = kills.run_cell(Cell("bbit", "residual", "all"), SCRIPTS, planned, random.Random(0),
                            site)
    assert rounds == kills.ROUNDS_PER_END * len(planned)


def test_a_short_simulation_ends_as_if_nothing_had_happened(site):
    planned = [End("simulation", "kill", "")]
    rounds = kills.run_cell(Cell("laq", "reference", "simulate"), SCRIPTS, planned,
                            random.Random(0), site)
    assert rounds == kills.ROUNDS_PER_END * len(planned)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "run"
    simulate_here(directory, ["total_workers=3", "max_rounds=4", "mode=laq"])
    return directory


def test_a_whole_run_is_as_it_should_be(whole):
    kills.check_folder(whole, wired=False)
    kills.check_same(whole, whole)


def files(whole):
    return [json.loads((whole / name).read_text()) for name in ("history.json", "summary.json")]


def one_more(record, key):
    record[key] += 1


def one_less(rows):
    del rows[-1]


DAMAGE = {
    "payload_bits_up of round 2": lambda history, summary: one_more(
        next(row for row in history["workers"] if row["round"] == 2), "payload_bits"),
    "bits payload down of the summary": lambda history, summary: one_more(
        history["rounds"][1], "payload_bits_down"), "bits nominal up of the summary":
            lambda history, summary: one_more(summary["bits"]["up"], "nominal"),
    "selected of round 3": lambda history, summary: one_less(history["workers"]),
    "missing of round 1": lambda history, summary: history["rounds"][1]["missing"].append(7),
    "late and not missing of round 0": lambda history, summary: history["rounds"][0]["late"].append(
        0), "uploads of the summary": lambda history, summary: one_more(summary, "uploads"),
    "rounds of the summary": lambda history, summary: one_more(summary, "rounds"),
    "rows of no round": lambda history, summary: history["workers"].append(
        dict(history["workers"][0], round=9)),
}


@pytest.mark.parametrize("found", DAMAGE)
def test_rows_that_do_not_add_up_are_found(whole, found):
    history, summary = files(whole)
    DAMAGE[found](history, summary)
    with pytest.raises(Failure) as error:
        kills.check_rows(history, summary, wired=False)
    assert str(error.value).startswith(found)


def test_wire_bits_are_summed_where_there_is_a_wire(whole):
    history, summary = files(whole)
    for record in history["rounds"]:
        record.update(wire_bits_up=5, wire_bits_down=6)
    summary["bits"]["up"]["wire"], summary["bits"]["down"]["wire"] = 20, 24
    kills.check_rows(history, summary, wired=True)
    history["rounds"][2]["wire_bits_down"] = 7
    with pytest.raises(Failure, match="bits wire down of the summary: 24, not 25"):
        kills.check_rows(history, summary, wired=True)


@pytest.mark.parametrize("name, key, found",
                         [("config.json", "model", "another config.json"),
                          ("summary.json", "accuracy", "another summary.json"),
                          ("history.json", "rounds", "round 3: train_loss is 0"), ])
def test_files_that_are_not_those_of_the_whole_run_are_found(whole, tmp_path, name, key, found):
    for path in whole.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    values = json.loads((tmp_path / name).read_text())
    if key == "rounds":
        values["rounds"][3]["train_loss"] = 0
    else:
        values[key] = None
    (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(Failure) as error:
        kills.check_same(tmp_path, whole)
    assert str(error.value).startswith(found)


def test_files_that_are_not_what_the_store_says_are_found(whole, tmp_path):
    for path in whole.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    kills.check_folder(tmp_path, wired=False)
    run = load_run(tmp_path)
    run.rounds[0]["train_loss"] += 1.0
    kills.write_run(tmp_path, run)
    with pytest.raises(Failure, match="the store says something else than history.json"):
        kills.check_folder(tmp_path, wired=False)
