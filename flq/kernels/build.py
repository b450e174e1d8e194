"""Make the library of the C files here on this machine, with its C compiler:

    python -m flq.kernels.build

Without a compiler, or where what it makes does not give the bits of NumPy, FLQ computes with NumPy.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from typing import List, Optional

from flq.errors import ConfigError, FlqError, in_one_line
from flq.kernels import library

COMPILERS = ("cc", "gcc", "clang")
LONGEST_S = 300.0
"""A Nano whose memory is full compiles for a while."""


def build(directory: Optional[str] = None) -> str:
    """The path of the library, made where it was not there.

    directory: where it is to lie, else beside its source. Raises ConfigError with what is missing.
    """
    path = library.path() if directory is None else library.path(directory)
    if os.path.exists(path) and is_right(path):
        return path
    compiler = find_compiler()
    try:
        with tempfile.TemporaryDirectory(prefix=".kernels-", dir=os.path.dirname(path)) as folder:
            made = os.path.join(folder, "kernels.so")
            _compile(compiler, made)
            if not is_right(made):
                raise ConfigError("the compiled kernels do not give the bits of NumPy",
                                  "a compiler that keeps to IEEE floats", compiler,
                                  "name another one with CC")
            with open(made, "rb") as file:
                os.fsync(file.fileno())  # nobody looks at it again
            os.replace(made, path)  # in one step: others may build it or start at the same time
    except OSError as error:
        raise ConfigError(f"cannot write the compiled kernels to {os.path.dirname(path)}",
                          "a directory that can be written to", error.strerror)
    return path


def find_compiler() -> str:
    """CC, else one of COMPILERS. Raises ConfigError."""
    named = os.environ.get("CC")
    for name in (named,) if named else COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    raise ConfigError("there is no C compiler", named or " or ".join(COMPILERS), "none",
                      "sudo apt install gcc; without one FLQ computes with NumPy")


def _compile(compiler: str, made: str) -> None:
    try:
        done = subprocess.run([compiler, *library.OPTIONS, "-o", made, *library.SOURCES],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{compiler} did not end", f"the kernels within {LONGEST_S:.0f} s")
    if done.returncode:
        said = in_one_line(done.stdout.decode("utf-8", "replace"))[:300]
        raise ConfigError(f"{compiler} could not compile the kernels", "C99", said)


def is_right(path: str) -> bool:
    """Whether the library gives the bits of NumPy. Asked in a process of its own: one that was
    damaged could end this one.
    """
    done = subprocess.run([sys.executable, "-m", "flq.kernels.check", path],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          cwd=os.path.dirname(os.path.dirname(library.DIRECTORY)))
    return done.returncode == 0


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flq.kernels.build",
                                     description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    try:
        print(build())
    except FlqError as error:
        print(f"no compiled kernels, NumPy computes: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
