"""Loading TensorFlow without the lines that its libraries say of themselves before they have read
TF_CPP_MIN_LOG_LEVEL.

As a program it is the filter: standard input to standard output. It is a process of its own, so
that what TensorFlow says before it aborts, such as on a processor that it was not built for, still
arrives.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from typing import Any, BinaryIO, Iterator

LEVEL = "TF_CPP_MIN_LOG_LEVEL"

# The form of Abseil's log, in which TensorFlow speaks from 2.17 on: I0000 00:00:1700000000.123456
# 42 port.cc:153] words
_LINE = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:[\d.]+\s+\d+ \S+:\d+\] ")
_FIRST = b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"
_TWICE = re.compile(rb"Unable to register cu\w+ factory: Attempting to register factory for plugin")
"""An E that is none: two libraries of one wheel bring the same plugin."""


@contextlib.contextmanager
def filtered() -> Iterator[None]:
    """While TensorFlow is imported, standard error goes through the filter: not at level 0, nor
    where no such release can be.
    """
    os.environ.setdefault(LEVEL, "2")  # warnings of TensorFlow's C++ off, errors on
    level = os.environ[LEVEL]
    # TensorFlow 2.17 needs Python 3.9
    process = _start(level) if level in ("1", "2", "3") and sys.version_info >= (3, 9) else None
    if process is None:
        yield
        return
    kept = os.dup(2)
    os.dup2(process.stdin.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        process.stdin.close()
        # a child of somebody else may hold the other end
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def load_tensorflow() -> Any:
    """The module, without those lines where this is its first import."""
    with filtered() if "tensorflow" not in sys.modules else contextlib.ExitStack():
        import tensorflow

    return tensorflow


def _start(level: str) -> Any:
    """The filter in front of today's standard error; None where there is none."""
    try:
        kept = os.dup(2)
    except OSError:
        return None
    try:
        return subprocess.Popen([sys.executable, "-I", "-S",
                                 os.path.abspath(__file__), level], stdin=subprocess.PIPE,
                                stdout=kept)
    except OSError:
        return None
    finally:
        os.close(kept)


def passes(line: bytes, level: int) -> bool:
    """Whether a line is shown at that TF_CPP_MIN_LOG_LEVEL."""
    found = _LINE.match(line)
    if found is not None:
        return b"IWEF".index(found.group(1)) >= level and not _TWICE.search(line)
    return not line.startswith(_FIRST)


def _filter(source: BinaryIO, target: BinaryIO, level: int) -> None:
    for line in source:
        if passes(line, level):
            target.write(line)
            target.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program whose words these are
    _filter(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
