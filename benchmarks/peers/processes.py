"""Processor time of a group of processes, for measuring systems whose processes are not ours;
standard library only.
"""

import json
import os
import time

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def descendants(root):
    """All that a process started, directly or not: pid -> the fields of /proc/PID/stat behind the
    name.
    """
    stats = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    stats[int(entry)] = file.read().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
    found, newer = {}, {root}
    while newer:
        newer = {pid for pid, fields in stats.items() if int(fields[1]) in newer}
        found.update({pid: stats[pid] for pid in newer})
    return found


def processor_s(root):
    """User and system time of all descendants of a process, and of the children that they waited
    for, in seconds.
    """
    return sum(sum(map(int, fields[11:15])) for fields in descendants(root).values()) / TICKS_PER_S


class Rounds(object):
    """Notes when each round ended, and what the descendants of ROUNDS_ROOT had used by then, one
    JSON line each.
    """

    def __init__(self, path):
        self._path = path

    def ended(self):
        with open(self._path, "a") as file:
            file.write(
                json.dumps([time.time(), processor_s(int(os.environ["ROUNDS_ROOT"]))]) + "\n")
