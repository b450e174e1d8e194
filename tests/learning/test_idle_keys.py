"""Keys of the data and of the local training that idle_keys.IDLE says change nothing: what a worker
computes is the same without them.
"""

import pytest

from flq import config
from flq.algorithm.server_optimizers import server_lr
from tests.learning.learners import learner
from tests.vectors import same_bits

OWN = "examples.custom_model:build"

# A row's path and reason: a value that is set, the settings in which the row holds, and some in
# which it does not.
CASES = {
    ("dataset.dir_alpha", "dataset.partition is not non_iid"):
        (0.01, {}, {"dataset__partition": "non_iid"}),
    ("model.init", "model.name is a model of your own, which brings its own weights"):
        ("zeros", {"model__name": OWN}, {}),
    ("model.l2_biases", "model.l2 is 0"):
        (True, {}, {"model__l2": 0.5, "model__local_steps": 3}),
    ("model.local_lr", "one local step sends its gradient, and model.lr is not derived from it"):
        (0.7, {"model__local_steps": 1, "model__lr": 0.2}, {"model__local_steps": 1}),
}


def _work(values):
    """What a worker sends in round 0, and what the master steps with."""
    values = dict({"model__name": "softmax"}, **values)
    subject = learner(workers=(0, 1), **values)
    model = config.build({name.replace("__", "."): value for name, value in values.items()}).model
    params, non_trainable = subject.initial()
    result = subject.local_update(params, non_trainable, 1, 0)
    return subject.partition_hash, params, result.update, server_lr(model,
                                                                    subject.num_local_steps(1))


def _same(first, second):
    return first[0] == second[0] and same_bits(first[1], second[1]) and same_bits(
        first[2], second[2]) and first[3] == second[3]


@pytest.mark.parametrize("path, reason", sorted(CASES))
def test_a_worker_computes_the_same_with_and_without_the_key(path, reason):
    value, idle, alive = CASES[path, reason]
    key = {path.replace(".", "__"): value}
    assert _same(_work(idle), _work(dict(idle, **key)))
    assert not _same(_work(alive), _work(dict(alive, **key)))
