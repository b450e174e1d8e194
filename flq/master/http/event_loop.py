"""The loop of the server's own thread: it waits on all connections and costs nothing for those on
which nothing happens.

waitress's loop asks every connection whether it wants to be read or written each time that one of
them has something, so a round of M workers costs M^2 questions. Here the system keeps what each
connection waits for. A connection is asked again after something happened to it, while a thread
serves it and when that ends, and all of them once a second, by which they find out what took too
long.
"""

from __future__ import annotations

import collections
import contextlib
import select
import selectors
import threading
import time
from typing import Any, Iterator

from waitress import wasyncore

_ALL_AGAIN_S = 1.0
_FLAGS = {selectors.EVENT_READ: select.POLLIN, selectors.EVENT_WRITE: select.POLLOUT,
          selectors.EVENT_READ | selectors.EVENT_WRITE: select.POLLIN | select.POLLOUT}


class EventLoop(dict[int, Any]):
    """waitress's map of its connections, by file descriptor, and the loop over it.

    Connections are added by the loop's thread and may be closed by any.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()
        self._wanted: dict[int, int] = {}  # what the system was asked to tell of each descriptor
        self._changed: collections.deque[Any] = collections.deque()
        # By thread: the next request may be served before the last one's thread is done.
        self._served: dict[int, Any] = {}
        self._all_at = -float("inf")

    def __setitem__(self, descriptor: int, channel: Any) -> None:
        self._forget(descriptor)
        super().__setitem__(descriptor, channel)
        self._changed.append(channel)

    def __delitem__(self, descriptor: int) -> None:
        super().__delitem__(descriptor)
        self._forget(descriptor)  # before it is closed: then the number may be another file's

    def look_again(self, channel: Any) -> None:
        """The loop's thread changed something at a channel that had no event."""
        self._changed.append(channel)

    @contextlib.contextmanager
    def serving(self, channel: Any) -> Iterator[None]:
        """A thread serves a channel, and pulls waitress's trigger when it is done: the loop then
        finds the channel among those that are served or that changed.
        """
        thread = threading.get_ident()
        self._served[thread] = channel
        try:
            yield
        finally:
            self._changed.append(channel)
            del self._served[thread]
            if channel.writable():  # what it left is sent by the loop, which may have looked before
                self._changed.append(channel)
                channel.server.pull_trigger()

    def run(self) -> None:
        """Until the server and all connections are closed."""
        while self:
            self._look()
            self._events(self._all_at - time.monotonic())
        self._selector.close()

    def _events(self, timeout_s: float) -> None:
        """Do what the system tells, after timeout_s at most."""
        for key, events in self._selector.select(timeout_s):
            channel = self.get(key.fd)
            if channel is None:  # a thread closed it, and the number is another file's
                self._forget(key.fd)
                continue
            wasyncore.readwrite(channel, _FLAGS[events])
            self._changed.append(channel)

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._all_at:
            self._all_at = now + _ALL_AGAIN_S
            self._changed.extend(list(self.values()))
        self._changed.extend(list(self._served.values()))
        for _ in range(len(self._changed)):
            self._look_at(self._changed.popleft())

    def _look_at(self, channel: Any) -> None:
        """Tell the system what a channel waits for now."""
        descriptor = channel._fileno
        held: Any = self.get(descriptor)
        if held is not channel:
            return  # it is closed
        wanted = selectors.EVENT_READ if channel.readable() else 0
        if channel.writable() and not channel.accepting and not self._is_answering(channel):
            wanted |= selectors.EVENT_WRITE
        known = self._wanted.get(descriptor, 0)
        if wanted == known:
            return
        # A thread that closes the connection meanwhile has its descriptor forgotten.
        with contextlib.suppress(OSError, KeyError, ValueError):
            if not wanted:
                self._forget(descriptor)
                return
            if known:
                self._selector.modify(descriptor, wanted)
            else:
                self._selector.register(descriptor, wanted)
            self._wanted[descriptor] = wanted

    def _is_answering(self, channel: Any) -> bool:
        """Whether a thread sends what the channel has: all but what the system has no room for. It
        waits for the loop where that is too much, and where nothing can be sent any more.
        """
        return bool(not channel.will_close
                    and channel.total_outbufs_len < channel.adj.outbuf_high_watermark
                    and channel in list(self._served.values()))

    def _forget(self, descriptor: int) -> None:
        self._wanted.pop(descriptor, None)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self._selector.unregister(descriptor)
