"""A thread beside the driver's: what a round needs at the end is begun as soon as it can be."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

_threads = ThreadPoolExecutor(1, "coder")  # of all runs of this process; it starts when it is used


def start(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Begin a computation. What is returned gives its result when it is there, or raises what it
    raised.
    """
    return _threads.submit(function, *arguments).result
