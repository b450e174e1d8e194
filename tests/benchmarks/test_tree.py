"""A tree of masters, in small: its sums are those of one master, and its table says what was
played.
"""

import numpy as np
import pytest

from benchmarks import tree
from flq.learning.datasets import Dataset
from tests.benchmarks.test_scale import rows_of


@pytest.fixture(autouse=True)
def drawn_images(monkeypatch):
    """What stands for MNIST: its shapes, some of the images."""
    draw = np.random.RandomState(0)
    (x, y), (x_test, y_test) = (
        (draw.randint(0, 256, (number, 28, 28, 1)).astype(np.uint8),
         draw.randint(0, 10, number).astype(np.int32)) for number in (400, 50))
    found = Dataset(x, y, x_test, y_test, 10, None, 255.0)
    monkeypatch.setattr(tree, "load_dataset", lambda name: found)
    return found


def played(way, seed=1, rounds=4):
    data = tree.Data(seed, workers=40, groups=8)
    below = tree.Tree(way, data, seed)
    told = [below.play() for _ in range(rounds // way.rounds)]
    return below.root.model.params, told


def distance(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def test_a_worker_descends_as_a_plain_loop_does(drawn_images):
    data = tree.Data(1, workers=40, groups=8)
    params = np.random.RandomState(1).standard_normal(tree.LAYOUT.num_params).astype(np.float32)
    for worker, update in enumerate(data.train(params, 0, 40)):
        shard, weights = data.shards[worker], params.astype(np.float64)
        x = drawn_images.x_train[shard].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
        total = np.zeros_like(weights)
        for _ in range(tree.STEPS):
            logits = x / 255 @ weights[:-10].reshape(196, 10) + weights[-10:]
            error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            error[np.arange(len(shard)), drawn_images.y_train[shard]] -= 1
            gradient = np.append((x / 255).T @ error, error.sum(axis=0)) / len(shard)
            weights, total = weights - tree.LOCAL_LR * gradient, total + gradient
        assert distance(update, total / tree.STEPS) < 1e-3


@pytest.mark.parametrize("sites", [4, 8])
def test_without_quantising_a_tree_is_one_master(sites):
    flat, told = played(tree.Way(workers=tree.FLOAT32))
    deep, of_a_tree = played(tree.Way(sites, tree.FLOAT32, tree.FLOAT32))
    assert distance(deep, flat) < 1e-3  # such images amplify the last digit
    p = 4 * tree.LAYOUT.num_params
    assert all(round_["worker_up"] == round_["worker_down"] == p for round_ in told + of_a_tree)
    assert [(round_["root_up"], round_["root_down"]) for round_ in told] == 4 * [(40 * p, 40 * p)]
    assert [(round_["root_up"], round_["root_down"]) for round_ in of_a_tree
            ] == 4 * [(sites * p, sites * p)]
    assert max(round_["error"] for round_ in told + of_a_tree) < 1e-5


def test_rounds_at_a_site_are_steps_of_its_own():
    one, told = played(tree.Way(4, tree.FLOAT32, tree.FLOAT32, 1), rounds=4)
    four, of_four = played(tree.Way(4, tree.FLOAT32, tree.FLOAT32, 4), rounds=4)
    p = 4 * tree.LAYOUT.num_params
    assert (len(told), len(of_four)) == (4, 1) and of_four[0]["error"] is None
    # Each worker sends four times, and gets the root's broadcast and three of its site.
    assert (of_four[0]["worker_up"], of_four[0]["worker_down"]) == (4 * p, 4 * p)
    assert 1e-2 < distance(four, one) < 1


def test_the_second_quantisation_has_an_error_of_its_own():
    errors = {}
    for above in ("mode=laq", "mode=laq8"):
        _, told = played(tree.Way(4, tree.FLOAT32, (above,)))
        errors[above] = told[-1]["error"]
    assert errors["mode=laq"] > 5 * errors["mode=laq8"] > 1e-6


def test_each_run_is_played_once(tmp_path, capsys):
    command = ["--out", str(tmp_path), "--workers", "40", "--groups", "20", "--rounds", "4",
               "--seeds", "0", "1", "--plot", str(tmp_path / "tree.png"), "--ways",
               "one master, laq", "10 sites, laq above"]
    tree.main(command)
    first = capsys.readouterr().out
    assert [row[0] for row in rows_of(first)] == [tree.REFERENCE, "one master, laq",
                                                  "10 sites, laq above"]
    assert rows_of(first)[0][2:4] == ["0.0e+00", "0.0e+00"]
    assert all(float(value) > 0 for row in rows_of(first)[1:] for value in row[2:5])
    assert (tmp_path / "tree.png").read_bytes()[:4] == b"\x89PNG"
    tree.main(command)
    assert capsys.readouterr().out == first
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 6
