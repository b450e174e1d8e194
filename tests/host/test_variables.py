"""The environment variables of FLQ's programs: set where they are missing, in time for NumPy."""

import os
import subprocess
import sys

import pytest

from flq.host import variables

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_a_variable_that_is_set_stays_and_the_others_get_their_value(monkeypatch):
    for name in ("CUDA_CACHE_MAXSIZE", "CUDA_CACHE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_CACHE_DISABLE", "")  # as good as none
    monkeypatch.setenv("HOME", "/home/worker")
    variables.set_missing()
    assert os.environ["OMP_NUM_THREADS"] == "3" and os.environ["CUDA_CACHE_DISABLE"] == "0"
    assert os.environ["CUDA_CACHE_MAXSIZE"] == "2147483648"
    assert os.environ["CUDA_CACHE_PATH"] == "/home/worker/.flq/cuda"


@pytest.mark.parametrize("machine, expected", [("aarch64", "ARMV8"), ("x86_64", None)])
def test_the_blas_of_a_jetson_is_chosen(machine, expected):
    assert variables.wanted(machine).get("OPENBLAS_CORETYPE") == expected


@pytest.mark.parametrize("module, main", [("flq_worker", "--worker_id 0 --retry_for x"),
                                          ("flq_master", "--port x"), ("flq.__main__", "token x")])
def test_a_program_sets_them_before_numpy_is_loaded(module, main):
    """OpenBLAS reads its variable when NumPy is loaded; the wrong option ends the program before
    that.
    """
    code = f"""
import os, sys
import {module} as program
assert "numpy" not in sys.modules
sys.argv = ["program"] + {main.split()!r}
try:
    program.main()
except SystemExit:
    pass
print(os.environ["OMP_NUM_THREADS"], "numpy" in sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment,
                                   stderr=subprocess.DEVNULL)
    assert said.decode("ascii") == "1 False\n"
