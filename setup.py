"""What FLQ needs of others, read from the requirements-*.txt. All else about the package is in
setup.cfg.

`pip install .` brings what this machine can use (docs/decisions/0022-what-pip-installs.md): an
extra can add packages and never leave one out, so what is left out is left out by the machine.
Runs on Python 3.6.
"""

import os

from setuptools import setup

# The kernel of every JetPack is called so. There NVIDIA's TensorFlow is the one that knows the GPU,
# and PyPI has none for JetPack 4.6; and a board is a worker until somebody says otherwise.
NOT_A_JETSON = '"tegra" not in platform_release'
RUNS_A_MASTER = 'python_version >= "3.9"'


def requirements(name, *markers):
    """The lines of one file, each with the markers beside its own."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"requirements-{name}.txt")
    with open(path, encoding="utf-8") as file:
        lines = [line.partition("#")[0].strip() for line in file]
    found = []
    for line in filter(None, lines):
        package, _, own = line.partition(";")
        wanted = ([f"({own.strip()})"] if own else []) + list(markers)
        found.append(f"{package.strip()}; {' and '.join(wanted)}" if wanted else package.strip())
    return found


setup(
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
