"""How many files and connections this process may have open.

Where a shell or a service says nothing else, that is 1,024, and a process may raise it to a second,
hard limit.
"""

import resource
import sys

from flq.errors import ConfigError

_OTHERS = 256  # libraries, the store, logs, data, TensorFlow's threads


def allow(number: int, what: str) -> None:
    """Let it have that many open beside what any process needs. what: whose they are, in the error.

    Raises ConfigError where the system does not let it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + _OTHERS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (OSError, ValueError):
        raise ConfigError(f"this system does not let a process open the files of {what}",
                          f"a limit of at least {needed}", hard,
                          f"raise it (ulimit -n {needed}, LimitNOFILE={needed} in a systemd unit)")


def room() -> int:
    """How many may be open now beside what any process needs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(0, soft - _OTHERS)
