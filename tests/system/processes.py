"""Masters and workers as processes of their own, in a temporary directory; they never outlive the
test.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import requests

from flq import tokens

ROOT = Path(__file__).resolve().parents[2]
QUADRATIC = ROOT / "tests" / "system" / "quadratic.py"
# How long something took, and what the network added, is all that may differ between two runs of
# one configuration.
VARYING = {"round_time_s", "closed_at", "wire_bits_up", "wire_bits_down"}
PATIENCE_S = 120.0  # until something is called broken; nothing waits that long when it works


def wait_until(condition, what, patience_s=PATIENCE_S):
    """condition() again and again until it is true; returns its value."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s in vain until {what}"
        time.sleep(0.02)


def history_of(run_dir):
    """The history of a run on disk without what may vary: (rounds, rows of the workers)."""
    history = json.loads((run_dir / "history.json").read_text())
    return [{name: value for name, value in record.items() if name not in VARYING}
            for record in history["rounds"]], history["workers"]


class Program:
    """One started process. Everything that it prints goes to `output`."""

    def __init__(self, name, output, command, directory, environment):
        self.name, self._output = name, output
        with open(output, "xb") as file:
            self.process = subprocess.Popen([str(word) for word in command], cwd=directory,
                                            env=environment, stdin=subprocess.DEVNULL, stdout=file,
                                            stderr=subprocess.STDOUT)

    def wait(self, patience_s=PATIENCE_S):
        """The exit code."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {patience_s:.0f} s")

    def end(self, number):
        """Send a signal and wait: (exit code, seconds until it ended)."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.wait(), time.monotonic() - started

    def text(self):
        return self._output.read_text(encoding="utf-8", errors="replace")

    def errors(self):
        """The lines that it ended with: what a person reads first."""
        return [line for line in self.text().splitlines() if line.startswith("error: ")]

    def tail(self):
        return "--- {} (exit code {})\n{}\n".format(self.name, self.process.poll(),
                                                    "\n".join(self.text().splitlines()[-15:]))

    def wait_for_text(self, words):
        self._wait_while_alive(lambda: words in self.text(), f"says {words!r}")

    def _wait_while_alive(self, condition, what):
        def met():
            ended = self.process.poll() is not None  # before the look: what it did last counts
            found = condition()
            assert found or not ended, f"{self.name} ended before it {what}"
            return found

        wait_until(met, f"{self.name} {what}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Master(Program):
    """A master, and what a person or a program asks it."""

    def __init__(self, name, output, command, directory, environment):
        super().__init__(name, output, command, directory, environment)
        self.run_dir = directory / (name + "-run")
        self._port_file, self._token_file = directory / (name + ".port"), Path(
            environment["FLQ_TOKEN"])
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def port(self):
        self._wait_while_alive(self._port_file.exists, "listens")
        return int(self._port_file.read_text())

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def secret(self):
        assert self.port  # it has made its secret by then
        return tokens.read_secret(str(self._token_file))

    def worker_token(self, worker):
        return tokens.worker_token(self.secret, worker)

    def ask(self, method, path, credential=None, headers=(), **content):
        """One request; credential goes into Authorization: Bearer."""
        headers = dict(headers)
        if credential is not None:
            headers["Authorization"] = "Bearer " + credential
        return self._session.request(method, self.url + path, headers=headers, timeout=PATIENCE_S,
                                     **content)

    def get(self, path):
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def order(self, method, path, document=None):
        """A request of the operator."""
        return self.ask(method, path, self.secret, json=document)

    def status(self):
        return self.get("/status")

    def wait_for_round(self, number):
        wait_until(lambda: self.status()["current_round"] >= number, f"round {number} is done")

    def wait_for_phase(self, phase):
        wait_until(lambda: self.status()["phase"] == phase, "the phase is " + phase)

    def kill(self):
        super().kill()
        self._session.close()


class Site:
    """A directory that stands for a machine: its home, its token, its processes."""

    def __init__(self, directory):
        self.directory, self.programs = directory, []
        self.environment = dict(os.environ, HOME=str(directory), FLQ_TOKEN=str(directory / "token"),
                                FLQ_STATE_DIR=str(directory / "state"), PYTHONPATH=str(ROOT),
                                PYTHONUNBUFFERED="1", TF_CPP_MIN_LOG_LEVEL="2",
                                CUDA_VISIBLE_DEVICES="")
        self.environment.pop("FLQ_DATA_DIR", None)

    def start(self, name, *command, kind=Program, **variables):
        output = self.directory / f"{len(self.programs):02}-{name}.out"
        program = kind(name, output, command, self.directory, dict(self.environment, **variables))
        self.programs.append(program)
        return program

    def master(self, *settings, name="master", options=("--exit_when_done",),
               script=(QUADRATIC, "master"), port=0, run_dir=None, **variables):
        """A master of the quadratic, or of script=(ROOT / "flq_master.py",); settings are
        key=value.
        """
        run_dir = run_dir or name + "-run"
        master = self.start(name, sys.executable, *script, "--port", port, "--port_file",
                            name + ".port", "--run_dir", run_dir, *options,
                            *set_options(("save_results=false",) + settings), kind=Master,
                            **variables)
        master.run_dir = self.directory / run_dir
        return master

    def worker(self, ids, master, *options, name=None, url=None, python=sys.executable,
               script=(QUADRATIC, "worker"), **variables):
        """A process with one worker or a range of them; url: where it finds the master, if not
        directly.
        """
        return self.start(name or f"worker-{ids}", python, *script, "--worker_id", ids,
                          "--master_url", url or master.url, *options, **variables)

    def simulate(self, *settings, name="simulation", script=(QUADRATIC, "simulate"), options=(),
                 run_dir=None, **variables):
        """A whole run in one process, with its log; its files are in NAME-run."""
        return self.start(name, sys.executable, *script, "--verbose", "--run_dir", run_dir
                          or name + "-run", *options,
                          *set_options(("save_results=false",) + settings), **variables)

    def tails(self):
        return "\n".join(program.tail() for program in self.programs)

    def close(self):
        for program in self.programs:
            program.kill()


def set_options(settings):
    return [word for setting in settings for word in ("--set", setting)]
