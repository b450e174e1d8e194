"""kernels.c under gcc's sanitizers: nothing is read or written out of bounds or where it is not
aligned, and nothing is computed that C leaves undefined.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flq.errors import ConfigError
from flq.kernels import build, library
from tests.system.processes import ROOT

SANITIZERS = ("-g", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """(right, wrong) -> what a process said that made all calls of a library in which the one
    stands for the other; "" where nothing was found.
    """
    folder = tmp_path_factory.mktemp("sanitized")
    try:
        compiler = build.find_compiler()
    except ConfigError as error:
        pytest.skip(str(error))
    runtimes = [_said(*compiler, f"-print-file-name=lib{name}.so") for name in ("asan", "ubsan")]
    if not all(map(os.path.isabs, runtimes)):
        pytest.skip(f"{compiler[0]} has no libasan.so and libubsan.so")

    def outcome(right="", wrong=""):
        made, files = str(folder / "kernels.so"), []
        for source in map(Path, library.SOURCES):
            files.append(str(folder / source.name))
            Path(files[-1]).write_text(source.read_text().replace(right, wrong or right))
        subprocess.check_call([*compiler, *library.OPTIONS, *SANITIZERS, "-o", made, *files])
        library.seal(made)
        calls = subprocess.Popen([sys.executable, "-m", "tests.kernels.calls", made], cwd=str(ROOT),
                                 env=dict(os.environ, FLQ_KERNELS="numpy",
                                          LD_PRELOAD=" ".join(runtimes),
                                          ASAN_OPTIONS="detect_leaks=0"),
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = calls.communicate()[0].decode("utf-8", "replace")
        assert bool(said) == bool(calls.returncode)
        return said

    return outcome


def _said(*command):
    return subprocess.check_output(command).decode("utf-8").strip()


def test_every_call_keeps_to_the_vectors_that_it_is_given(sanitized):
    assert sanitized() == ""


@pytest.mark.parametrize("right, wrong, found", [
    ("float change = rate * step[i];", "float change = rate * step[i + 1];",
     "heap-buffer-overflow"),
    ("double after = g[start + j]", "double after = (1 << width) + g[start + j]",
     "shift exponent")])
def test_the_sanitizers_see_what_is_wrong(sanitized, right, wrong, found):
    assert sum(Path(source).read_text().count(right) for source in library.SOURCES) == 1
    assert found in sanitized(right, wrong)
