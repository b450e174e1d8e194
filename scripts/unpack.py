#!/usr/bin/env python3
"""What a host sends to `deploy_jetson.sh collect`, unpacked without trust: standard library only,
Python 3.6.

unpack.py FOLDER GB: reads a tar archive from the standard input and puts its logs/ and results/
into FOLDER. A host that was taken over may send anything. So only plain files and folders are
taken, what came lies in a fresh folder until all of it is right, and nothing is followed or
replaced in FOLDER that is not a file or a folder itself.
"""

import os
import shutil
import signal
import stat
import sys
import tarfile
import tempfile
from typing import IO, Any, Callable, List

PARTS = ("logs", "results")  # what scripts/on_host.sh packs
MAX_ENTRIES = 100000
MAX_NAME = 4096  # bytes; what Linux takes as a path
MAX_DEPTH = 50
LATEST = 2 ** 32  # seconds; what every file system takes as a time
FILES, FOLDER, LONG_NAME = (tarfile.REGTYPE,
                            tarfile.AREGTYPE), tarfile.DIRTYPE, tarfile.GNUTYPE_LONGNAME


class Refused(Exception):
    """One line: what came, and what to do where something can be done."""


class Header(tarfile.TarInfo):
    """A header that is judged before tarfile acts on it: long names are read into memory, links and
    devices have no other use.
    """

    type_before = b""  # that of the header before this one

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "tarfile.TarInfo":
        # tarfile takes this for an end; a whole archive ends with a block of zeros before
        if len(buf) < tarfile.BLOCKSIZE:
            raise Refused("its archive ends too early")
        header = super().frombuf(buf, encoding, errors)
        if header.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            raise Refused(
                f"{shown(header.name)} is a link, to {shown(header.linkname)}: of logs and results "
                "only files and folders are taken"
            )
        if header.type not in (*FILES, FOLDER) and not (header.type == LONG_NAME
                                                        and header.size <= MAX_NAME):
            raise Refused(
                f"{shown(header.name)} is neither a file nor a folder: only these are taken")
        # tarfile calls itself for the header behind a long name
        if header.type == cls.type_before == LONG_NAME:
            raise Refused("its archive has a long name without a file or folder")
        cls.type_before = header.type
        if header.size < 0:
            raise Refused(f"{shown(header.name)} has {header.size} bytes")
        if header.type in FILES and header.mode & (stat.S_ISUID | stat.S_ISGID):
            raise Refused(
                f"{shown(header.name)} has a setuid or setgid bit: no log or result has one")
        return header


def shown(name: str) -> str:
    """A name as a terminal may show it."""
    text = ascii(name)
    return text if len(text) <= 100 else text[:100] + "..."


def parts_of(name: str, is_folder: bool) -> List[str]:
    """The folders and the file of an archive's name, which begins below FOLDER."""
    parts = name.split("/")
    if is_folder and parts[-1] == "":  # a long name before Python 3.10
        parts = parts[:-1]
    if parts[:1] == ["."]:
        parts = parts[1:]
    if not parts or parts[0] not in PARTS or any(part in ("", ".", "..") for part in parts):
        raise Refused(f"{shown(name)} is not below logs or results")
    if len(parts) > MAX_DEPTH:
        raise Refused(f"{shown(name)} lies in more than {MAX_DEPTH} folders")
    if not name.isprintable():
        raise Refused(f"{shown(name)} has control characters in its name")
    return parts


def read_archive(source: IO[bytes], fresh: str, max_gb: int) -> None:
    """Write an archive's files and folders below `fresh`, with modes of our own."""
    entries = size = 0
    with tarfile.open(fileobj=source, mode="r|", tarinfo=Header) as archive:
        for entry in archive:
            entries, size = entries + 1, size + entry.size
            if size > max_gb * 10 ** 9:
                raise Refused(f"more than {max_gb} GB came (--max_gb)")
            if entries > MAX_ENTRIES:
                raise Refused(f"more than {MAX_ENTRIES} files and folders came")
            path = os.path.join(fresh, *parts_of(entry.name, entry.isdir()))
            try:
                if entry.isdir():
                    os.makedirs(path, exist_ok=True)
                else:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "xb") as file:
                        shutil.copyfileobj(archive.extractfile(entry), file)
                    time = min(max(entry.mtime, 0), LATEST)
                    os.utime(path, (time, time))
            except (FileExistsError, NotADirectoryError):
                raise Refused(
                    f"{shown(entry.name)} came after a file or folder that is in the way of it"
                ) from None


def check_target(fresh: str, folder: str) -> None:
    """Refuse a FOLDER in which a link, or anything else that is no file or folder, lies where
    something would be put.
    """
    for parent, _, files in os.walk(fresh):
        target = os.path.normpath(os.path.join(folder, os.path.relpath(parent, fresh)))
        check_one(target, stat.S_ISDIR, "folder")
        for name in files:
            check_one(os.path.join(target, name), stat.S_ISREG, "file")


def check_one(path: str, is_right: Callable[[int], bool], kind: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return  # the second: what is no folder above it is refused itself
    if stat.S_ISLNK(mode):
        raise Refused(f"{shown(path)} is a link, which is not followed: take it away")
    if not is_right(mode):
        raise Refused(f"{shown(path)} is no {kind}, and one came: take it away")


def move(fresh: str, folder: str) -> None:
    """Put every file into its place.

    What lies there and did not come this time stays: a host may have made room.
    """
    for parent, _, files in os.walk(fresh):
        target = os.path.normpath(os.path.join(folder, os.path.relpath(parent, fresh)))
        os.makedirs(target, exist_ok=True)
        for name in files:
            os.replace(os.path.join(parent, name), os.path.join(target, name))


def main() -> int:
    folder, max_gb = sys.argv[1].rstrip("/"), int(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the fresh folder goes as well
    os.umask(0o077)
    source = sys.stdin.buffer
    if not source.peek(1):
        return 1  # ssh has said why
    try:
        os.makedirs(os.path.dirname(folder) or ".", exist_ok=True)
        # Beside its place, so that moving there is a change of names.
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=os.path.dirname(folder)
                                         or ".") as fresh:
            read_archive(source, fresh, max_gb)
            check_target(fresh, folder)
            move(fresh, folder)
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except tarfile.TarError as error:
        print(f"its archive is broken: {ascii(str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
