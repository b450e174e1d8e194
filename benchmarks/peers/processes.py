"""The processes of a system that is not ours: started and ended together, the ports where they
listen, and their processor time; standard library only.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

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


class Group(object):
    """The processes of one system, each in a session of its own, ended together. bin: the folder of
    their programs. environment: what they have beside ours.
    """

    def __init__(self, folder, bin_, environment):
        self.folder, self.bin, self.processes = Path(folder), Path(bin_), []
        self.environment = dict(os.environ, PATH=f"{self.bin}:{os.environ['PATH']}", **environment)

    def start(self, *command):
        with open(str(self.folder / f"log-{len(self.processes)}"), "w") as log:
            process = subprocess.Popen([str(part) for part in command], cwd=str(self.folder),
                                       env=self.environment, stdout=log, stderr=log,
                                       start_new_session=True)
        self.processes.append(process)
        return process

    def superlink(self, port):
        """Flower's SuperLink, which `flwr run APP local` finds at this port."""
        (self.folder / "config.toml").write_text(
            '[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = '
            f'"127.0.0.1:{port}"\ninsecure = true\n')
        return self.start(self.bin / "flower-superlink", "--insecure", "--port", port,
                          "--disable-runtime-dependency-installation")

    def end(self):
        # Some leave children behind, also in sessions of their own.
        left = [pid for process in self.processes for pid in descendants(process.pid)]
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def free_ports(count):
    """Different ones: all are held until the last is found."""
    with contextlib.ExitStack() as held:
        listening = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in listening:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in listening]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, what, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
