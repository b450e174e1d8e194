"""Learners for tests, made once per configuration."""

import functools

from flq import config
from flq.learning.learner import build_learner


@functools.lru_cache(maxsize=None)
def _learner(values, workers, replicas):
    return build_learner(config.build(dict(values)), workers, evaluate=True, replicas=replicas)


def learner(workers=(0, 1, 2, 3), replicas=1, **values):
    """A learner on the digits; keys are written as section__name."""
    return _learner(
        tuple(sorted((name.replace("__", "."), value) for name, value in values.items())),
        tuple(workers), replicas)
