"""The HTTP server on a real socket: what it refuses by itself, and the count of every byte of
workers.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from flq.errors import ERROR_KINDS, ConfigError, ProtocolError
from flq.master.http import server as server_module
from flq.master.http.server import WORKER_PATHS, Server, error_name
from flq.master.http.wire import WireCounter

PATIENCE_S = 30.0
LONGEST_BODY = 100000


def application(environ, start_response):
    """Answers how long the body was, after reading it; /fail raises."""
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("a bug")
    body = str(len(environ["wsgi.input"].read())).encode("ascii")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


@contextlib.contextmanager
def serving(max_workers, *is_worker):
    server = Server("127.0.0.1", 0, max_workers)
    server.start(application, LONGEST_BODY, *is_worker)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server():
    with serving(4) as server:
        yield server


class Peer:
    """A connection of plain bytes that knows how many travelled."""

    def __init__(self, server):
        self._socket = socket.create_connection((server.host, server.port), PATIENCE_S)
        self.sent = self.received = 0

    def send(self, data):
        self._socket.sendall(data)
        self.sent += len(data)
        return self

    def read_answer(self):
        """One answer with a Content-Length -> (status, headers, body)."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._some()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])
        }
        while len(body) < int(headers.get("content-length", 0)):
            body += self._some()
        return int(lines[0].split()[1]), headers, body

    def _some(self):
        data = self._socket.recv(65536)
        assert data, "the server closed the connection"
        self.received += len(data)
        return data

    def close(self):
        self._socket.close()


@pytest.fixture
def peer(server):
    peers = [Peer(server)]
    yield peers[0]
    peers[0].close()


def request(method, path, body=b"", *headers):
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"] + length + list(headers)
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def check_count(server, up, down):
    """The count of a byte follows the byte: it may take a moment."""
    deadline = time.monotonic() + PATIENCE_S
    while server.wire.bits() != (8 * up, 8 * down) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.wire.bits() == (8 * up, 8 * down)


# --- counting


@pytest.mark.parametrize("path", sorted(WORKER_PATHS))
def test_every_byte_of_workers_counts_in_both_directions(server, peer, path):
    for body in (b"", b"x" * 10, bytes(90000)):
        peer.send(request("POST", path + "?wait=1", body))
        assert peer.read_answer()[2] == str(len(body)).encode("ascii")
    check_count(server, peer.sent, peer.received)


@pytest.mark.parametrize("path", [
    "/", "/status", "/history?since=1", "/page/page.js", "/stop", "/bid/", "/registers",
    "/x/register"
])
def test_peoples_endpoints_never_count(server, peer, path):
    peer.send(request("POST", path, bytes(1000)))
    peer.read_answer()
    check_count(server, 0, 0)


def test_one_connection_may_serve_both(server, peer):
    up = down = 0
    for path, counts in (("/bid", True), ("/status", False), ("/outcome?round=1", True), ("/status",
                                                                                          False)):
        sent, received = peer.sent, peer.received
        peer.send(request("POST", path, b"abc"))
        peer.read_answer()
        up, down = up + counts * (peer.sent - sent), down + counts * (peer.received - received)
    check_count(server, up, down)


def test_chunked_bodies_count_as_they_travel(server, peer):
    peer.send(
        request("POST", "/upload_update", b"", "Transfer-Encoding: chunked") +
        b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    assert peer.read_answer()[2] == b"7"
    check_count(server, peer.sent, peer.received)


def test_an_upload_that_breaks_off_counts_as_far_as_it_came(server, peer):
    peer.send(request("POST", "/upload_update", bytes(5000))[:-4000])
    peer.close()
    check_count(server, peer.sent, 0)


def test_what_is_refused_counts_too(server, peer):
    peer.send(request("POST", "/upload_update", b"", f"Content-Length: {LONGEST_BODY + 1}"))
    assert peer.read_answer()[0] == 413
    check_count(server, peer.sent, peer.received)


def test_a_failing_answer_counts_too(server, peer):
    peer.send(request("GET", "/bid"))
    peer.read_answer()
    peer.send(b"what is this\r\n\r\n")
    assert peer.read_answer()[0] == 400
    check_count(server, peer.sent, peer.received)


def test_the_counter_adds():
    counter = WireCounter()
    counter.received(3)
    counter.sent(5)
    counter.received(4)
    assert counter.bits() == (56, 40)


# --- what the server refuses by itself


@pytest.mark.parametrize(
    "data, name",
    [(b"what is this\r\n\r\n", "bad_request"),
     (request("POST", "/bid", b"", "Content-Length: -5"), "bad_request"),
     (request("POST", "/bid", b"", "Content-Length: five"), "bad_request"),
     (request("POST", "/bid", b"", "Content-Length: 5", "Content-Length: 6"), "bad_request"),
     (request("POST", "/bid", b"", "Transfer-Encoding: gzip"), "bad_request"),
     (request("GET", "/status", b"", "X-Long: " + "x" * 20000), "headers_too_large"),
     (request("GET", "/" + "x" * 20000), "headers_too_large"),
     (request("POST", "/upload_update", b"", f"Content-Length: {LONGEST_BODY + 1}"), "too_large"),
     (request("POST", "/upload_update", b"", "Transfer-Encoding: chunked") +
      (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 4, "too_large"), ],
    ids=["garbage", "negative", "word", "two lengths", "gzip", "header", "path", "body", "chunks"])
def test_a_request_that_no_application_sees_is_refused_in_the_same_form(server, peer, data, name):
    status, headers, body = peer.send(data).read_answer()
    document = json.loads(body)
    assert (document["error"], status) == (name, ERROR_KINDS[name].status)
    assert set(document) == {"error", "message", "expected", "got", "hint"
                             } and headers["content-type"] == "application/json"
    assert "server" not in headers


def test_a_bug_of_the_application_is_internal(server, peer, caplog):
    status, _, body = peer.send(request("GET", "/fail")).read_answer()
    assert (status, json.loads(body)["error"]) == (500, "internal") and b"a bug" not in body
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("status", list(range(400, 432)) + [451] + list(range(500, 512)))
def test_every_status_has_an_error_name(status):
    assert ProtocolError(error_name(status), "").kind.status in (status, 400, 500)


# --- listening


def test_a_port_that_is_taken_or_impossible_is_named(server):
    for host, port in ((server.host, server.port), ("127.0.0.1", 70000), ("nobody.invalid", 5000),
                       ("203.0.113.1", 5000)):
        with pytest.raises(ConfigError) as refusal:
            Server(host, port, 1)
        assert f"cannot listen on {host} port {port}" in str(
            refusal.value) and "--port" in refusal.value.hint


def test_a_server_that_never_started_gives_its_port_back():
    first = Server("127.0.0.1", 0, 1)
    first.close()
    second = Server("127.0.0.1", first.port, 1)
    assert second.port == first.port and second.on_loopback
    second.close()


def test_many_idle_connections_do_not_keep_others_out(server):
    idle = [Peer(server) for _ in range(40)]
    peer = Peer(server)
    peer.send(request("GET", "/status"))
    assert peer.read_answer()[0] == 200
    for one in [peer, *idle]:
        one.close()


def kept(path, run_id="run-1", in_rounds=(0, 0)):
    counter = WireCounter()
    counter.keep(path, run_id, in_rounds)
    return counter


def test_a_wire_counter_goes_on_where_a_killed_process_stopped(tmp_path):
    path = tmp_path / "run.wire"
    counter = kept(path)
    counter.received(100)
    counter.sent(7)
    assert kept(path).bits() == (800, 56), "nothing was closed or flushed"
    counter.close()
    counter.received(1)  # the last connections end after the file
    assert kept(path).bits() == (800, 56)
    assert kept(path,
                in_rounds=(8000, 0)).bits() == (8000, 56), "a file that is older than the rounds"
    assert path.stat().st_size == 32


@pytest.mark.parametrize("content", [None, b"", b"short", bytes(32), b"x" * 100])
def test_a_wire_counter_without_its_file_counts_from_the_rounds(tmp_path, content):
    path = tmp_path / "run.wire"
    if content is not None:
        path.write_bytes(content)
    assert kept(path, in_rounds=(80, 160)).bits() == (80, 160)
    assert kept(path, run_id="another", in_rounds=(8, 8)).bits() == (8, 8)


def test_a_wire_counter_that_cannot_write_counts_all_the_same(tmp_path, caplog):
    counter = kept(tmp_path / "nowhere" / "run.wire", in_rounds=(80, 160))
    counter.received(10)
    assert counter.bits() == (160, 160) and "cannot write" in caplog.text


@pytest.fixture
def crowded():
    """A server for one worker: 34 connections an address, 132 in all."""
    with serving(1) as server:
        yield server


def test_a_new_connection_takes_the_place_of_one_that_owes_its_request(crowded):
    """200 slow ones of one address: whoever comes after them is answered."""
    slow = []
    for _ in range(200):
        connection = socket.create_connection((crowded.host, crowded.port), PATIENCE_S)
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        slow.append(connection)
    for _ in range(3):
        with socket.create_connection((crowded.host, crowded.port), PATIENCE_S) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert peer.recv(12) == b"HTTP/1.1 200"
    for connection in slow:
        connection.close()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@contextlib.contextmanager
def long_answers(max_workers):
    """A server whose answers are longer than the system's buffers, and a function that opens
    connections that ask for one and take nothing of it.
    """
    def long_answer(environ, start_response):
        start_response("200 OK", [("Content-Length", str(2**23))])
        return [bytes(2**23)]

    server = Server("127.0.0.1", 0, max_workers)
    server.start(long_answer, LONGEST_BODY)
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)

        def ask():
            taker = stack.enter_context(socket.socket())
            taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            taker.settimeout(PATIENCE_S)
            taker.connect((server.host, server.port))
            taker.sendall(request("GET", "/"))

        yield server, ask


# At a limit of 300 open files; it ends with its input.
AT_A_LIMIT = """
import resource, sys
from flq.master.http.server import Server
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
server = Server("127.0.0.1", 0, int(sys.argv[1]))
server.start(application, 1000)
print(server.port, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("workers, connections, addresses", [(100, 500, 9), (150, 300, 1)])
def test_nobody_is_kept_out_by_the_limit_of_open_files(workers, connections, addresses):
    """As many as the server would keep, from many addresses, or two of each worker: all are let
    in, and the last ones stay.
    """
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", AT_A_LIMIT, str(workers)], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        stack.callback(process.stdin.close)
        where, peers = ("127.0.0.1", int(process.stdout.readline())), []

        def ask(peer):
            peer.sendall(request("GET", "/"))
            data = b""
            while not data.endswith(b"ok"):
                more = peer.recv(1000)
                assert more, "the server closed the connection"
                data += more

        for number in range(connections):
            source = f"127.0.0.{1 + number % addresses}", 0
            peers.append(stack.enter_context(socket.create_connection(where, PATIENCE_S, source)))
            ask(peers[-1])
        for peer in peers[-2 * workers:]:
            ask(peer)
        process.stdin.close()
        assert "Too many open files" not in process.stderr.read()


def test_who_takes_nothing_of_an_answer_gives_its_place_too():
    """34 an address: a connection that cannot be sent anything goes as any other one."""
    with long_answers(1) as (server, ask):
        for _ in range(34):
            ask()
        channels = server._server.active_channels
        wait_until(lambda: len(channels) == 34 and not any(
            channel.requests for channel in list(channels.values())))
        for _ in range(10):
            ask()
        wait_until(lambda: len(channels) <= 34)


def test_an_answer_that_nobody_takes_is_given_up_whoever_gave_the_connection_up_before():
    """waitress marks a connection without activity as one to close, and waits for room."""
    with long_answers(1) as (server, ask):
        ask()
        channels = server._server.active_channels
        wait_until(lambda: [channel for channel in list(channels.values())
                            if channel.total_outbufs_len and not channel.requests])
        channel, = channels.values()
        channel.will_close, channel._stuck = True, time.monotonic() - 2 * server_module._IDLE_S
        wait_until(lambda: not channels)


def test_a_request_that_does_not_arrive_is_given_up(server, monkeypatch):
    monkeypatch.setattr("flq.master.http.server._GRACE_S", 0.2)
    with socket.create_connection((server.host, server.port), PATIENCE_S) as peer:
        peer.sendall(b"POST /bid HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert peer.recv(1) == b"", "the server ends it"
    with socket.create_connection((server.host, server.port), PATIENCE_S) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.recv(12) == b"HTTP/1.1 200"


def test_an_answer_that_nobody_takes_is_given_up(monkeypatch):
    """A thread waits while an answer is ahead of its reader by more than the server buffers."""
    monkeypatch.setattr(server_module, "_IDLE_S", 0.3)
    ended = threading.Event()

    class Long:
        """Forty pieces of a megabyte."""

        def __iter__(self):
            return iter([bytes(2**20)] * 40)

        def close(self):
            ended.set()

    def long_answer(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Long()

    server = Server("127.0.0.1", 0, 4)
    server.start(long_answer, LONGEST_BODY)
    peer = Peer(server).send(request("GET", "/"))
    try:
        assert ended.wait(PATIENCE_S)
        with pytest.raises(ConnectionResetError):
            while peer._some():
                pass
    except AssertionError as error:  # an end in place of a reset is as good
        assert "closed the connection" in str(error)
    finally:
        peer.close()
        server.close()


def test_a_strangers_bytes_are_not_counted():
    with serving(1, lambda authorization: authorization == "Bearer good") as server:
        for token, counted in (("bad", False), ("good", True)):
            before = server.wire.bits()
            with socket.create_connection((server.host, server.port), PATIENCE_S) as peer:
                peer.sendall(b"POST /bid HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
                             b"Connection: close\r\nAuthorization: Bearer " + token.encode()
                             + b"\r\n\r\nxyz")
                while peer.recv(1000):
                    pass
            assert (server.wire.bits() != before) == counted


def test_an_answer_that_is_taken_while_the_loop_looks_ends_no_loop():
    """A thread that sends sets to None what the loop of all connections has just seen."""
    class Taken(server_module._BoundedChannel):
        will_close, requests, total_outbufs_len = True, (), 1
        _stuck = property(lambda self: self.seen.pop(0), lambda self, value: None)

        def __init__(self):
            self._began, self.seen = None, [time.monotonic(), None]

    assert Taken().readable() is False
