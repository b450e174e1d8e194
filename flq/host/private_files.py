"""Files that hold secrets: who else on this machine may read or change them.

Where a file system or an operating system keeps no modes of its own, chmod cannot help, and the
file belongs elsewhere; Windows, whose modes say nothing, is not judged.
"""

import os
import shlex
import stat
from typing import Optional

from flq.errors import ConfigError


def check(path: str, what: str) -> None:
    """Raises ConfigError where other users may read or change the secret that this file holds.

    What was open to others may be known to them, so this is refused and not mended: a chmod by the
    program would hide it. A group that may read is let in, for who runs a master under a group of
    its own: `warning` tells of it. what: such as "the operator's token".
    """
    mode = _mode(path)
    if mode & 0o026:
        may = "change" if mode & 0o022 else "read"
        raise ConfigError(
            f"{path} holds {what}, and other users of this machine may {may} it", "mode 0600",
            f"{mode:04o}",
            f"chmod 600 {shlex.quote(path)}; where others may have read it, make a new one")


def warning(path: str, what: str) -> Optional[str]:
    """A line for the log where not the owner alone may read or change a file; None where all is
    well or the file is not there.
    """
    mode = _mode(path)
    if not mode & 0o077:
        return None
    return (f"{path} holds {what} and has mode {mode:04o}, not 0600: "
            f"chmod 600 {shlex.quote(path)}")


def _mode(path: str) -> int:
    """The bits of a file's mode that chmod sets; 0 where it says nothing or nothing is there."""
    if os.name != "posix":
        return 0
    try:
        found = os.stat(path)
    except OSError:  # who reads the file says why
        return 0
    return stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else 0
