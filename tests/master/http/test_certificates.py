"""Certificates as openssl makes them: who they are for, who may read the keys, and an authority
that is kept.
"""

import contextlib
import os
import shutil
import ssl
import stat
import subprocess

import pytest

from flq.errors import ConfigError
from flq.master.http.certificates import make_certificates

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not on this machine")


def names_of(certificate, tmp_path):
    shown = subprocess.run(
        ["openssl", "x509", "-in",
         str(certificate), "-noout", "-ext", "subjectAltName"], check=True, capture_output=True,
        text=True).stdout
    return {name.strip() for name in shown.splitlines()[-1].split(",")}


def test_four_files_whose_keys_only_their_owner_may_read(tmp_path):
    files = make_certificates(str(tmp_path / "new" / "certs"),
                              ["master.local", "192.168.1.10", "::1"])
    assert [path.name for path in files] == ["ca.pem", "ca.key", "server.pem", "server.key"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o644, 0o600, 0o644, 0o600]
    assert sorted(os.listdir(str(files[0].parent))) == sorted(
        path.name for path in files), "nothing else is left"
    assert names_of(files[2], tmp_path) == {
        "DNS:master.local", "IP Address:192.168.1.10", "IP Address:0:0:0:0:0:0:0:1"
    }


def test_an_authority_that_is_there_signs_again(tmp_path):
    ca, ca_key, server, _ = make_certificates(str(tmp_path), ["one"])
    kept, before = (ca.read_bytes(), ca_key.read_bytes()), server.read_bytes()
    make_certificates(str(tmp_path), ["two"])
    assert (ca.read_bytes(), ca_key.read_bytes()) == kept and server.read_bytes() != before
    assert names_of(server, tmp_path) == {"DNS:two"}
    subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile",
                    str(ca), str(server)], check=True, capture_output=True)


def test_half_an_authority_is_not_replaced(tmp_path):
    (tmp_path / "ca.pem").write_text("somebody's")
    with pytest.raises(ConfigError, match="ca.key is not"):
        make_certificates(str(tmp_path), ["one"])
    assert os.listdir(str(tmp_path)) == ["ca.pem"]


@pytest.mark.parametrize("name",
                         ["", "a,DNS:evil", "a\nb", "[x]", "-a", "a b", "a;b", "x" * 300 + "!"])
def test_what_is_no_name_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(ConfigError, match="no name of a machine"):
        make_certificates(str(tmp_path / "certs"), ["fine", name])
    assert not (tmp_path / "certs").exists()


def test_what_openssl_says_is_one_line(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    (tmp_path / "ca.key").write_text("no key")
    (tmp_path / "ca.key").chmod(0o600)
    with pytest.raises(ConfigError, match="openssl x509 failed") as error:
        make_certificates(str(tmp_path), ["one"])
    assert "\n" not in str(error.value)


def test_a_machine_without_openssl_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="openssl is not on this machine"):
        make_certificates(str(tmp_path), ["one"])


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write into"):
        make_certificates(str(tmp_path / "file" / "certs"), ["one"])


def test_the_strictest_client_of_python_trusts_them(tmp_path):
    ca, _, server, key = make_certificates(str(tmp_path), ["localhost"])
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= getattr(ssl, "VERIFY_X509_STRICT", 0)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(str(server), str(key))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        serving.wrap_bio(to_server, to_client, server_side=True)
    ]
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].getpeercert()["subjectAltName"] == (("DNS", "localhost"),)
