"""The trainers of a cluster, without one: what goes wrong reaches those who wait for a trainer."""

import threading
import types

import pytest

from flq.cluster import trainers
from flq.cluster.nodes import Share

PATIENCE_S = 30.0


class RayError(Exception):
    """The parent of what Ray raises."""


class RayTaskError(RayError):
    """What a task raised."""


def test_a_trainer_that_cannot_even_be_asked_for_ends_the_waiting(monkeypatch):
    def broken():
        raise TypeError("what Ray itself does not expect")

    local = types.SimpleNamespace(layout=None, builtin_model=True, partition_hash="", constants=b"")
    ray = types.SimpleNamespace(
        exceptions=types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
        remote=lambda **share: lambda kind: types.SimpleNamespace(remote=broken))
    monkeypatch.setattr(trainers, "build_learner", lambda *arguments, **keywords: local)
    monkeypatch.setattr(trainers.configuration, "flat", lambda config: {})
    monkeypatch.setattr(trainers, "constants_hash", lambda constants: "")
    learner = trainers.ClusterLearner(ray, None, 1, Share())
    at_last = threading.Timer(PATIENCE_S, learner.close)
    at_last.start()
    with pytest.raises(TypeError, match="does not expect"):
        learner.local_update(None, None, 0, 0)
    at_last.cancel()
