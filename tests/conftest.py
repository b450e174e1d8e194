"""Settings of all tests: the environment variables are those of FLQ's programs, and property tests
draw the same examples on every run, however slow the machine is.
"""

import logging

import hypothesis
import pytest

from flq.host import variables

variables.set_missing()

hypothesis.settings.register_profile("same_every_time", derandomize=True, deadline=None,
                                     database=None,
                                     suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("same_every_time")


@pytest.fixture
def loggers():
    """Before log.start of a test: FLQ's logger without handlers. It and the server's are as before
    when the test is over.
    """
    ours, theirs = logging.getLogger("flq"), logging.getLogger("waitress")
    before, level, propagate, parent = ours.handlers, ours.level, ours.propagate, theirs.parent
    ours.handlers = []
    yield
    for handler in ours.handlers:
        handler.close()
    ours.handlers, ours.propagate, theirs.parent = before, propagate, parent
    ours.setLevel(level)
