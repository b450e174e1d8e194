"""What a command shows while it works: a bar on a terminal, a few lines elsewhere, all of the log
with --verbose, nothing but warnings with --quiet."""

import argparse
import contextlib
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Optional, TextIO

from flq.host import log

if TYPE_CHECKING:
    # When they are drawn: NumPy comes with them, and `flq token` runs without any package.
    from flq.reports.progress import ProgressBar, StepBar

_EVERY_S = 0.2
# What takes long before the first round: it is told in plain lines.
_TOLD = ("flq.learning", "flq.simulation")


class Shown(object):
    """The progress of one command, on standard error. arguments: verbose, quiet and json.

    Example::

        with Shown(arguments) as shown:
            log.start("simulate", "logs", "INFO", shown.handler)
            simulate(..., watch=lambda service: shown.follow(lambda: status(service)))
    """

    def __init__(self, arguments: argparse.Namespace, stream: Optional[TextIO] = None) -> None:
        self._stream: TextIO = sys.stderr if stream is None else stream
        self.verbose, self.quiet = bool(arguments.verbose), bool(arguments.quiet)
        self._prints = not (arguments.json or arguments.quiet)
        self._bar: "Optional[ProgressBar]" = None
        self._steps: "Optional[StepBar]" = None
        self._status: Optional[Callable[[], Dict[str, Any]]] = None
        self._thread: Optional[threading.Thread] = None
        self._over = threading.Event()
        self.handler: logging.Handler = _Handler(self)

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None and self._status is not None:
            with contextlib.suppress(Exception):  # of a run that failed: the error is what counts
                self._bar.update(self._status())
            self._bar.close()
        if self._steps is not None:
            self._steps.close()

    def follow(self, status: Callable[[], Dict[str, Any]]) -> None:
        """Show a run from now on. status() gives what GET /status does."""
        if self.quiet or self.verbose:  # the log has each round
            return
        from flq.reports.progress import ProgressBar
        self._status = status
        self._bar = ProgressBar(self._stream, status()["max_rounds"])
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)
        self._thread.start()

    def step(self, what: str, done: int, total: int, detail: str) -> None:
        """Show that `done` of `total` things are done. detail: the line about this one."""
        if self.quiet:
            return
        if self.verbose:
            self._stream.write(detail + "\n")
            return
        if self._steps is None:
            from flq.reports.progress import StepBar
            self._steps = StepBar(self._stream, what)
        self._steps.update(done, total)

    def say(self, text: str) -> None:
        """A line beside the bar."""
        for bar in (self._bar, self._steps):
            if bar is not None:
                bar.say(text)
                return
        self._stream.write(text + "\n")
        self._stream.flush()

    def result(self, text: str) -> None:
        """A line of what came out, for people: not with --quiet, and not beside JSON."""
        if self._prints:
            print(text, flush=True)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """What Keras prints while it downloads goes beside the bar, or nowhere with --quiet."""
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(open(os.devnull, "w")) if self.quiet else self._stream
            stack.enter_context(contextlib.redirect_stdout(target))
            yield

    def _follow(self) -> None:
        assert self._status is not None and self._bar is not None
        while not self._over.wait(_EVERY_S):
            self._bar.update(self._status())


class _Handler(logging.Handler):
    """The log on standard error: all of it with --verbose; else what a person must know."""

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._shown = shown
        self._whole = log.PlainFormatter(log.FORMAT)

    def emit(self, record: logging.LogRecord) -> None:
        if self._shown.verbose:
            self._shown.say(self.format(record))
        elif record.levelno >= logging.WARNING:
            self._shown.say(f"{record.levelname.lower()}: {self.format(record)}")
        elif record.name in _TOLD and not self._shown.quiet:
            self._shown.say(self.format(record))

    def format(self, record: logging.LogRecord) -> str:
        return self._whole.format(record) if self._shown.verbose else log.message_of(record)
