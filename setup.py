"""What FLQ needs of others, read from the requirements-*.txt, and its compiled kernels. All else
about the package is in setup.cfg.

`pip install .` brings what this machine can use (docs/decisions/0022-what-pip-installs.md): an
extra can add packages and never leave one out, so what is left out is left out by the machine.
Runs on Python 3.6.
"""

import glob
import os
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:  # nobody makes a wheel then
        bdist_wheel = object

ROOT = os.path.dirname(os.path.abspath(__file__))

# The kernel of every JetPack is called so. There NVIDIA's TensorFlow is the one that knows the GPU,
# and PyPI has none for JetPack 4.6; and a board is a worker until somebody says otherwise.
NOT_A_JETSON = '"tegra" not in platform_release'
RUNS_A_MASTER = 'python_version >= "3.9"'


def requirements(name, *markers):
    """The lines of one file, each with the markers beside its own."""
    path = os.path.join(ROOT, f"requirements-{name}.txt")
    with open(path, encoding="utf-8") as file:
        lines = [line.partition("#")[0].strip() for line in file]
    found = []
    for line in filter(None, lines):
        package, _, own = line.partition(";")
        wanted = ([f"({own.strip()})"] if own else []) + list(markers)
        found.append(f"{package.strip()}; {' and '.join(wanted)}" if wanted else package.strip())
    return found


def kernels_in(folder):
    """The libraries of compiled kernels that lie in a folder which holds the package."""
    return glob.glob(os.path.join(glob.escape(folder), "flq", "kernels", "*.so"))


class BuildWithKernels(build_py):
    """Also builds the compiled kernels, where this machine has a C compiler and NumPy to check them
    with. Without them FLQ computes with NumPy: nothing fails here.
    """

    def run(self):
        super().run()
        # an editable installation has them where `python -m flq.kernels.build` puts them
        folder = ROOT if getattr(self, "editable_mode", False) else os.path.abspath(self.build_lib)
        if folder != ROOT:
            for left in kernels_in(folder):  # of a build before this one
                os.remove(left)
        if os.environ.get("FLQ_KERNELS") == "numpy":  # who wants a wheel for all machines
            return
        done = subprocess.run([sys.executable, "-m", "flq.host.build_kernels", "--directory",
                               os.path.join(folder, "flq", "kernels")], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True)
        print((done.stdout.strip().splitlines() or ["no compiled kernels"])[-1])


class WheelForThisMachine(bdist_wheel):
    """A wheel with compiled kernels is for machines of this kind, with any Python; one without is
    for all.
    """

    def get_tag(self):
        if not kernels_in(self.bdist_dir):
            return super().get_tag()
        self.root_is_pure, before = False, self.root_is_pure  # what is pure has the tag of all
        try:
            return ("py3", "none") + super().get_tag()[2:]
        finally:
            self.root_is_pure = before


setup(
    cmdclass=dict({"build_py": BuildWithKernels},
                  **{} if bdist_wheel is object else {"bdist_wheel": WheelForThisMachine}),
    install_requires=(requirements("worker") + requirements("tensorflow", NOT_A_JETSON) +
                      requirements("master", NOT_A_JETSON, RUNS_A_MASTER)),
    extras_require={
        "worker": requirements("worker"),
        "master": requirements("master"),
        "tensorflow": requirements("tensorflow"),
        "completion": requirements("completion"),
        "tensorboard": requirements("tensorboard"),
        "dev": requirements("dev"),
        "torch": requirements("torch"),
        "flower": requirements("flower"),
        "nvflare": requirements("nvflare"),
        "ray": requirements("ray"),
    },
)
