"""A worker's HTTPS: a real TLS server with a certificate that openssl made, and what is trusted."""

import socket
import ssl
import threading

import pytest

from flq.errors import ConfigError, UnreachableError
from flq.worker.master_client import HttpClient
from tests.worker import certificates
from tests.worker.misbehaving import answer

pytestmark = certificates.NEED_OPENSSL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ca.pem, other.pem (another CA), and certificates with keys: right.pem for 127.0.0.1, wrong.pem for another name."""
    folder = tmp_path_factory.mktemp("certificates")
    certificates.make_ca(folder, "ca")
    certificates.make_ca(folder, "other")
    certificates.make_certificate(folder, "right", "IP:127.0.0.1")
    certificates.make_certificate(folder, "wrong", "DNS:somewhere.else")
    return folder


class Server(object):
    """Answers one JSON object to whatever comes on one connection after the other; without a certificate it speaks no TLS."""

    def __init__(self, certificate=None):
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(str(certificate), str(certificate.with_suffix(".key")))
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(4)
        self.url = "https://127.0.0.1:{}".format(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) if self._context else connection as talk:
                    if talk.recv(65536):
                        talk.sendall(answer(200, b'{"phase": "WAITING"}'))
            except OSError:
                continue  # the worker did not trust the certificate and hung up


def status_of(server, cafile):
    client = HttpClient(server.url, cafile and str(cafile))
    try:
        return client.status()
    finally:
        client.close()


def test_a_master_with_a_certificate_of_the_ca_is_trusted(folder):
    with Server(folder / "right.pem") as server:
        assert status_of(server, folder / "ca.pem") == {"phase": "WAITING"}


@pytest.mark.parametrize("certificate, cafile", [("right", "other.pem"), ("right", None), ("wrong", "ca.pem")],
                         ids=["another CA", "no CA given", "another name"])
def test_a_master_that_cannot_prove_itself_ends_the_worker_with_one_line(folder, certificate, cafile):
    with Server(folder / (certificate + ".pem")) as server, pytest.raises(ConfigError) as caught:
        status_of(server, cafile and folder / cafile)
    assert "the certificate of {} is not trusted".format(server.url) in str(caught.value) and "\n" not in str(caught.value)


def test_https_to_a_master_that_speaks_http_is_tried_again(folder):
    with Server() as server, pytest.raises(UnreachableError, match="no TLS with https"):
        status_of(server, folder / "ca.pem")


@pytest.mark.parametrize("content, words", [(None, "No such file"), ("no certificate", "no certificate")])
def test_a_cafile_that_is_none_is_named_before_anything_is_sent(tmp_path, content, words):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="cannot use the CA file {}.*{}".format(path, words)):
        HttpClient("https://127.0.0.1:1", str(path))
