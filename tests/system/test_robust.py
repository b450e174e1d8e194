"""Two workers of ten lie, with real processes: what the mean makes of it and what a rule does."""

import json
import os

import pytest

from benchmarks.robust_rules import BAD, WORKERS
from tests.system.quadratic import check_replay

LIARS = (os.path.join(os.path.dirname(os.path.abspath(__file__)), "liars.py"), "worker")
# Without bounds on uploads, which would refuse these: the rule is alone.
SETTINGS = (f"total_workers={WORKERS}", "quorum=all", "max_rounds=15", "model.name=softmax",
            "cohorts=1", "max_norm_ratio=0")


def loss(site, rule, attack):
    """That of the model that a run keeps, and the run's folder. The liars are one process."""
    name = f"{rule}-{attack}"
    master = site.master(*SETTINGS, f"aggregation={rule}", name=name)
    workers = [site.worker(f"{len(BAD)}-{WORKERS - 1}", master, name="honest-" + name),
               site.worker(f"{BAD[0]}-{BAD[-1]}", master, name="liars-" + name, script=LIARS,
                           ATTACK=attack)]
    assert [program.wait() for program in (*workers, master)] == [0, 0, 0]
    summary = json.loads((master.run_dir / "summary.json").read_text())
    return summary["loss"], master.run_dir


@pytest.fixture(scope="module")
def with_the_mean(site):
    """The loss of an honest run, and of one with liars."""
    return loss(site, "mean", "none")[0], loss(site, "mean", "scale")[0]


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "centered_clipping"])
def test_with_a_rule_two_liars_of_ten_cost_little(site, with_the_mean, rule):
    honest, spoilt = with_the_mean
    assert spoilt > 1.5 * honest, "or the attack shows nothing"
    bounded, directory = loss(site, rule, "scale")
    assert bounded < honest + 0.3 * (spoilt - honest)
    check_replay(site, directory)
