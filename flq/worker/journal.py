"""Records behind a state, one for each round since it was written: what is new and no more
(docs/decisions/0035).

    record = FLQR | its number (u32) | length of the content (u64) | content | SHA-256 of all of it

Everything is little-endian. The numbers count from 0. A record is written in one piece and is on
the disk before the next one begins, so a process that dies, or a machine without power, leaves at
most one that is not whole, and that is the last: it is as if it had never been written. A record
that is not whole with a whole one behind it is damage.
"""

import hashlib
import io
import os
import struct
from typing import Any, Iterator, List, Optional, Tuple

MAGIC = b"FLQR"

_HEAD = struct.Struct("<4sIQ")
_DIGEST_BYTES = 32


def pack(number: int, content: List[Any]) -> List[Any]:
    """One record in pieces, the SHA-256 as the last. content: pieces of bytes, none is copied."""
    head = _HEAD.pack(MAGIC, number, sum(map(len, content)))
    digest = hashlib.sha256(head)
    for piece in content:
        digest.update(piece)
    return [head] + content + [digest.digest()]


def records(file: Any, place: int) -> Iterator[Tuple[bytes, int]]:
    """The content of each whole record from `place` on, and where it ends. One at a time is in
    memory.

    file: open for reading bytes. Raises ValueError where what is not whole is not the last.
    """
    number, size = 0, file.seek(0, os.SEEK_END)
    while True:
        content = _whole(file, place, size, number)
        if content is None:
            break
        place += _HEAD.size + len(content) + _DIGEST_BYTES
        yield content, place
        number += 1
    file.seek(place)
    rest = file.read()
    later = rest.find(MAGIC)
    while later >= 0:
        if _whole(io.BytesIO(rest), later, len(rest)) is not None:
            raise ValueError(f"record {number} of its journal, at byte {place}, is not whole, and "
                             "one behind it is")
        later = rest.find(MAGIC, later + 1)


def _whole(file: Any, place: int, size: int, number: Optional[int] = None) -> Optional[bytes]:
    """The content of the record that begins there, None where there is no whole one. size: of the
    file. number: which one it must be, None for any.
    """
    file.seek(place)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, told, length = _HEAD.unpack(head)
    if magic != MAGIC or number not in (None, told) or length > size - place:
        return None
    content = file.read(length)
    digest = hashlib.sha256(head)
    digest.update(content)
    return content if digest.digest() == file.read(_DIGEST_BYTES) else None
