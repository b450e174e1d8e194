"""A worker's HTTPS: a real TLS server with a certificate that openssl made, and what is trusted."""

import pytest

from flq.errors import ConfigError, UnreachableError
from flq.worker.master_client import HttpClient
from tests.worker import certificates
from tests.worker.misbehaving import Misbehaving, answer

pytestmark = certificates.NEED_OPENSSL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ca.pem, other.pem (another CA), and certificates with keys: right.pem for 127.0.0.1,
    wrong.pem for another name.
    """
    folder = tmp_path_factory.mktemp("certificates")
    certificates.make_ca(folder, "ca")
    certificates.make_ca(folder, "other")
    certificates.make_certificate(folder, "right", "IP:127.0.0.1")
    certificates.make_certificate(folder, "wrong", "DNS:somewhere.else")
    return folder


STATUS = answer(200, b'{"phase": "WAITING"}')


def status_of(url, cafile):
    client = HttpClient(url, cafile and str(cafile))
    try:
        return client.status()
    finally:
        client.close()


def test_a_master_with_a_certificate_of_the_ca_is_trusted(folder):
    with Misbehaving(STATUS, certificate=folder / "right.pem") as server:
        assert status_of(server.url, folder / "ca.pem") == {"phase": "WAITING"}


@pytest.mark.parametrize("certificate, cafile", [("right", "other.pem"), ("right", None),
                                                 ("wrong", "ca.pem")],
                         ids=["another CA", "no CA given", "another name"])
def test_a_master_that_cannot_prove_itself_ends_the_worker_with_one_line(
        folder, certificate, cafile):
    with Misbehaving(STATUS, certificate=folder /
                     (certificate + ".pem")) as server, pytest.raises(ConfigError) as caught:
        status_of(server.url, cafile and folder / cafile)
    assert f"the certificate of {server.url} is not trusted" in str(
        caught.value) and "\n" not in str(caught.value)


def test_https_to_a_master_that_speaks_http_is_tried_again(folder):
    with Misbehaving(STATUS, blind=True) as server, pytest.raises(UnreachableError,
                                                                  match="no TLS with https"):
        status_of(server.url.replace("http", "https"), folder / "ca.pem")


def test_a_cafile_with_an_address_in_the_clear_is_refused_before_anything_is_sent(folder):
    with Misbehaving(STATUS) as server, pytest.raises(ConfigError) as caught:
        status_of(server.url, folder / "ca.pem")
    assert str(caught.value).startswith(
        "a CA file cannot protect an address without TLS; expected https://HOST:PORT; got " +
        server.url)
    assert "\n" not in str(caught.value) and server.connections == 0


@pytest.mark.parametrize("content, words", [(None, "No such file"),
                                            ("no certificate", "no certificate")])
def test_a_cafile_that_is_none_is_named_before_anything_is_sent(tmp_path, content, words):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"cannot use the CA file {path}.*{words}"):
        HttpClient("https://127.0.0.1:1", str(path))
