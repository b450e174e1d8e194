"""What a run needs of a learner: both that there are have it all, and what it means stands beside
it.
"""

import pytest

from flq import config
from flq.learning.interface import Learner
from tests.system.quadratic import Quadratic


def test_a_learner_has_every_method():
    class Half(Learner):
        def num_samples(self, worker):
            return 1

    with pytest.raises(TypeError):
        Half()
    learner = Quadratic(config.build({}))
    assert isinstance(learner, Learner) and learner.constants == b""
    with pytest.raises(NotImplementedError):
        learner.hold_constants("00" * 8, bytes)


def test_every_method_says_what_it_does():
    for name in sorted(Learner.__abstractmethods__) + ["hold_constants"]:
        assert getattr(Learner, name).__doc__, name
