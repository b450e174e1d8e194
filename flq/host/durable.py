"""Files that are there whole or not at all, also after a power cut (protocol.md 4)."""

import os
from typing import Iterable

from flq.host import crash_points


def replace_file(path: str, chunks: Iterable[bytes], name: str) -> None:
    """Write `path` anew: to a sibling, fsync, rename, fsync of the directory. Raises OSError; the
    old file then stays. Only its owner may read it.

    name: what the crash points of this file are called.
    """
    sibling = path + ".new"
    with open(sibling, "wb", opener=_for_its_owner) as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        crash_points.reach(name + ".fsync.before")
        os.fsync(file.fileno())
    crash_points.reach(name + ".rename.before")
    os.replace(sibling, path)
    crash_points.reach(name + ".rename.after")
    sync_directory(os.path.dirname(path) or ".")


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
