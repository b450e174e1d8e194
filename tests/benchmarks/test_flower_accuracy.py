"""Bits to an accuracy on Flower: what is read off the runs that were kept. test_flower_apps.py in
tests/integrations measures small ones.
"""

import json

import numpy as np

from benchmarks.peers import flower_accuracy


def test_the_table_sets_flqs_bits_beside_those_of_float32(tmp_path, capsys):
    for updates, bits in (("float32", 1e6), ("laq", 1e5)):
        (tmp_path / f"{updates}.json").write_text(json.dumps({
            "app": "pytorch", "updates": updates, "seed": 0, "nodes": 2, "points": [
                [number, 0.85, number * bits, number * bits, 1.0] for number in range(1, 4)]}))
    flower_accuracy.table(tmp_path)
    float32, laq = capsys.readouterr().out.splitlines()[2:]
    assert float32 == ("| pytorch | float32 | 3; 6.00e6 | 3; 6.00e6 | 0.850, 3 | 62,500 | 62,500 |")
    assert laq == ("| pytorch | laq | 3; 6.00e5; 1/10.0 | 3; 6.00e5; 1/10.0 | 0.850, 3 | 6,250 | "
                   "6,250 |")


def test_every_run_that_is_kept_says_what_it_was():
    kept = sorted(flower_accuracy.OUT.glob("*.json"))
    assert kept
    for path in kept:
        run = json.loads(path.read_text())
        stem = "".join(letter if letter.isalnum() else "_" for letter in run["updates"])
        assert path.name == f"{run['app']}-{stem}-{run['seed']}.json"
        assert run["updates"] in flower_accuracy.UPDATES and run["nodes"] == 10
        points = np.array(run["points"])
        assert (np.diff(points[:, 2:4], axis=0) > 0).all(), "bits add up"
        assert points[:, 0].tolist() == list(range(1, len(points) + 1)), "each round is there"


def test_shards_are_grey_images_from_0_to_1_and_each_sample_has_one_node():
    shards = flower_accuracy.Shards("digits", 3, 0)
    parts = [shards.of("train", node) for node in range(3)]
    assert sum(len(labels) for _, labels in parts) == 1437
    for images, labels in parts:
        assert images.shape == (len(labels), 8, 8, 1) and images.dtype == np.float32
        assert images.min() == 0 and images.max() == 1
