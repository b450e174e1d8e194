"""The environment variables with which FLQ's programs run. Standard library only.

Libraries read them while they are loaded, so `set_missing` comes before the first import of NumPy
and TensorFlow. flq/learning/banners.py sets TensorFlow's own TF_CPP_MIN_LOG_LEVEL.
"""

import os
import platform
from typing import Dict


def wanted(machine: str) -> Dict[str, str]:
    """Name -> value. machine: as platform.machine() names it."""
    variables = {
        # Several processes on one machine must not each start a thread for every core;
        # model.num_threads is TensorFlow's own number.
        "OMP_NUM_THREADS": "1",
        # Kernels that TensorFlow compiles for a Jetson's GPU take minutes; CUDA's default of 256 MB
        # throws them away again. They lie beside the worker's state: what outlives a restart.
        "CUDA_CACHE_DISABLE": "0",
        "CUDA_CACHE_MAXSIZE": str(2 ** 31),
        "CUDA_CACHE_PATH": os.path.join(os.path.expanduser("~"), ".flq", "cuda"),
    }
    if machine == "aarch64":
        # NumPy's OpenBLAS misreads the Jetson Nano's processor and dies with "Illegal instruction".
        variables["OPENBLAS_CORETYPE"] = "ARMV8"
    return variables


def set_missing() -> None:
    """Set those that are not set, for this process and those that it starts."""
    for name, value in wanted(platform.machine()).items():
        if not os.environ.get(name):
            os.environ[name] = value
