"""What people hear of the arithmetic. Runs on Python 3.6 too."""

import logging
import os
import shlex
import subprocess
import sys

import pytest

import flq
from flq.host import arithmetic
from flq.kernels import library


@pytest.mark.parametrize("loaded, switch, words", [
    (object(), None, "compiled kernels"),
    (None, "numpy", "NumPy, as FLQ_KERNELS says"),
    (None, None, "NumPy; compiled kernels give the same bits in less time: {} -m flq.kernels.build "
                 "builds them or says why not")])
def test_one_line_says_what_computes_and_what_to_do(monkeypatch, caplog, loaded, switch, words):
    monkeypatch.setattr(library, "LOADED", loaded)
    monkeypatch.setattr(library, "NAME", words.partition(";")[0].partition(",")[0])
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv(library.SWITCH, raising=False)
    if switch:
        monkeypatch.setenv(library.SWITCH, switch)
    with caplog.at_level(logging.INFO):
        arithmetic.tell(logging.getLogger("flq.test"))
    assert caplog.messages == ["vectors are computed by " +
                               words.format(shlex.quote(sys.executable))]


def test_the_command_sets_what_a_jetsons_numpy_needs_before_it_is_loaded(monkeypatch):
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "executable", "/my python/bin/python")
    assert arithmetic.build_command() == (
        "OPENBLAS_CORETYPE=ARMV8 '/my python/bin/python' -m flq.kernels.build")


def test_a_shell_understands_the_command():
    done = subprocess.run(arithmetic.build_command() + " --help", shell=True,
                          cwd=os.path.dirname(os.path.dirname(flq.__file__)),
                          stdout=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0 and "C compiler" in done.stdout
