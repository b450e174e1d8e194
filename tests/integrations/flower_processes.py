"""A SuperLink and SuperNodes as processes with the app of flower_app/, which needs no framework."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers.processes import Group, free_ports, listens, wait_for

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).resolve().parent / "flower_app"
PATIENCE_S = 900


class Site(Group):
    """keys: TLS, and SuperNodes that are known by their keys."""

    def __init__(self, folder, keys=False):
        super().__init__(folder, Path(sys.executable).parent, {
            "PYTHONPATH": str(ROOT), "FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "ROUNDS_FILE": str(Path(folder) / "rounds.jsonl")
        })
        self.keys, self.certificate = keys, self.folder / "server.pem"
        self.port, *self._node_ports = free_ports(4)
        security = "insecure = true"
        if keys:
            self.call("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                      "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-addext",
                      "subjectAltName=IP:127.0.0.1", "-keyout", "server.key", "-out", "server.pem")
            security = f'root-certificates = "{self.certificate}"'
        (self.folder / "config.toml").write_text(
            '[superlink]\ndefault = "local"\n\n[superlink.local]\n'
            f'address = "127.0.0.1:{self.port}"\n{security}\n')
        self.link = self.start_link()

    def call(self, *command):
        """Its output."""
        return subprocess.run([str(part) for part in command], cwd=self.folder, check=True,
                              env=self.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8").stdout

    def flwr(self, *arguments):
        return self.call(self.bin / "flwr", *arguments)

    def start_link(self):
        security = ("--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key",
                    "--ssl-ca-certfile", "server.pem",
                    "--enable-supernode-auth") if self.keys else ("--insecure",)
        link = self.start(self.bin / "flower-superlink", *security, "--database", "state.db",
                          "--port", self.port, "--disable-runtime-dependency-installation")
        wait_for(lambda: listens(self.port), "the SuperLink", 300)
        return link

    def key(self, name):
        """A new pair of keys; the file of the private one."""
        self.call("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", name)
        return self.folder / name

    def register(self, key):
        self.flwr("supernode", "register", f"{key}.pub", "local")

    def start_node(self, number, key=None):
        security = ("--root-certificates", self.certificate, "--auth-supernode-private-key",
                    key) if self.keys else ("--insecure",)
        return self.start(self.bin / "flower-supernode", *security, "--superlink",
                          f"127.0.0.1:{self.port}", "--port", self._node_ports[number],
                          "--node-config", f"partition-id={number} num-partitions=2")

    def is_accepted(self, node):
        """Whether the SuperLink took a SuperNode that was just started; else it has ended."""
        wait_for(lambda: node.poll() is not None or "SuperNode ID" in self.log_of(node),
                 "the SuperLink's answer to a SuperNode", PATIENCE_S)
        return node.poll() is None

    def kill(self, process):
        """That process alone, as an operating system without memory does it."""
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def log_of(self, process):
        return (self.folder / f"log-{self.processes.index(process)}").read_text()

    def run(self, rounds, timeout_s=60):
        self.flwr("run", APP, "local", "--run-config", f"rounds={rounds} timeout-s={timeout_s}")

    def status(self):
        """Of the newest run."""
        return json.loads(self.flwr("ls", "local", "--format", "json"))["runs"][0]["status"]

    def rounds(self):
        """[whether the sum is that of the members, [[number, clock, epoch, node], ...]] a round."""
        file = self.folder / "rounds.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def await_rounds(self, count):
        wait_for(lambda: len(self.rounds()) >= count, f"round {count}", PATIENCE_S)

    def await_status(self, status):
        end = time.monotonic() + PATIENCE_S
        while self.status() != status:
            assert time.monotonic() < end, self.status()
            time.sleep(2)
