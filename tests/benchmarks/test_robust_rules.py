"""The benchmark of rules against bad workers, in small: what liars send, what is kept, what is
shown.
"""

import json
import sys

import numpy as np
import pytest

from benchmarks import robust_rules as benchmark
from flq.algorithm.robust_rules import RULES
from flq.errors import FlqError
from flq.simulation import run as simulation
from tests.system.quadratic import Quadratic


class Peer:
    """Stands for Flower's process, with the mean for every rule."""

    def __call__(self, rule, vectors, samples, bad):
        return np.average(vectors, axis=0, weights=samples).astype(np.float32), 0.25

    def close(self):
        pass


def updates(attack):
    """What all workers send in round 3, from a model that is not 0."""
    settings = benchmark.settings_of("digits", 0, "mean", ())
    liars, params = benchmark.Liars(Quadratic(settings), attack), np.ones(42, np.float32)
    params = params[:liars.layout.num_params]
    values = np.zeros(liars.layout.num_non_trainable, np.float32)
    return liars, [liars.local_update(params, values, worker, 3).update
                   for worker in range(benchmark.WORKERS)]


@pytest.mark.parametrize("attack, factor", [("none", 1), ("flip", -1), ("scale", -4),
                                            ("counts", -1)])
def test_bad_workers_send_their_update_as_the_attack_says(attack, factor):
    _, honest = updates("none")
    liars, sent = updates(attack)
    for worker in range(benchmark.WORKERS):
        expected = factor if worker in benchmark.BAD else 1
        np.testing.assert_array_equal(sent[worker], np.float32(expected) * honest[worker])
        claim = 10 if attack == "counts" and worker in benchmark.BAD else 1
        assert liars.num_samples(worker) == claim * (100 + 10 * worker)


def test_colluders_send_the_same_a_little_beside_the_mean():
    _, honest = updates("none")
    _, sent = updates("collude")
    others = np.array(honest[len(benchmark.BAD):])
    np.testing.assert_array_equal(sent[0], sent[1])
    np.testing.assert_allclose(sent[0], others.mean(axis=0) - 1.5 * others.std(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(sent[2:], honest[2:])


def test_what_was_measured_is_kept_and_not_measured_again(tmp_path, monkeypatch, capsys):
    command = ["robust_rules.py", "--out", str(tmp_path), "--small", "--tasks", "digits", "--seeds",
               "0", "1", "--attacks", "none", "flip", "--flower", "python-of-flower"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(benchmark, "Flower", lambda python: Peer())
    assert benchmark.main(Quadratic) == 0
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if line.startswith("| F")]
    assert len(rows) == 5 + 5 + 4 and "Flower | `mean` |" in rows[10]
    kept = json.loads((tmp_path / "digits-1.json").read_text())
    assert len(kept) == 2 * (5 + 5 + 4)
    # float32 and equal averages: the peer's mean is FLQ's
    assert kept["FLQ, float32/mean/none"]["accuracy"] == pytest.approx(
        kept["Flower/mean/none"]["accuracy"], rel=1e-5)
    del kept["FLQ, laq/krum/flip"]
    (tmp_path / "digits-1.json").write_text(json.dumps(kept))
    played = []
    play = benchmark.play
    monkeypatch.setattr(benchmark, "play", lambda *told: played.append(told) or play(*told))
    assert benchmark.main(Quadratic) == 0
    assert capsys.readouterr().out == shown and len(played) == 1


def test_a_run_that_diverges_is_shown_as_one(monkeypatch):
    def diverges(*told, **options):
        raise FlqError("the simulation ended early")

    monkeypatch.setattr(simulation, "simulate", diverges)
    found = benchmark.play(benchmark.settings_of("digits", 0, "mean", ()), None)
    assert found == {"accuracy": None, "refused": None}
    rows = benchmark.table([{"FLQ, laq/mean/flip": found}], "digits", ["none", "flip"])
    assert rows.splitlines()[2:] == ["| FLQ, laq | `mean` |  | diverged |"]


def test_each_rule_is_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["robust_rules.py", "--out", str(tmp_path), "--small",
                                      "--time", "--workers", "10", "25"])
    assert benchmark.main() == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[1] for row in rows] == 5 * ["10"] + 5 * ["25"]
    assert [row.split("`")[1] for row in rows] == 2 * ["mean", *RULES]


def test_the_mean_that_is_timed_is_the_mean():
    vectors = [np.arange(3, dtype=np.float32), np.full(3, 4, np.float32)]
    np.testing.assert_array_equal(benchmark.of_the_mean(vectors, 0, vectors[0]), [2, 2.5, 3])
