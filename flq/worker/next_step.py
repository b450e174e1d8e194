"""What a worker's log says that it does next, after a refusal or no answer: the words must be what
happens.
"""

import logging
from typing import Dict, Optional

from flq.errors import FlqError

TOKEN_AGAIN = "reading the token once more"
"""When its token is refused for the first time. The second time it ends."""

AFTER_REFUSAL = {
    "retry": "trying again", "register": "registering again", "settle": "asking how the round ended"
}
"""By the worker's action (errors.ERROR_KINDS)."""


def trying_again(limit_s: Optional[float]) -> str:
    """A worker cannot know whether a master that does not answer will ever come back. limit_s: when
    it gives up.
    """
    if limit_s is None:
        return (
            "trying again without end (if the run is over, stop this worker; --retry_for S gives "
            "up by itself)"
        )
    return f"trying again for {limit_s:g} s"


class OnceAMinute(object):
    """Warnings of a trouble that lasts: each cause once a minute. now: seconds of a monotonic
    clock.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: Dict[str, float] = {}

    def warn(self, cause: str, error: FlqError, then: str, now: float) -> None:
        if now - self._told.get(cause, -60.0) >= 60.0:
            self._told[cause] = now
            self._log.warning("%s; %s", error, then)
