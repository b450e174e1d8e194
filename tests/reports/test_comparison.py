"""Means, bands, targets and warnings of runs beside each other."""

import json

import pytest

from flq.reports.comparison import band, compare_runs, curve, reached, to_json
from tests.reports.runs import in_folders, make_run, round_record, three_rounds


def played(*accuracies, **config):
    """A run with an accuracy for each round, None where it was not tested. Round k sends
    100 (k + 1) + 60 bits and takes k + 1 seconds.
    """
    return make_run([round_record(k, accuracy=value) for k, value in enumerate(accuracies)],
                    **config)


def test_what_a_target_cost_at_the_first_test():
    assert reached(played(0.1, 0.6, 0.4, 0.7), 0.6) == (2, 420, 630, 3.0)
    assert reached(played(0.1, None, 0.6), 0.6) == (3, 780, 1170, 6.0)
    assert reached(played(0.1, 0.59), 0.6) is None


def test_what_a_target_cost_by_the_mean_of_three_tests_in_a_row():
    run = played(0.1, 0.9, 0.1, 0.8, None, 0.9, 0.1)
    assert reached(run, 0.5) == (2, 420, 630, 3.0)
    # (0.9 + 0.1 + 0.8) / 3 is exactly 0.6, and the test of round 4 was left out
    assert reached(run, 0.6, 3).rounds == 4
    assert reached(run, 0.61, 3) is None
    assert reached(played(0.9, 0.9), 0.5, 3) is None


def test_without_a_wire_a_target_has_payload_bits_only():
    run = make_run([round_record(0, accuracy=0.9, wire_bits_up=None, wire_bits_down=None)])
    assert reached(run, 0.9) == (1, 160, None, 1.0)


@pytest.mark.parametrize("best, targets", [((0.93, 0.87), [0.85]), ((0.9, 0.9), [0.9]),
                                           ((0.04, 0.9), []), ((None, 0.9), []),
                                           ((1.0, 1.0), [1.0])])
def test_the_target_by_itself_is_what_every_run_reached(best, targets):
    runs = {f"run{index}": played(value) for index, value in enumerate(best)}
    assert compare_runs(in_folders(**runs)).targets == targets


def test_targets_are_sorted_and_each_counts_once():
    assert compare_runs(in_folders(a=played(0.9)), [0.9, 0.5, 0.9]).targets == [0.5, 0.9]


def test_a_band_is_where_all_curves_are():
    assert band([[(0, 0.0), (2, 1.0)], [(1, 0.2), (3, 0.4)]]) == [
        (1, pytest.approx(0.35), 0.2, 0.5), (2, pytest.approx(0.65), pytest.approx(0.3), 1.0)]
    assert band([[(0, 0.5)], [(0, 0.7)]]) == [(0, pytest.approx(0.6), 0.5, 0.7)]
    assert band([[(0, 0.5)], [(1, 0.7)]]) == band([[(0, 0.5)], []]) == band([]) == []


def test_a_curve_has_one_point_for_each_test_and_x():
    run = played(0.5, None, float("nan"), 0.8)
    assert curve(run, "round") == [(0, 0.5), (3, 0.8)]
    assert curve(run, "bits") == [(160, 0.5), (1240, 0.8)]
    assert curve(run, "seconds") == [(1.0, 0.5), (10.0, 0.8)]
    silent = make_run([round_record(0), round_record(1, payload_bits_up=0, payload_bits_down=0)])
    assert curve(silent, "bits") == [(160, 0.6)]


def test_mixed_data_sets_and_partitions_are_warned_of():
    comparison = compare_runs(in_folders(
        a=played(0.5), b=played(0.5, dataset__name="fmnist", dataset__partition="non_iid")))
    assert comparison.warnings == [
        "the runs have different data sets (digits, fmnist): their accuracies cannot be compared",
        "the runs have different partitions of the data (iid, non_iid): some of them are harder "
        "to learn from"
    ]
    assert compare_runs(in_folders(a=played(0.5), b=played(0.5))).warnings == []


def test_a_run_that_is_not_over_is_warned_of():
    comparison = compare_runs(in_folders(a=played(0.5), b=played(
        0.5, phase="UNFINISHED", dataset__seed=1)))
    assert comparison.warnings == ["b is UNFINISHED after 1 of 100 rounds"]
    longer = played(0.5, phase="UNFINISHED")
    longer.summary["max_rounds"] = 300  # as an operator set it
    assert compare_runs(in_folders(a=longer)).warnings == [
        "a is UNFINISHED after 1 of 300 rounds"]


def test_a_row_is_the_mean_over_seeds():
    comparison = compare_runs(in_folders(
        a=played(0.5, 0.9), b=played(0.5, 0.7, dataset__seed=1)), [0.65, 0.8])
    (row,) = to_json(comparison)["rows"]
    assert row["accuracy"] == {"mean": pytest.approx(0.8), "lowest": 0.7, "highest": 0.9}
    assert (row["seeds"], row["folders"], row["cohorts"]) == ([0, 1], ["a", "b"], 1)
    assert row["bits"]["up"] == {"nominal": 160, "payload": 300, "wire": 450, "float32": 1600}
    assert [(cost["accuracy"], cost["tests"], cost["reached"], cost["payload_bits"])
            for cost in row["targets"]] == [(0.65, 1, 2, 420), (0.65, 3, 0, None),
                                            (0.8, 1, 1, None), (0.8, 3, 0, None)]


def test_what_one_run_of_a_group_lacks_the_mean_lacks():
    comparison = compare_runs(in_folders(
        a=played(0.5), b=make_run([round_record(0, wire_bits_up=None, accuracy=None)],
                                  dataset__seed=1)))
    (row,) = to_json(comparison)["rows"]
    assert row["accuracy"] is None and row["bits"]["up"]["wire"] is None


def test_a_comparison_is_json():
    document = json.loads(json.dumps(to_json(compare_runs(in_folders(
        a=three_rounds(), b=make_run([], run_id="empty", flq_algorithm__mode="rd"))))))
    assert [row["label"] for row in document["rows"]] == ["laq", "rd"]
    assert document["rows"][0]["keys"] == {"flq_algorithm.mode": "laq"}
    assert document["warnings"] == [] and document["targets"] == []
