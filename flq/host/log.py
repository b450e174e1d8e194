"""Logs: one file per process in logs/, the same lines on the terminal."""

import logging
import os
import sys
import time
from typing import Any, List, Optional

from flq.errors import ConfigError, printable

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class PlainFormatter(logging.Formatter):
    """Lines that cannot steer a terminal, nor look like two: names, paths and errors in them may be
    somebody else's. A traceback keeps its lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = message_of(record)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return printable(super().formatException(ei))


def message_of(record: logging.LogRecord) -> str:
    """What a record says, in one line."""
    return printable(record.getMessage()).replace("\n", " ")


def start(process: str, log_dir: str, level: str,
          terminal: Optional[logging.Handler] = None) -> str:
    """Send what FLQ and its server log to logs/<process>-<time>-<pid>.log and to standard error;
    return the file's path.

    terminal: who writes to standard error in a form of its own.
    """
    path = os.path.join(log_dir, f"{process}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")
    try:
        os.makedirs(log_dir, exist_ok=True)
        handlers: List[logging.Handler] = [
            logging.FileHandler(path, encoding="utf-8"),
            terminal or logging.StreamHandler(sys.stderr)
        ]
    except OSError as error:
        raise ConfigError(f"cannot write the log {path}", got=error.strerror,
                          hint="set logging.log_dir")
    logger = logging.getLogger("flq")
    logger.setLevel(level)
    logger.propagate = False
    for handler in handlers:
        if handler is not terminal:
            handler.setFormatter(PlainFormatter(FORMAT))
        logger.addHandler(handler)
    # The server's warnings, which may quote a request, would reach the terminal as they are.
    logging.getLogger("waitress").parent = logger
    return path
