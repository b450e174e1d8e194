"""Make the library of the C files here on this machine, with its C compiler:

    python -m flq.kernels.build

Without a compiler, or where what it makes does not give the bits of NumPy, FLQ computes with NumPy.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional

from flq.errors import ConfigError, FlqError, in_one_line
from flq.kernels import library

COMPILERS = ("cc", "gcc", "clang")
LONGEST_S = 300.0
"""Of one step. A Nano whose memory is full compiles for a while."""
FOLDER = ".kernels-"
"""How the name of a folder begins in which a library is being made."""
CHECK = """import sys
from importlib import machinery, util
found = machinery.PathFinder.find_spec("flq", [sys.argv.pop(1)])
sys.modules["flq"] = util.module_from_spec(found)
found.loader.exec_module(sys.modules["flq"])
from flq.kernels import check
sys.exit(check.main())
"""
"""`python -m flq.kernels.check` of this FLQ, whose folder is not searched for other modules: in
site-packages an old package may have the name of a module of Python's.
"""
RUBBISH_AFTER_S = 3600.0
"""When nobody works in such a folder any more: its build was killed."""


def build(directory: str = library.DIRECTORY) -> str:
    """The path of the library, made where there was none that can be loaded.

    directory: where it is to lie. Many may build at once: each in a folder of its own, and the last
    one's library stays. Raises ConfigError with what is missing.
    """
    path = _place(directory)
    try:
        if not _is_there(path):
            _make(path)
        _tidy(path)
    except OSError as error:
        raise ConfigError(f"cannot write the compiled kernels to {os.path.dirname(path)}",
                          "a directory that this user can write to, with a MiB free",
                          error.strerror, "as its owner, or with more room, build them again")
    return path


def _place(directory: str) -> str:
    try:
        return os.path.abspath(library.path(directory))
    except OSError as error:
        raise ConfigError("cannot read the sources of the kernels", error.filename, error.strerror,
                          "install FLQ with all of its files")


def _is_there(path: str) -> bool:
    """What has the name and is whole was checked before it got the name."""
    return library.load(path) is not None


def _make(path: str) -> None:
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=os.path.dirname(path)) as folder:
        made = os.path.join(folder, "kernels.so")
        _compile(compiler, made, folder)
        library.seal(made)
        shutil.copymode(library.SOURCES[0], made)  # for whoever may read the source
        _check(made, compiler)
        os.replace(made, path)  # in one step: others may build it or start at the same time


def find_compiler() -> List[str]:
    """The words of CC, else one of COMPILERS. Raises ConfigError."""
    named = os.environ.get("CC")
    for words in [named.split()] if named else [[name] for name in COMPILERS]:
        if words and shutil.which(words[0]):
            return words
    if named:
        raise ConfigError("there is no C compiler of the name in CC", "a program", named,
                          f"name another one, or leave CC out: {' or '.join(COMPILERS)} is taken")
    raise ConfigError("there is no C compiler", " or ".join(COMPILERS), "none",
                      "sudo apt install gcc, then build them again")


def _compile(compiler: List[str], made: str, folder: str) -> None:
    """Raises ConfigError. folder: for the compiler's own files too, which are then removed however
    it ends.
    """
    done = _run([*compiler, *library.OPTIONS, "-o", made, *library.SOURCES], {"TMPDIR": folder},
                compiler[0])
    if done.returncode or not os.path.exists(made):
        raise ConfigError(f"{compiler[0]} could not compile the kernels", "a library",
                          _ending(done), "name another compiler with CC")


def _check(made: str, compiler: List[str]) -> None:
    """Raises ConfigError where it does not give the bits of NumPy. Asked in a process of its own:
    it could end this one.
    """
    root = os.path.dirname(os.path.dirname(library.DIRECTORY))
    done = _run([sys.executable, "-c", CHECK, root, made], {library.SWITCH: "numpy"},
                "the check of the kernels", os.path.dirname(made))
    if done.returncode:
        raise ConfigError(f"what {compiler[0]} made cannot take the place of NumPy",
                          "the bits of NumPy", _ending(done), "name another compiler with CC")


def _run(command: List[str], variables: Dict[str, str], what: str,
         folder: Optional[str] = None) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, cwd=folder, env=dict(os.environ, **variables),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=LONGEST_S, encoding="utf-8",
                              errors="replace")
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{what} did not end", f"an end within {LONGEST_S:.0f} s", "none")
    except OSError as error:
        raise ConfigError(f"{what} does not start", "a program", error.strerror)


def _ending(done: "subprocess.CompletedProcess[str]") -> str:
    """Why a program failed: its first words, of a traceback the last ones."""
    lines = [in_one_line(line) for line in done.stdout.splitlines() if line.strip()]
    if not lines or done.returncode < 0:
        return f"exit code {done.returncode}"
    return (lines[-1] if lines[0].startswith("Traceback") else " ".join(lines))[:300]


def _tidy(path: str) -> None:
    """Remove what nobody needs any more: libraries of other versions for this kind of machine, of
    which each update would leave one, and folders of builds that were killed. A process that has
    loaded a library keeps it, for a removed file stays as long as it is mapped.
    """
    directory = os.path.dirname(path)
    for name in os.listdir(directory):
        file = os.path.join(directory, name)
        with contextlib.suppress(OSError):  # another build did it, or may
            if name.startswith(FOLDER) and time.time() - os.stat(file).st_mtime > RUBBISH_AFTER_S:
                shutil.rmtree(file)
            elif (name.startswith(library.prefix()) and name.endswith(".so")
                  and name != os.path.basename(path)):
                os.unlink(file)


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flq.kernels.build",
                                     description=__doc__.splitlines()[0].replace(":", "."))
    parser.add_argument("--directory", metavar="D", default=library.DIRECTORY,
                        help="where the library is to lie (beside its source, where FLQ looks)")
    parser.add_argument("--quiet", action="store_true",
                        help="say nothing where it is there already")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        was_there = _is_there(_place(asked.directory))
        path = build(asked.directory)
    except FlqError as error:
        print(f"no compiled kernels, NumPy computes: {in_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if not (asked.quiet and was_there):
        print(f"compiled kernels: {path}")
    return 0


def _end(number: int, frame: Any) -> None:
    sys.exit(128 + number)  # what it began is removed on the way


if __name__ == "__main__":
    sys.exit(main())
