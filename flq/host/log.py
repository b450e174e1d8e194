"""Logs: one file per process in logs/, the same lines on the terminal."""

import logging
import os
import sys
import time
from typing import List, Optional

from flq.errors import ConfigError

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def start(process: str, log_dir: str, level: str,
          terminal: Optional[logging.Handler] = None) -> str:
    """Send the flq loggers to logs/<process>-<time>-<pid>.log and to standard error; return the
    file's path.

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
            handler.setFormatter(logging.Formatter(FORMAT))
        logger.addHandler(handler)
    return path
