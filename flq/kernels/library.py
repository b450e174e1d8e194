"""The library that build.py makes of the C files here, where this machine has it.

It lies beside its sources, under a name that says what it was made from, checked by and made for:
one of another version or for another kind of machine has another name, and is not loaded. Its last
bytes are the SHA-256 of all before them: one that a disk damaged is not loaded either, for it could
end the process.
"""

import ctypes
import hashlib
import os
import sysconfig
from typing import Optional

DIRECTORY = os.path.dirname(os.path.abspath(__file__))
SOURCES = tuple(os.path.join(DIRECTORY, name) for name in ("kernels.c", "contexts.c", "deflate.c"))
CHECK = os.path.join(DIRECTORY, "check.py")
"""It is among what a name says: what an older check let pass, a newer one may not."""
OPTIONS = ("-O3", "-std=c99", "-ffp-contract=off", "-fPIC", "-shared")
"""Without -ffp-contract=off a compiler may round a product and a sum once, and the bits differ."""
SWITCH = "FLQ_KERNELS"
"""An environment variable: with `numpy` the library is not loaded."""


def prefix() -> str:
    """How the names of the libraries for this kind of machine begin."""
    return f"kernels-{sysconfig.get_platform()}-"


def path(directory: str = DIRECTORY) -> str:
    """Where the library of these sources lies, for this machine. Raises OSError without them."""
    digest = hashlib.sha256(" ".join(OPTIONS).encode("ascii"))
    for source in SOURCES + (CHECK,):
        with open(source, "rb") as file:
            digest.update(file.read())
    return os.path.join(directory, f"{prefix()}{digest.hexdigest()[:12]}.so")


def seal(file: str) -> None:
    """Put the checksum behind what a compiler made; no loader reads it. Raises OSError."""
    with open(file, "r+b") as library:
        library.write(hashlib.sha256(library.read()).digest())
        library.flush()
        os.fsync(library.fileno())


def is_whole(file: str) -> bool:
    """Whether it is as it was when it was sealed."""
    try:
        with open(file, "rb") as library:
            content = library.read()
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return content[-size:] == hashlib.sha256(content[:-size]).digest()


def load(file: str) -> Optional[ctypes.CDLL]:
    """None where there is none that is whole and that this machine can load."""
    try:
        return ctypes.CDLL(file) if is_whole(file) else None
    except OSError:
        return None


def _found() -> Optional[ctypes.CDLL]:
    if os.environ.get(SWITCH) == "numpy":
        return None
    try:
        return load(path())
    except OSError:  # who packed FLQ left the sources out
        return None


LOADED = _found()
NAME = "NumPy" if LOADED is None else "compiled kernels"
"""What computes, in words."""
