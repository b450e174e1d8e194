"""CAs and certificates, made by openssl."""

import shutil
import subprocess

import pytest

NEED_OPENSSL = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed (apt install openssl)")


def make_ca(folder, name):
    """NAME.pem and NAME.key of a new CA."""
    _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             "/CN=" + name, "-keyout", name + ".key", "-out", name + ".pem")


def make_certificate(folder, name, alternative):
    """NAME.pem and NAME.key for an alternative name such as IP:127.0.0.1, signed by ca.pem."""
    (folder / (name + ".ext")).write_text("subjectAltName=" + alternative + "\n")
    _openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=master", "-keyout",
             name + ".key", "-out", name + ".csr")
    _openssl(folder, "x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", "2", "-extfile", name + ".ext", "-out", name + ".pem")


def _openssl(folder, *arguments):
    subprocess.run(("openssl",) + arguments, cwd=str(folder), check=True, stdout=subprocess.PIPE,
                   stderr=subprocess.STDOUT)
