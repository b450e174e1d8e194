"""Files that are there whole or not at all, also after a power cut, and files whose last piece may
be missing (protocol.md 4).
"""

import contextlib
import os
from typing import Any, Sequence

from flq.host import crash_points


def replace_file(path: str, chunks: Sequence[Any], name: str) -> None:
    """Write `path` anew: to a sibling, fsync, rename, fsync of the directory. Raises OSError; the
    old file then stays, alone, unless the directory's fsync failed: then the new one is there, and
    a power cut may bring the old one back. Only its owner may read it.

    name: what the crash points of this file are called.
    """
    sibling = path + ".new"
    try:
        with open(sibling, "wb", opener=_for_its_owner) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            crash_points.reach(name + ".fsync.before")
            os.fsync(file.fileno())
        crash_points.reach(name + ".rename.before")
        os.replace(sibling, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(sibling)  # what is there of it takes room
        raise
    crash_points.reach(name + ".rename.after")
    sync_directory(os.path.dirname(path) or ".")


def append_to_file(path: str, place: int, chunks: Sequence[Any], name: str) -> None:
    """Write the pieces of one record behind the first `place` bytes of a file, and fsync. What
    stood there goes. Raises OSError; the first bytes then stay, with a part of the record or none.

    name: as in replace_file.
    """
    with open(path, "r+b") as file:
        file.truncate(place)
        file.seek(place)
        crash_points.reach(name + ".append.before")
        for chunk in chunks[:-1]:
            file.write(chunk)
        file.flush()
        crash_points.reach(name + ".append.torn")
        file.write(chunks[-1])
        file.flush()
        crash_points.reach(name + ".append.fsync.before")
        os.fsync(file.fileno())
    crash_points.reach(name + ".append.after")


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
