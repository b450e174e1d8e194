"""A worker's HTTPS: a real TLS server with a certificate that openssl made, and what is trusted."""

import subprocess

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
    certificates.make_certificate(folder, "client", "URI:urn:flq:0")
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    (folder / "both.pem").write_text((folder / "client.pem").read_text() +
                                     (folder / "client.key").read_text())
    (folder / "both.pem").chmod(0o600)
    return folder


STATUS = answer(200, b'{"phase": "WAITING"}')


def status_of(url, cafile, cert=None, key=None):
    client = HttpClient(url, cafile and str(cafile), cert and str(cert), key and str(key))
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


# --- this client's own certificate


def asking(folder):
    return Misbehaving(STATUS, certificate=folder / "right.pem", client_ca=folder / "ca.pem")


@pytest.mark.parametrize("names", [("client.pem", "client.key"), ("both.pem", None)])
def test_a_certificate_is_shown_to_who_asks_for_it(folder, names):
    cert, key = (name and folder / name for name in names)
    with asking(folder) as server:
        assert status_of(server.url, folder / "ca.pem", cert, key) == {"phase": "WAITING"}
    with Misbehaving(STATUS, certificate=folder / "right.pem") as server:
        assert status_of(server.url, folder / "ca.pem", cert, key) == {"phase": "WAITING"}


@pytest.mark.parametrize("name, got", [(None, "got none"),
                                       ("other", "got one that it does not accept")])
def test_who_shows_none_or_a_foreign_one_ends_with_one_line(folder, name, got):
    shown = (folder / (name + ".pem"), folder / (name + ".key")) if name else ()
    with asking(folder) as server, pytest.raises(ConfigError) as caught:
        status_of(server.url, folder / "ca.pem", *shown)
    line = str(caught.value)
    assert line.startswith(f"{server.url} lets nobody in without a certificate of its authority")
    assert got in line and "\n" not in line and server.requests == []


def test_a_certificate_that_cannot_be_used_is_named_before_anything_is_sent(folder, tmp_path):
    locked, opened = tmp_path / "locked.key", tmp_path / "open.key"
    subprocess.run(["openssl", "pkey", "-in", str(folder / "client.key"), "-aes256", "-passout",
                    "pass:secret", "-out", str(locked)], check=True, stderr=subprocess.PIPE)
    opened.write_text((folder / "client.key").read_text())
    locked.chmod(0o600)
    opened.chmod(0o644)
    client = folder / "client.pem"
    for cert, key, words in (
            (client, folder / "right.key", "cannot use the certificate"),
            (client, None, "cannot use the certificate"),
            (client, locked, "key without a password; got no such pair"),
            (tmp_path / "none.pem", None, "No such file"),
            (client, opened, "chmod 600"), (None, folder / "client.key", "--key is the key of")):
        with pytest.raises(ConfigError, match=words) as caught:
            status_of("https://127.0.0.1:1", folder / "ca.pem", cert, key)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="a certificate is shown under TLS only"):
        status_of("http://127.0.0.1:1", None, client, folder / "client.key")
