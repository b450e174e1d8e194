"""What computes the passes over long vectors on this machine, in a line for people."""

import logging
import os
import platform
import shlex
import sys

from flq.host import variables
from flq.kernels import library


def build_command() -> str:
    """What makes the compiled kernels, for this Python, to be pasted into a shell."""
    words = [shlex.quote(sys.executable), "-m", "flq.kernels.build"]
    # it loads NumPy before it could set what NumPy needs
    core = variables.wanted(platform.machine()).get("OPENBLAS_CORETYPE")
    return " ".join(([f"OPENBLAS_CORETYPE={core}"] if core else []) + words)


def tell(log: logging.Logger) -> None:
    """Say it where a program starts."""
    log.info("vectors are computed by %s", described())


def described() -> str:
    """`compiled kernels`, or why it is NumPy and what to do."""
    if library.LOADED is not None:
        return library.NAME
    if os.environ.get(library.SWITCH) == "numpy":
        return f"{library.NAME}, as {library.SWITCH} says"
    return (f"{library.NAME}; compiled kernels give the same bits in less time: "
            f"{build_command()} builds them or says why not")
