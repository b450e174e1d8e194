"""Places where a test can kill this process: FLQ_CRASH_AT=NAME:N kills it when it reaches NAME for
the N-th time.

Recovery is only proven by dying at every step that could be the wrong one to die at. Without the
variable a point costs one look into an empty dictionary.
"""

import os
import signal
from typing import Dict


def _parse(text: str) -> Dict[str, int]:
    name, _, count = text.rpartition(":")
    return {name: int(count)} if name else {}


_remaining = _parse(os.environ.get("FLQ_CRASH_AT", ""))


def reach(name: str) -> None:
    """Die here if this is the place and the time. SIGKILL: nothing is flushed, closed or said."""
    if name in _remaining:
        _remaining[name] -= 1
        if _remaining[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
