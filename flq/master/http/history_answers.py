"""GET /history, however long the run: a short part is one answer, a long one streams page by page,
so that neither takes the memory of all rounds.
"""

from __future__ import annotations

import threading
from typing import Iterator

from flask import Response

from flq.errors import ProtocolError
from flq.master import status
from flq.master.service import Service
from flq.protocol import endpoints, messages

PAGE = 1000
"""Rounds that are read and written at a time, and the most that one answer holds whole."""
MOST_STREAMS = 4
"""A stream holds one of the server's threads for as long as its reader takes."""
_RETRY_S = 10.0


class HistoryAnswers:
    """The answers of one service; `answer` may be called from any thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams = threading.Semaphore(MOST_STREAMS)

    def answer(self, since: int, limit: int | None, as_csv: bool) -> Response:
        """The rounds from `since` on that are closed now, at most `limit`. Raises too_many_requests
        where others read whole histories already.
        """
        with self._service.locked() as run:
            closed = len(run.history)
        since = max(0, since)
        until = closed if limit is None else min(closed, since + limit)
        pieces = (self._csv if as_csv else self._json)(since, until)
        kind = endpoints.CSV if as_csv else endpoints.JSON
        if until - since <= PAGE:
            return Response(b"".join(pieces), mimetype=kind)
        if not self._streams.acquire(blocking=False):
            raise ProtocolError("too_many_requests", "others read the whole history already",
                                f"at most {MOST_STREAMS} at a time, or limit={PAGE} and less",
                                f"{until - since} rounds", retry_after_s=_RETRY_S)
        response = Response(pieces, mimetype=kind)
        response.call_on_close(self._streams.release)  # also where nothing was read
        return response

    def _pages(self, since: int, until: int) -> Iterator[list[dict[str, object]]]:
        for first in range(since, until, PAGE):
            yield status.history(self._service, first, min(PAGE, until - first))

    def _json(self, since: int, until: int) -> Iterator[bytes]:
        yield b'{"rounds":['
        for place, page in enumerate(self._pages(since, until)):
            yield (b"," if place else b"") + b",".join(map(messages.to_json, page))
        yield b"]}"

    def _csv(self, since: int, until: int) -> Iterator[bytes]:
        for place, page in enumerate(self._pages(since, until)):
            yield status.history_csv(page, with_header=not place).encode()
