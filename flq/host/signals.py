"""Ends that do not wait: before there is anything to end, and beside threads that still compute."""

import logging
import os
import signal
import sys
from typing import Any


def end_on_request() -> None:
    """From now on SIGTERM and Ctrl-C end this process at once with exit code 0, until it has
    something to finish first.

    TensorFlow takes seconds to import, and code that is being imported may swallow an exception of
    ours. Nothing is lost: what a program has stored by then is whole after any end.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def end_now(code: int) -> None:
    """End this process beside its threads: a training step cannot be interrupted, and TensorFlow
    may crash where Python ends under it.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end(number: int, frame: Any) -> None:
    os._exit(0)
