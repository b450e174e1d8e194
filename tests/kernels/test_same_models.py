"""The same models with the compiled kernels and with NumPy, whatever a run is configured to do."""

import json
import os
import subprocess
import sys

import pytest

from tests.algorithm.test_play import GOLDEN

MODELS = """
import json
from flq.kernels import library
from flq.parameters import Layout
from tests.golden import make
make.LAYOUT = Layout({shapes}, ((2,),))
print(json.dumps([library.NAME, list(make.models())]))
"""
ARITHMETICS = {"": "compiled kernels", "numpy": "NumPy"}


def models(shapes, switch, python_path, directory):
    """The golden runs of a model with these shapes, as a new process plays them."""
    environment = dict(os.environ, FLQ_KERNELS=switch, PYTHONPATH=python_path)
    said = subprocess.check_output([sys.executable, "-c", MODELS.format(shapes=shapes)],
                                   cwd=str(directory), env=environment)
    arithmetic, played = json.loads(said.decode("utf-8"))
    assert arithmetic == ARITHMETICS[switch]
    return played


@pytest.mark.parametrize("switch", ARITHMETICS)
def test_the_models_of_stored_runs_come_out_again(with_library, tmp_path, switch):
    assert models("((3, 4), (5,))", switch, with_library, tmp_path) == GOLDEN


def test_models_that_are_longer_than_a_piece_are_the_same(with_library, tmp_path):
    first, second = (models("((300, 130), (130,), (0, 7), (1,))", switch, with_library, tmp_path)
                     for switch in ARITHMETICS)
    assert first == second and [keys for keys, _ in first] == [keys for keys, _ in GOLDEN]
