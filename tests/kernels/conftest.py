"""The library of kernels.c, built for these tests where there is a compiler, so that they run in a
checkout in which nobody has built one.
"""

import os
import shutil

import pytest

from flq.errors import ConfigError
from flq.kernels import build, library
from tests.system.processes import ROOT


@pytest.fixture(scope="session")
def library_file(tmp_path_factory):
    """The path of the library: the one beside its source, else one in a temporary folder."""
    if os.path.exists(library.path()):
        return library.path()
    try:
        return build.build(str(tmp_path_factory.mktemp("library")))
    except ConfigError as error:
        return pytest.skip(f"the library of kernels.c cannot be built here: {error}")


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
def python_path(library_file, tmp_path_factory):
    """PYTHONPATH of processes that find the library: FLQ with a copy of flq/kernels in which it
    lies.
    """
    place = tmp_path_factory.mktemp("with-library")
    (place / "flq").mkdir()
    for item in (ROOT / "flq").iterdir():
        if item.name not in ("kernels", "__pycache__"):
            (place / "flq" / item.name).symlink_to(item)
    shutil.copytree(str(ROOT / "flq" / "kernels"), str(place / "flq" / "kernels"))
    shutil.copy(library_file, str(place / "flq" / "kernels" / os.path.basename(library_file)))
    return os.pathsep.join([str(place), str(ROOT)])
