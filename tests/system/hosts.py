"""Machines to deploy to, on this one: each a real sshd on a loopback port, with host keys, a home
and a PATH of its own.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.system.processes import ROOT, wait_until

MISSING = [
    name for name in ("sshd", "ssh", "ssh-keygen")
    if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None
]
SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
PATIENCE_S = 300  # until something is called broken

# The bash of a machine that somebody else has taken over: it runs what it is asked and changes what
# goes back.
LIAR = ("""#!{python}
import subprocess, sys
facts, more, said, archive, endless = {lies!r}
if sys.argv[3] == "pack" and archive:
    with open(archive, "rb") as file:
        sys.stdout.buffer.write(file.read())
    sys.exit(0)
sys.stderr.buffer.write(said)
sys.stderr.flush()
while endless:
    getattr(sys, endless).buffer.write(b"x" * 2 ** 20)
answer = subprocess.run(["/bin/bash"] + sys.argv[1:], stdout=subprocess.PIPE)
for line in answer.stdout.splitlines():
    name = line.partition(b"=")[0].replace(b"flq:", b"").decode("latin-1")
    if facts.get(name, b"") is not None:
        if name in facts:
            line = b"flq:" + name.encode("latin-1") + b"=" + facts[name]
        sys.stdout.buffer.write(line + b"\\n")
sys.stdout.buffer.write(more)
sys.exit(answer.returncode)
""")


class Hosts:
    """The client's side, its keys and known hosts, and the machines that were started."""

    def __init__(self, folder):
        self.folder, self.machines = folder, []
        for name in ("key", "other_key"):
            make_key(folder / name)
        (folder / "ssh_config").write_text(
            f"IdentityFile {folder}/key\nIdentitiesOnly yes\nUserKnownHostsFile "
            f"{folder}/known_hosts\n"
        )

    def start(self, name, **options):
        machine = Machine(self.folder / name, self.folder / (options.pop("key", "key") + ".pub"),
                          **options)
        self.machines.append(machine)
        return machine

    def deploy(self, *arguments, code=0, **variables):
        """Run deploy_jetson.sh to its end -> what it printed."""
        process = self.popen(*arguments, **variables)
        text = process.communicate(timeout=PATIENCE_S)[0]
        assert process.returncode == code, text
        return text

    def popen(self, command, *arguments, **variables):
        environment = dict(os.environ, PYTHON=sys.executable, HOME=str(self.folder),
                           TMPDIR=str(self.folder), FLQ_TOKEN=str(self.folder / "token"),
                           **variables)
        words = [
            ROOT / "deploy_jetson.sh", command, "--ssh_config", self.folder / "ssh_config",
            *arguments
        ]
        return subprocess.Popen([str(word) for word in words], cwd=str(self.folder),
                                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)

    def write(self, *lines):
        """The hosts file."""
        (self.folder / "deploy.conf").write_text("# user host port worker data\n\n" +
                                                 "".join(line + "\n" for line in lines))

    def close(self):
        for machine in self.machines:
            machine.close()


class Machine:
    """One sshd. tools: what its PATH lacks; variables: more of its environment; home: where its
    files lie, if not beside it.
    """

    def __init__(self, folder, public_key, without=(), variables=None, home=None):
        folder.mkdir()
        self.folder, self.home, self.bin = folder, home or folder / "home", folder / "bin"
        self.home.mkdir(exist_ok=True)
        self.bin.mkdir()
        for source in ("/bin", "/usr/bin"):
            for tool in os.listdir(source):
                if tool not in without and not os.path.lexists(str(self.bin / tool)):
                    (self.bin / tool).symlink_to(os.path.join(source, tool))
        make_key(folder / "host_key")
        shutil.copy(str(public_key), str(folder / "authorized_keys"))
        self.port = free_port()
        environment = dict({"HOME": self.home, "PATH": self.bin}, **(variables or {}))
        (folder / "sshd_config").write_text("\n".join([
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key",
            "PidFile none", "UsePAM no", f"AuthorizedKeysFile {folder}/authorized_keys",
            "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password", "LogLevel VERBOSE", "SetEnv " +
            " ".join('"{}={}"'.format(*pair) for pair in environment.items())
        ]) + "\n")
        if os.getuid() == 0:
            # sshd's own need; a system that runs one has it
            os.makedirs("/run/sshd", exist_ok=True)
        (folder / "sshd.log").touch()
        self._process = subprocess.Popen(
            [SSHD, "-D", "-f",
             str(folder / "sshd_config"), "-E",
             str(folder / "sshd.log")])
        wait_until(self._listens, "sshd listens")

    def lie(self, facts=None, more=b"", said=b"", archive="", endless=""):
        """From now on this machine is hostile. facts: {name: what it answers instead, or None for
        no answer}; more: what it appends to its answers; said: what it writes to its log; archive:
        the file that it sends as its logs and results."""
        lies = (facts or {}, more, said, str(archive), endless)
        (self.bin / "bash").unlink()
        (self.bin / "bash").write_text(LIAR.format(python=sys.executable, lies=lies))
        (self.bin / "bash").chmod(0o755)

    def _listens(self):
        assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
        return "Server listening" in (self.folder / "sshd.log").read_text()

    def line(self, worker, data="-", *options):
        """Of a hosts file."""
        return " ".join(
            [getpass.getuser(), "127.0.0.1",
             str(self.port), str(worker), data] + list(options))

    def connections(self):
        return (self.folder / "sshd.log").read_text().count("Accepted publickey")

    def files(self, folder=""):
        """{path: (content, modification time)} of everything in the home, but compiled Python."""
        return {
            str(path.relative_to(self.home)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in (self.home / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    def pid(self):
        return int((self.home / "flq" / "pid").read_text())

    def close(self):
        """End sshd, and what was started over it and still runs."""
        self._process.terminate()
        self._process.wait()
        for path in self.home.glob("*/pid"):
            if is_alive(int(path.read_text())):
                os.kill(int(path.read_text()), signal.SIGKILL)


def is_alive(pid):
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def make_key(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
