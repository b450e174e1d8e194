"""The short form of benchmarks/attacks.py: one bad worker, or strangers, against real processes."""

import pytest

from benchmarks import attacks


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """What the run comes to where the attacker's uploads are those of anybody."""
    return attacks.stage("none", "quadratic", tmp_path_factory.mktemp("honest"))["accuracy"]


@pytest.mark.parametrize("name, taken", [("scale", "39 of 40 taken"), ("drift", "2 of 40 taken")])
def test_poisoned_uploads_cost_no_accuracy(tmp_path, honest, name, taken):
    found = attacks.stage(name, "quadratic", tmp_path)
    assert found["its uploads"] == taken
    assert found["accuracy"] > honest - 0.03


def test_a_worker_with_2_to_the_40_samples_is_refused(tmp_path):
    assert attacks.stage("samples", "quadratic", tmp_path) == {"the worker": "refused"}


def test_a_bid_that_is_not_kept_takes_few_rounds(tmp_path):
    lost = attacks.stage("promise", "quadratic", tmp_path)["rounds without an upload"]
    assert int(lost.split()[0]) <= 3


def test_strangers_are_no_part_of_the_run(tmp_path):
    assert attacks.stage("noise", "quadratic", tmp_path) == {
        "counted as the run's": "0 kB of 2400", "the operator's next request": 200}


def test_slow_connections_keep_nobody_out(tmp_path):
    assert attacks.stage("slow loris", "quadratic", tmp_path)["not answered"] == 0
