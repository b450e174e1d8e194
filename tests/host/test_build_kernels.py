"""Building the kernels in the environment of FLQ's programs. Runs on Python 3.6 too."""

import os
import subprocess
import sys

from flq.host import variables

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_numpy_finds_its_variables_before_it_is_loaded(tmp_path):
    """Of a Jetson Nano: this machine is called one, and NumPy notes what it found."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, platform, sys\n"
        "platform.machine = lambda: 'aarch64'\n"
        "class Watch:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'numpy':\n"
        "            print('numpy finds', os.environ.get('OPENBLAS_CORETYPE'))\n"
        "sys.meta_path.insert(0, Watch)\n")
    environment = {name: value for name, value in os.environ.items()
                   if name not in variables.wanted("aarch64")}
    environment.update(PYTHONPATH=str(tmp_path), CC="/no/compiler")
    done = subprocess.run([sys.executable, "-m", "flq.host.build_kernels", "--directory",
                           str(tmp_path)], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
    assert done.returncode == 2, done.stdout
    found, said = done.stdout.splitlines()
    assert found == "numpy finds ARMV8" and said.startswith("no compiled kernels, NumPy computes: ")
