"""flq.worker.run: what a program gives it is checked as a command line is."""

import math

import pytest

from flq.errors import ConfigError
from flq.worker import own


@pytest.mark.parametrize("retry_for", [-1, -0.5, math.nan, math.inf, "60", True])
def test_a_patience_that_is_no_number_of_seconds_is_refused_before_anything_starts(retry_for):
    with pytest.raises(ConfigError) as refusal:
        own.work(None, 0, None, None, None, retry_for)
    assert str(refusal.value).startswith(
        "retry_for cannot take this value; expected a number of seconds, 0 or more, or None; got ")


@pytest.mark.parametrize("worker_id", [-1, 65536, True, "3", 1.0])
def test_a_worker_id_that_is_none_is_refused_before_anything_starts(worker_id):
    with pytest.raises(ConfigError, match="worker_id cannot take this value"):
        own.work(None, worker_id, None, None, None, None)
