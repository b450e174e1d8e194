"""Ends that do not wait: before there is anything to end, and beside threads that still compute."""

import contextlib
import logging
import os
import signal
import sys
from typing import Any, Callable, Iterator

_ENDS = (signal.SIGTERM, signal.SIGINT)


def end_on_request() -> None:
    """From now on SIGTERM and Ctrl-C end this process at once with exit code 0, until it has
    something to finish first.

    TensorFlow takes seconds to import, and code that is being imported may swallow an exception of
    ours. Nothing is lost: what a program has stored by then is whole after any end.
    """
    for number in _ENDS:
        signal.signal(number, _end)


@contextlib.contextmanager
def calling(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C call stop(); after it they do what they did before.

    For the main thread.
    """
    before = [(number, signal.signal(number, lambda *_: stop())) for number in _ENDS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


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
