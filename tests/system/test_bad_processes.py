"""A worker or a master that cannot work says why in one line and ends with its exit code; the run
of the others goes on.
"""

import contextlib
import http.server
import json
import socket
import sys
import threading

import pytest

from tests.system.processes import QUADRATIC, history_of
from tests.system.test_same_run import REAL_PROGRAMS

WORKER = REAL_PROGRAMS["worker"]
ALLOW = ("--allow", "npz:mine.npz")


@pytest.fixture(scope="module")
def master(site):
    """A run that worker 0 keeps going for as long as the module needs it."""
    master = site.master("total_workers=4", "max_rounds=1000000", "dataset.name=npz:mine.npz",
                         "model.name=mlp")
    site.worker(0, master, *ALLOW, SECONDS_OF_TRAINING="0.1")
    master.wait_for_round(1)
    yield master
    for program in site.programs[:2]:
        assert program.process.poll() is None, program.name


@pytest.fixture
def goes_on(master):
    """After the test two more rounds are done: whoever failed has held up nobody."""
    yield
    master.wait_for_round(master.status()["current_round"] + 2)


def check_end(program, code, *words):
    """It ended with that exit code, and one line has all the words."""
    assert program.wait() == code
    text = program.text()
    assert [line for line in text.splitlines() if all(word in line for word in words)] != [], text
    assert "Traceback" not in text
    assert len(program.errors()) <= 1  # told once, however often it was tried


# --- where the master is
# ----------------------------------------------------------------------------------


class Foreign(http.server.BaseHTTPRequestHandler):
    """Another service: answers every request with what the test set."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.kind)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def foreign_service(status, kind, body):
    server = http.server.HTTPServer(("127.0.0.1", 0), Foreign)
    server.status, server.kind, server.body = status, kind, body
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_master_that_is_not_there_is_waited_for_and_then_given_up(site, goes_on):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        worker = site.worker(1, None, "--retry_for", "2", url=url, script=WORKER)
        check_end(worker, 75, "error: no answer from " + url, "Connection refused",
                  "is the master running")


@pytest.mark.parametrize("status, kind, body",
                         [(200, "text/html", b"<html>Welcome to nginx!</html>"),
                          (200, "application/json", b"{}"), (200, "application/json", b"[1]"),
                          (404, "text/plain", b"no"),
                          (400, "application/json", b'{"error": "strange"}'),
                          (302, "text/html", b"")])
def test_another_service_at_that_address_is_recognised(site, status, kind, body):
    with foreign_service(status, kind, body) as url:
        worker = site.worker(1, None, "--retry_for", "2", url=url, script=WORKER)
        what = f"error: {url} does not answer like an FLQ master"
        check_end(worker, 3, what, f"HTTP {status}", "check system.master_url")


def test_a_service_that_is_not_http_counts_as_no_answer(site):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def greet():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        worker = site.worker(1, None, "--retry_for", "1",
                             url=f"http://127.0.0.1:{listener.getsockname()[1]}", script=WORKER)
        check_end(worker, 75, "error: no answer from")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("url",
                         ["nonsense", "ftp://127.0.0.1:1", "http://127.0.0.1:port", "http://"])
def test_what_is_no_url_is_a_configuration_error(site, url):
    check_end(site.worker(1, None, "--retry_for", "2", url=url, script=WORKER), 2,
              "error: system.master_url is not a URL", "http://HOST:PORT")


# --- who the worker is
# ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids, code, words", [("4", 3, "worker 4 is not in this run"),
                                              ("2-9", 2, "--worker_id is not in this run"),
                                              ("x", 2, "--worker_id cannot take this value"),
                                              ("3-1", 2, "--worker_id cannot take this value"),
                                              ("-1", 2, "--worker_id cannot take this value"),
                                              ("99999", 2, "--worker_id cannot take this value")])
def test_a_worker_id_outside_the_run_is_refused(site, master, goes_on, ids, code, words):
    check_end(site.worker(ids, master, *ALLOW, script=WORKER), code, "error: " + words, "expected")


def test_a_second_process_with_the_same_id_ends_and_the_first_goes_on(site, master, goes_on):
    here = site.worker(0, master, *ALLOW, name="second-0-here")
    elsewhere = site.worker(0, master, *ALLOW, name="second-0-elsewhere",
                            FLQ_STATE_DIR=str(site.directory / "elsewhere"))
    check_end(here, 2, "error: ", "worker-0.state is in use by another process",
              "expected one process for each worker")
    check_end(elsewhere, 3, "worker 0 is running already", "--take_over")


def test_without_a_token_a_worker_waits_and_says_for_what(site, master, goes_on):
    missing = str(site.directory / "nowhere" / "token")
    check_end(site.worker(1, master, "--retry_for", "0.5", FLQ_TOKEN=missing, script=WORKER), 75,
              "error: no token yet at " + missing)


def test_the_token_of_another_worker_or_master_is_refused(site, master, goes_on):
    other = site.directory / "other-token"
    other.write_text(master.worker_token(2) + "\n")
    worker = site.worker(1, master, "--token_file", str(other), script=WORKER)
    check_end(worker, 2, f"error: {other} holds the token of another worker",
              "expected worker 1; got worker 2")
    other.write_text("f" * 64 + "\n")  # the form of an operator's
    worker = site.worker(1, master, "--token_file", str(other), script=WORKER)
    check_end(worker, 2, f"error: {other} holds the operator's token, and other users of this "
              "machine may read it", "expected mode 0600; got 0644")
    other.chmod(0o600)
    worker = site.worker(1, master, "--token_file", str(other), script=WORKER)
    check_end(worker, 3, "error: this is not a worker's token of this master",
              "python -m flq token")
    assert "reading the token once more" in worker.text() and "trying again" not in worker.text()


# --- what the worker brings
# -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document, words",
    [({"model": {"name": "softmax"}},
      ("model.name differs from the master's", 'expected "mlp"', 'got "softmax"')),
     ({"total_workers": 5},
      ("system.total_workers differs from the master's", "expected 4", "got 5")),
     ({"data_dri": "x"}, ("unknown key data_dri", "did you mean data_dir?"))])
def test_a_workers_file_that_contradicts_the_master_is_refused_with_both_values(
        site, master, goes_on, document, words):
    (site.directory / "mine.json").write_text(json.dumps(document))
    check_end(site.worker(1, master, "--config", "mine.json", script=WORKER), 2, "error: ", *words)


def test_data_that_is_missing_or_damaged_is_named_with_its_path(site, master, goes_on):
    (site.directory / "damaged").mkdir()
    (site.directory / "damaged" / "mine.npz").write_bytes(b"PK\x03\x04 this was an archive once")
    # Three processes that import TensorFlow: side by side.
    missing = site.worker(1, master, "--set", "dataset.data_dir=none", name="missing",
                          script=WORKER)
    damaged = site.worker(2, master, "--set", "dataset.data_dir=damaged", name="damaged-data",
                          script=WORKER)
    other_master = site.master("dataset.name=npz:none.npz", name="other-master",
                               script=REAL_PROGRAMS["master"])
    check_end(missing, 4, "error: cannot read none/mine.npz", "No such file")
    check_end(damaged, 4, "error: cannot read damaged/mine.npz", "expected an npz file")
    check_end(other_master, 4, "error: cannot read none.npz", "No such file")


# --- the master's own
# -------------------------------------------------------------------------------------


def test_a_master_that_cannot_start_says_why(site, master):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        busy = str(holder.getsockname()[1])
        for name, words, options in (("busy", "cannot listen on 127.0.0.1 port " + busy, [
                "--port", busy
        ]), ("taken", "another master uses master-run",
             ["--port", "0", "--run_dir",
              "master-run"]), ("typo", "unknown key flq_algorithm.mod", [
                  "--set", "flq_algorithm.mod=bin"
              ]), ("small", "up_budget_bits is below one upload", [
                  "--port", "0", "--set", "up_budget_bits=100", "--set", "entropy_coding=false",
                  "--run_dir", "small-run"
              ]), ("nofile", "cannot read the configuration none.json", ["--config", "none.json"]),
                                     ("file", "cannot make the run directory mine.txt",
                                      ["--port", "0", "--run_dir", "mine.txt"])):
            (site.directory / "mine.txt").touch()
            program = site.start(name, sys.executable, QUADRATIC, "master", *options)
            check_end(program, 2, "error: ", words)
    assert not (site.directory /
                "small-run").exists(), "a corrected command may have the same folder"


def test_a_simulation_with_a_budget_that_no_upload_meets_leaves_nothing(own_site):
    simulation = own_site.simulate("up_budget_bits=100", "entropy_coding=false",
                                   options=("--resume",))
    check_end(simulation, 2, "error: ", "up_budget_bits is below one upload")
    assert not (own_site.directory / "simulation-run").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_simulation_that_diverged_says_why_and_keeps_its_rounds(own_site, workers):
    simulation = own_site.simulate(f"total_workers={workers}", "max_rounds=50", "lr=1e6",
                                   "server_optimizer=sgd", "eval_every=1000")
    check_end(simulation, 1, "error: the simulation ended early")
    assert "the run diverges" in simulation.text()
    assert 0 < len(history_of(own_site.directory / "simulation-run")[0]) < 50


def test_a_worker_may_come_before_its_master(own_site):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    worker = own_site.worker("0-1", None, url=f"http://127.0.0.1:{port}")
    worker.wait_for_text("no token yet")
    master = own_site.master("total_workers=2", "max_rounds=2", "quorum=all",
                             options=("--exit_when_done", "--port", str(port)))
    assert [worker.wait(), master.wait()] == [0, 0]
