"""How long a worker tries again whose master does not answer or says no, and how it pauses
meanwhile.

Times are seconds of a monotonic clock, given as `now`.
"""

import logging
from typing import Optional, Tuple

from flq.errors import FlqError, ProtocolError, UnreachableError
from flq.worker.next_step import AFTER_REFUSAL, OnceAMinute, trying_again

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
AFTER_THE_END_S = 120.0
"""How long a worker that holds the last model looks for a master that is gone. One that was killed
then and started again still has to hear from it what it received, for the bits."""


class Patience(object):
    """Of one worker. retry_for_s: for how long a master may be out of reach, None without end."""

    def __init__(self, log: logging.Logger, retry_for_s: Optional[float]) -> None:
        self._retry_for_s = retry_for_s
        self._trouble = OnceAMinute(log)
        self._failing_since: Optional[float] = None
        self._attempt = 0
        self._retry_after_s: Optional[float] = None

    def answered(self) -> None:
        """The master answered as it should."""
        self._failing_since, self._attempt, self._retry_after_s = None, 0, None

    def refused(self, error: ProtocolError) -> None:
        """It said no."""
        self._failing_since, self._retry_after_s = None, error.retry_after_s

    def warn(self, cause: str, error: FlqError, action: str, now: float) -> None:
        """What goes wrong and what is done next, each cause once a minute."""
        self._trouble.warn(cause, error, AFTER_REFUSAL[action], now)

    def unreachable(self, error: UnreachableError, holds_last: bool, now: float) -> str:
        """What to do about it: retry, or finish. Raises the error when retry_for_s has passed."""
        self._retry_after_s = None
        if self._failing_since is None:
            self._failing_since = now
        if self._retry_for_s is not None and now - self._failing_since >= self._retry_for_s:
            raise error
        if holds_last and now - self._failing_since >= AFTER_THE_END_S:
            return "finish"
        limits = [self._retry_for_s, AFTER_THE_END_S if holds_last else None]
        self._trouble.warn(
            "unreachable", error,
            trying_again(min((limit for limit in limits if limit is not None), default=None)), now)
        return "retry"

    def next_pause_s(self) -> Tuple[float, float]:
        """The shortest pause before the next try, and the longest of those to draw from. Full
        jitter: many workers that lost their master at once must not return at once.
        """
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** self._attempt)
        self._attempt = min(self._attempt + 1, 16)
        return self._retry_after_s or 0.0, longest
