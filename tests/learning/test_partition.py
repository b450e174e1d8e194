"""Who gets which samples: exactly one worker each, a minimum for everybody, the same on every
machine.
"""

import numpy as np
import pytest

from flq import config
from flq.errors import DataError
from flq.learning import partition as module
from flq.learning.datasets import load_dataset
from flq.learning.partition import partition, partition_hash, shard_hash
from tests.oracles import learning_oracle

LABELS = load_dataset("digits").y_train
CLIENTS = np.arange(len(LABELS)) * 7 % 23


def configuration(**values):
    return config.build({{"workers": "system.total_workers"}.get(name, "dataset." + name): value
                         for name, value in values.items()})


@pytest.mark.parametrize("values", [
    {"partition": "iid"},
    {"partition": "iid", "workers": 1437},
    {"partition": "non_iid", "dir_alpha": 100.0},
    {"partition": "non_iid", "dir_alpha": 0.1, "workers": 50},
    {"partition": "non_iid", "dir_alpha": 0.001, "workers": 20},
    {"partition": "non_iid", "dir_alpha": 0.1, "batch_size": 0},
    {"partition": "natural", "workers": 5},
    {"partition": "natural", "workers": 60},
])
def test_every_sample_goes_to_one_worker_and_everybody_has_enough(values):
    settings = configuration(**values)
    shards = partition(LABELS, CLIENTS, settings)
    workers, batch = settings.system.total_workers, settings.dataset.batch_size
    assert len(shards) == workers
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(len(LABELS)))
    assert min(len(shard) for shard in shards) >= max(1, min(batch, len(LABELS) // workers))
    assert all(shard.dtype == np.int64 and (np.diff(shard) > 0).all() for shard in shards)


def test_iid_shards_differ_by_one_sample_at_most_and_mix_the_labels():
    shards = partition(LABELS, None, configuration(partition="iid", workers=10))
    assert {len(shard) for shard in shards} == {143, 144}
    assert all(len(np.unique(LABELS[shard])) == 10 for shard in shards)


def test_a_small_alpha_is_more_uneven_than_a_large_one():
    def largest_label_share(alpha):
        shards = partition(LABELS, None,
                           configuration(partition="non_iid", dir_alpha=alpha, workers=10))
        return np.mean([np.bincount(LABELS[shard]).max() / len(shard) for shard in shards])

    assert largest_label_share(100.0) < 0.25 < 0.5 < largest_label_share(0.05)


def test_dirichlet_has_its_moments():
    alpha, workers = 0.3, 4
    table = module._dirichlet(np.random.Generator(np.random.Philox(3)), alpha, (20000, workers))
    np.testing.assert_allclose(table.sum(axis=1), 1)
    np.testing.assert_allclose(table.mean(axis=0), 1 / workers, atol=0.01)
    np.testing.assert_allclose(table.var(axis=0),
                               (workers - 1) / workers**2 / (workers * alpha + 1), rtol=0.05)


def test_natural_keeps_clients_whole():
    shards = partition(LABELS, CLIENTS, configuration(partition="natural", workers=5))
    owners = [set(CLIENTS[shard]) for shard in shards]
    assert sum(len(owned) for owned in owners) == 23
    assert {len(owned) for owned in owners} == {4, 5}
    names = np.array([f"sensor {client:02}" for client in CLIENTS])
    named = partition(LABELS, names, configuration(partition="natural", workers=5))
    assert partition_hash(named) == partition_hash(shards)


def test_natural_needs_clients():
    with pytest.raises(DataError, match="natural needs the data's own clients"):
        partition(LABELS, None, configuration(partition="natural"))


def test_local_is_the_whole_file_for_everybody():
    shards = partition(LABELS, None, configuration(partition="local", workers=3))
    assert [len(shard) for shard in shards] == [len(LABELS)] * 3


def test_fewer_samples_than_workers():
    with pytest.raises(DataError,
                       match="fewer training samples than workers; expected at least 11; got 10"):
        partition(LABELS[:10], None, configuration(partition="iid", workers=11))


@pytest.mark.parametrize("seed", range(20))
def test_filling_up_agrees_with_the_rule_read_slowly(seed):
    random = np.random.RandomState(seed)
    sizes = random.randint(0, 30, 8) * (random.uniform(size=8) < 0.5)
    shards = np.split(random.permutation(sizes.sum()), np.cumsum(sizes)[:-1])
    minimum = int(sizes.sum()) // 8
    expected = learning_oracle.fill_up(shards, minimum)
    module._fill_up(shards, minimum)
    assert [list(shard) for shard in shards] == expected


@pytest.mark.parametrize("seed", range(20))
def test_largest_remainder_agrees_with_hamiltons_method(seed):
    shares = np.random.RandomState(seed).dirichlet([0.5] * 6)
    assert module._largest_remainder(shares,
                                     97).tolist() == learning_oracle.largest_remainder(shares, 97)


@pytest.mark.parametrize("shares, total, counts", [
    ([0.5, 0.5], 3, [2, 1]),
    ([0.25, 0.25, 0.25, 0.25], 2, [1, 1, 0, 0]),
    ([1.0, 0.0, 0.0], 5, [5, 0, 0]),
    ([0.2, 0.3, 0.5], 10, [2, 3, 5]),
])
def test_largest_remainder_by_hand(shares, total, counts):
    assert module._largest_remainder(np.array(shares), total).tolist() == counts


def test_hashes_see_order_owner_and_content():
    a, b = np.array([0, 2, 4]), np.array([1, 3])
    assert len(partition_hash([a, b])) == len(shard_hash(a)) == 16
    others = [b, a], [np.array([0, 2]), np.array([1, 3, 4])], [np.array([0, 2, 4, 1, 3])]
    assert len({partition_hash(parts) for parts in ([a, b],) + others}) == 4
    assert shard_hash(a) == shard_hash(a.astype(np.int32)) != shard_hash(b)


@pytest.mark.parametrize("values, digits", [
    ({"partition": "iid", "workers": 10}, "d66e73f1a9b863ad"),
    ({"partition": "iid", "workers": 7, "seed": 3}, "9a1a68c81a3cf002"),
    ({"partition": "natural", "workers": 5}, "f627ec4c95800f0d"),
    ({"partition": "non_iid", "dir_alpha": 0.5, "workers": 10}, "517674916b099274"),
    ({"partition": "non_iid", "dir_alpha": 0.01, "workers": 10}, "1c98dddd9cc2c8d6"),
])
def test_golden_partitions(values, digits):
    assert partition_hash(partition(LABELS, CLIENTS, configuration(**values))) == digits
