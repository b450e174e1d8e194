"""Imports TensorFlow before a test does: what old releases warn about while they are imported is
not FLQ's. It is set up as FLQ does before a test uses it in a way of its own.
"""

import os
import warnings

import pytest

from flq import config
from flq.learning import device

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def set_up():
    device.configure(config.build({}))
