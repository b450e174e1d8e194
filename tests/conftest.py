"""Settings of all tests: the environment variables are those of FLQ's programs, and property tests
draw the same examples on every run, however slow the machine is. The compiled kernels are there for
the tests that need them, also in a checkout in which nobody has built them.
"""

import logging
import os
import shutil
from pathlib import Path

import hypothesis
import pytest

from flq.errors import ConfigError
from flq.host import variables
from flq.kernels import build, library

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


@pytest.fixture(scope="session")
def library_file(tmp_path_factory):
    """The path of the compiled kernels: those beside their source, else new ones in a temporary
    folder. Without a compiler the test is skipped.
    """
    if os.path.exists(library.path()):
        return library.path()
    try:
        return build.build(str(tmp_path_factory.mktemp("library")))
    except ConfigError as error:
        return pytest.skip(str(error))


@pytest.fixture(scope="session")
def compiled(library_file):
    """flq.kernels.compiled, whatever this process computes with."""
    before = library.LOADED
    library.LOADED = before or library.load(library_file)
    try:
        from flq.kernels import compiled
    finally:
        library.LOADED = before
    return compiled


@pytest.fixture(scope="session")
def with_library(library_file, tmp_path_factory):
    """PYTHONPATH of processes that find the compiled kernels."""
    place, root = tmp_path_factory.mktemp("with-library"), Path(__file__).resolve().parents[1]
    (place / "flq").mkdir()
    for item in (root / "flq").iterdir():
        if item.name not in ("kernels", "__pycache__"):
            (place / "flq" / item.name).symlink_to(item)
    shutil.copytree(str(root / "flq" / "kernels"), str(place / "flq" / "kernels"))
    shutil.copy(library_file, str(place / "flq" / "kernels" / os.path.basename(library_file)))
    return os.pathsep.join([str(place), str(root)])
