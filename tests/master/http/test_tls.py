"""The server under TLS on a real socket: the same answers, the same count of bytes, and no other
way in.
"""

import contextlib
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from flq.errors import ConfigError
from flq.master.http.certificates import make_certificates
from flq.master.http.server import Server
from flq.master.http.tls import server_context
from tests.master.http.test_server import (
    LONGEST_BODY,
    PATIENCE_S,
    Peer,
    application,
    check_count,
    request,
    wait_until,
)

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not on this machine")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    ca, _, server, key = make_certificates(str(tmp_path_factory.mktemp("certs")),
                                           ["localhost", "127.0.0.1"])
    return str(ca), str(server), str(key)


@pytest.fixture
def server(pair):
    server = Server("127.0.0.1", 0, 4, server_context(pair[1], pair[2]))
    server.start(application, LONGEST_BODY)
    yield server
    server.close()


class TlsPeer(Peer):
    """Counts what was said, which is what the master counts."""

    def __init__(self, server, cafile, highest=None):
        super().__init__(server)
        context = ssl.create_default_context(cafile=cafile)
        if highest is not None:
            context.maximum_version = highest
        self._socket = context.wrap_socket(self._socket, server_hostname="localhost")

    def version(self):
        return self._socket.version()


@pytest.fixture
def peer(server, pair):
    peer = TlsPeer(server, pair[0])
    yield peer
    peer.close()


def test_what_was_said_counts_and_not_how_it_was_encrypted(server, peer):
    assert peer.version() == "TLSv1.3"
    for size in (0, 10, 16384, 16385, 90000):
        peer.send(request("POST", "/bid", bytes(size)))
        assert peer.read_answer()[2] == str(size).encode("ascii")
    check_count(server, peer.sent, peer.received)


def test_tls_1_2_is_the_oldest_that_is_spoken(server, pair):
    peer = TlsPeer(server, pair[0], ssl.TLSVersion.TLSv1_2)
    assert peer.version() == "TLSv1.2"
    peer.send(request("POST", "/bid", b"abc"))
    assert peer.read_answer()[2] == b"3"
    peer.close()


def test_long_answers_pass_a_peer_that_reads_slowly(pair):
    body = bytes(range(256)) * 40000  # ten megabytes: far more than the socket's buffers hold

    def long_answers(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = Server("127.0.0.1", 0, 4, server_context(pair[1], pair[2]))
    server.start(long_answers, LONGEST_BODY)
    try:
        peer = TlsPeer(server, pair[0])
        peer.send(request("GET", "/get_global_model"))
        time.sleep(0.2)  # the server has filled what it can fill
        assert peer.read_answer()[2] == body
        check_count(server, peer.sent, peer.received)
        peer.close()
    finally:
        server.close()


def test_many_at_once_while_some_do_nothing(server, pair):
    # never begin a handshake
    silent = [socket.create_connection((server.host, server.port)) for _ in range(8)]
    silent[0].sendall(b"\x16\x03\x01")  # or begin one and stop
    failures = []

    def talk(number):
        try:
            peer = TlsPeer(server, pair[0])
            for turn in range(10):
                size = 1000 * number + turn
                peer.send(request("POST", "/bid", bytes(size)))
                assert peer.read_answer()[2] == str(size).encode("ascii")
            peer.close()
        except Exception as error:  # a thread's failure must reach the test
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert failures == []
    for one in silent:
        one.close()


def test_who_speaks_http_is_told_once_in_the_clear(server):
    peer = Peer(server)
    peer.send(request("GET", "/status"))
    status, headers, body = peer.read_answer()
    assert status == 400 and "https://" in json.loads(
        body.decode("ascii"))["hint"] and headers["connection"] == "close"
    assert peer._socket.recv(10) == b""
    peer.close()


@pytest.mark.parametrize(
    "noise",
    [b"\x00", b"\x16\x03\x01\xff\xff" + bytes(100), b"SSH-2.0-x\r\n",
     bytes(range(256)) * 300])
def test_noise_ends_its_connection_and_no_other(server, peer, noise):
    with socket.create_connection((server.host, server.port), PATIENCE_S) as other:
        try:
            other.sendall(noise)
            other.shutdown(socket.SHUT_WR)
            while other.recv(65536):
                pass
        except OSError:  # a reset is an end too
            pass
    peer.send(request("POST", "/bid", b"abc"))
    assert peer.read_answer()[2] == b"3"


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"])
def test_who_leaves_before_it_showed_a_certificate_leaves_no_trace(pair, caplog, said):
    """A scan of ports must not fill the log of a master that asks for certificates."""
    server = Server("127.0.0.1", 0, 4, server_context(pair[1], pair[2], pair[0]))
    server.start(application, LONGEST_BODY)
    try:
        with socket.create_connection((server.host, server.port), PATIENCE_S) as other:
            other.sendall(said)
            other.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while other.recv(65536):
                    pass
    finally:
        server.close()
    assert [one.getMessage() for one in caplog.records] == []


def test_who_leaves_during_its_answer_leaves_no_trace(pair, caplog):
    """It says nothing of the end; the thread that answers finds out first, or the loop."""
    asked, left, ended = threading.Event(), threading.Event(), threading.Event()

    class Pieces:
        """Forty of a megabyte, once nobody is there to take them."""

        def __iter__(self):
            asked.set()
            assert left.wait(PATIENCE_S)
            return iter([bytes(2**20)] * 40)

        def close(self):
            ended.set()

    def long_answer(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Pieces()

    server = Server("127.0.0.1", 0, 4, server_context(pair[1], pair[2]))
    server.start(long_answer, LONGEST_BODY)
    try:
        peer = TlsPeer(server, pair[0]).send(request("GET", "/"))
        assert asked.wait(PATIENCE_S)
        peer.close()
        left.set()
        assert ended.wait(PATIENCE_S)
        wait_until(lambda: not server._server.active_channels)
    finally:
        server.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_end_is_told(server, peer):
    """Without the goodbye of TLS nobody could tell the end of an answer from a cut."""
    peer.send(request("GET", "/bid", b"", "Connection: close"))
    peer.read_answer()
    peer._socket.suppress_ragged_eofs = False
    assert peer._socket.recv(1) == b""


def test_a_pair_that_cannot_be_used_is_one_line(pair, tmp_path):
    noise = tmp_path / "noise.pem"
    noise.write_text("no certificate")
    locked = tmp_path / "locked.key"
    subprocess.run([
        "openssl", "pkey", "-in", pair[2], "-aes256", "-passout", "pass:secret", "-out",
        str(locked)
    ], check=True, capture_output=True)
    for certfile, keyfile in ((str(noise), None), ("/nowhere.pem", None), (pair[1], pair[0]),
                              (pair[1], None), (pair[1], str(locked))):
        with pytest.raises(ConfigError, match="cannot serve TLS with") as error:
            server_context(certfile, keyfile)
        assert "\n" not in str(error.value)
