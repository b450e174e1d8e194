"""Which runs repeat one another, and what the others are called."""

from pathlib import Path

import pytest

from flq.reports.groups import grouped, key_text, seeds_of, set_by_hand, unnamed
from tests.reports.runs import in_folders, make_run, round_record


def run(**config):
    return make_run([round_record(0)], **config)


def labels(**runs):
    return [group.label for group in grouped(in_folders(**runs))]


def test_three_rates_have_three_labels():
    """4 is the default of laq, and named all the same."""
    runs = {f"r{bits}": run(flq_algorithm__b_up=bits) for bits in (2, 3, 4)}
    assert labels(**runs) == ["b_up=2", "b_up=3", "b_up=4"]


def test_what_follows_from_the_mode_is_no_difference():
    assert labels(a=run(), b=run(flq_algorithm__mode="rd"),
                  c=run(flq_algorithm__mode="bin")) == ["laq", "rd", "bin"]


def test_a_value_that_was_set_by_hand_is_one_also_beside_another_mode():
    assert labels(a=run(), b=run(flq_algorithm__memory="residual"),
                  c=run(flq_algorithm__mode="rd")) == [
                      "laq memory=reference", "laq memory=residual", "rd memory=reference"]


def test_data_set_and_model_speak_for_themselves_and_other_keys_have_names():
    assert labels(a=run(), b=run(dataset__name="fmnist", model__name="cnn"),
                  c=run(model__lr=0.5)) == [
                      "digits cnn_small lr=null", "fmnist cnn lr=null", "digits cnn_small lr=0.5"]


def test_runs_that_differ_only_in_seeds_are_one_group():
    first, second = grouped(in_folders(
        a=run(dataset__seed=7), b=run(flq_algorithm__mode="rd"), c=run(dataset__seed=8)))
    assert (first.label, first.folders, seeds_of(first)) == ("laq", ("a", "c"), [7, 8])
    assert (second.label, second.folders, seeds_of(second)) == ("rd", ("b",), [0])


def test_one_group_alone_is_called_by_its_mode():
    assert labels(a=run(), b=run(dataset__seed=1)) == ["laq"]


def test_where_a_seed_repeats_the_folders_tell_the_runs_apart():
    assert labels(nano=run(), pc=run()) == ["nano", "pc"]
    assert labels(nano=run(), pc=run(), other=run(flq_algorithm__mode="rd")) == [
        "laq (nano)", "laq (pc)", "rd"]


def test_folders_of_one_name_are_told_apart_by_those_above():
    groups = grouped([(Path("mine/run"), run()), (Path("yours/run"), run())])
    assert [group.folders for group in groups] == [("mine/run",), ("yours/run",)]
    same = grouped([(Path("run"), run()), (Path("run"), run())])
    assert [group.label for group in same] == ["run", "run"]


def test_a_machines_own_keys_are_no_difference():
    assert labels(a=run(), b=run(dataset__seed=1, logging__log_dir="x",
                                 security__protect_reads="never")) == ["laq"]


def test_many_differences_are_named_as_far_as_they_tell_the_runs_apart():
    groups = grouped(in_folders(
        a=run(), b=run(flq_algorithm__mode="rd", model__lr=0.5, model__local_lr=0.2,
                       dataset__batch_size=8)))
    assert [group.label for group in groups] == ["laq", "rd"]
    assert unnamed(groups) == ["dataset.batch_size", "model.lr", "model.local_lr"]
    assert groups[1].keys == {"flq_algorithm.mode": "rd", "dataset.batch_size": 8,
                              "model.lr": 0.5, "model.local_lr": 0.2}


def test_a_run_of_an_older_version_means_what_that_did():
    older = run(dataset__seed=1)
    del older.config["system"]["cohorts"]
    assert labels(a=run(), b=older) == ["laq"]


@pytest.mark.parametrize("mode", ["no_such_package:X", "antigravity:x", "\x1b[2J", "x" * 300])
def test_a_foreign_mode_is_shown_and_never_imported(mode, monkeypatch):
    monkeypatch.setattr("flq.user_code.load", None)
    foreign = run()
    foreign.config["flq_algorithm"].update(mode=mode, b_up=[{"deep": mode}])
    foreign.config["new_section"] = {"new_key": 10**400}
    label, other = labels(a=foreign, b=run())
    assert label.isprintable() and len(label) < 200 and other != label


def test_a_key_as_text():
    assert key_text("flq_algorithm.b_up", 4) == "b_up=4"
    assert key_text("model.name", "cnn") == "cnn"
    assert key_text("flq_algorithm.entropy_coding", True) == "entropy_coding=true"
    assert key_text("security.allowed_hosts", ["a" * 90]) == 'allowed_hosts=["' + 35 * "a" + "..."


def test_what_somebody_set():
    assert set_by_hand(run()) == {}
    assert set_by_hand(run(flq_algorithm__mode="rd", flq_algorithm__b_up=6)) == {
        "flq_algorithm.mode": "rd", "flq_algorithm.b_up": 6}
