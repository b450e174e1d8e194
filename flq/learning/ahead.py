"""What a worker's next round needs beside the model, made while its upload waits for the verdict
(decision 43).
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Optional, Set, Tuple


class Ahead(object):
    """The value of make(worker, round) before it is asked for, on a thread of its own.

    Of each worker one value at most: what is prepared for another round takes its place, and what
    was prepared for a round that is not played is dropped. The thread starts with the first one.
    """

    def __init__(self, make: Callable[[int, int], Any]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._lock = threading.Lock()
        self._made: Dict[int, Tuple[int, Any]] = {}
        self._unfinished: Set[Any] = set()

    def prepare(self, worker: int, round_: int) -> None:
        """Begin with the value of that round; returns at once."""
        with self._lock:
            before = self._made.get(worker)
            if before is not None:
                if before[0] == round_:
                    return
                before[1].cancel()
            future: "Future[Any]" = self._thread.submit(self._make, worker, round_)
            self._unfinished.add(future)
            future.add_done_callback(self._unfinished.discard)
            self._made[worker] = round_, future

    def is_busy(self) -> bool:
        """Whether the thread has something to make: Python does not end before it is made."""
        return bool(self._unfinished)

    def take(self, worker: int, round_: int) -> Optional[Any]:
        """What was prepared for this round, once; None where nothing was or nobody has begun with
        it. Raises what `make` raised.
        """
        with self._lock:
            prepared, future = self._made.pop(worker, (None, None))
        # A future that can be cancelled has not begun: whoever asks is sooner done with it.
        if future is None or future.cancel() or prepared != round_:
            return None
        return future.result()
