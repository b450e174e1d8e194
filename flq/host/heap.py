"""How this process gives memory back to the system: not after each round.

A round makes and frees some twenty vectors of p floats. glibc returns such pieces to the kernel as
soon as they are free, and the next round gets them back page by page, each page cleared anew: more
than half of what `uplink.propose` costs. Here pieces below 32 MB, the largest bound that glibc
takes, come from the heap, and the heap keeps up to
64 MB of free memory at its end, so the same pages serve every round.

A process thus holds on to what one round needed at its peak (20 MB for 467,818 weights) and at most
64 MB of it in each arena, in a Jetson Nano's 4 GB; vectors of 32 MB and more, those of models
beyond 4 million weights, come and go as before. glibc gives each thread an arena: what TensorFlow's
threads have freed is then of no use to the thread that quantises. A worker has one arena.
"""

import ctypes
from typing import Any, Optional

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_LARGEST_PIECE_BYTES = 32 << 20
_KEPT_BYTES = 64 << 20


def keep_freed_memory(one_arena: bool = False) -> None:
    """Tell the C library; one that is not glibc is left as it is.

    For entry points: it is a setting of the whole process. one_arena: before its second thread, all
    threads are to take their memory from the same pages; who allocates much on many threads would
    wait for its lock.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_PIECE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        if one_arena:
            libc.mallopt(_M_ARENA_MAX, 1)


def give_back_free_memory() -> None:
    """Once, what is free now: after a start that needed more than the rounds will."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Optional[Any]:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
