"""`python -m flq certs`: a certificate authority of one's own, and certificates from it for a
master and its clients, made by openssl.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

from flq.errors import ConfigError
from flq.host import private_files
from flq.master.http.tls import URN

AUTHORITY_DAYS, DAYS = 3650, 825
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_NAME = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

_AUTHORITY = """[req]
distinguished_name = subject
prompt = no
x509_extensions = authority
[subject]
CN = FLQ authority
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
_SIGNED = """[req]
distinguished_name = subject
prompt = no
[subject]
CN = FLQ {who}
[signed]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = {usage}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def make_certificates(directory: str, names: list[str]) -> list[Path]:
    """ca.pem (for workers' --cafile), ca.key, server.pem and server.key (for the master) in that
    directory.

    names: every name and IP address by which workers reach the master. An authority that is there
    already signs again, so that the workers' ca.pem stays valid; the server's pair is made anew.
    Keys have mode 0600.
    """
    alternatives = ",".join(_alternative(name) for name in names)
    folder = Path(directory)
    with _authority(folder) as work:
        server = _sign(folder, work, "server", "master", "serverAuth", alternatives)
    return [folder / "ca.pem", folder / "ca.key", *server]


def make_client(directory: str, name: str, holders: list[str]) -> tuple[Path, Path]:
    """NAME.pem and NAME.key in that directory, signed by its authority, which is made where there
    is none: for clients alone, so that no worker can pose as the master.

    holders: the keys (tokens.Holder) of all that it is for. It says nothing of anybody else.
    """
    folder = Path(directory)
    with _authority(folder) as work:
        return _sign(folder, work, name, name.replace("-", " ", 1), "clientAuth",
                     ",".join(f"URI:{URN}{holder}" for holder in holders))


def fingerprint_of(given: str) -> str:
    """The SHA-256 of a certificate in a PEM file, in hex; given as it is where it is one already.
    Raises ConfigError.
    """
    plain = given.replace(":", "").lower()  # as openssl prints it
    if re.fullmatch("[0-9a-f]{64}", plain):
        return plain
    try:
        text = Path(given).read_text(encoding="ascii")
        begin = text.index(ssl.PEM_HEADER)  # a key may stand before it
        end = text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[begin:end])).hexdigest()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the certificate {given}", "a PEM file, or the 64 hex "
                          "digits of its SHA-256", getattr(error, "strerror", None)
                          or "no certificate")


@contextlib.contextmanager
def _authority(folder: Path) -> Iterator[Path]:
    """A folder to work in, beside ca.pem and ca.key, which are there then. What is made in it is
    for its owner alone.
    """
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    if ca.exists() != ca_key.exists():
        there, missing = (ca, ca_key) if ca.exists() else (ca_key, ca)
        raise ConfigError(f"{there} is there and {missing} is not", "both, or neither",
                          hint="bring it back, or name another --out")
    private_files.check(str(ca_key), "the authority's key")
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # beside them: a rename replaces them whole
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
            work = Path(scratch)
            if not ca.exists():
                (work / "ca.cnf").write_text(_AUTHORITY, encoding="ascii")
                _openssl(work, "req", "-x509", *_CURVE, "-keyout", "ca.key", "-out", "ca.pem",
                         "-days", str(AUTHORITY_DAYS), "-config", "ca.cnf", "-sha256")
                os.replace(work / "ca.key", ca_key)
                os.replace(work / "ca.pem", ca)
                ca.chmod(0o644)
            yield work
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}", got=error.strerror,
                          hint="name another folder with --out")
    finally:
        os.umask(before)


def _sign(folder: Path, work: Path, name: str, who: str, usage: str,
          alternatives: str) -> tuple[Path, Path]:
    """NAME.pem and NAME.key."""
    (work / "signed.cnf").write_text(
        _SIGNED.format(who=who, usage=usage, names=alternatives), encoding="ascii")
    _openssl(work, "req", "-new", *_CURVE, "-keyout", "signed.key", "-out", "signed.csr", "-config",
             "signed.cnf", "-sha256")
    serial = str(int.from_bytes(os.urandom(16), "big"))
    _openssl(work, "x509", "-req", "-in", "signed.csr", "-CA", str((folder / "ca.pem").resolve()),
             "-CAkey", str((folder / "ca.key").resolve()), "-set_serial", serial, "-out",
             "signed.pem", "-days", str(DAYS), "-sha256", "-extfile", "signed.cnf", "-extensions",
             "signed")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    os.replace(work / "signed.key", key)
    os.replace(work / "signed.pem", certificate)
    certificate.chmod(0o644)
    return certificate, key


def _alternative(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        if not _NAME.fullmatch(name):
            raise ConfigError("that is no name of a machine", "a host name or an IP address",
                              name[:60])
        return f"DNS:{name}"


def _openssl(directory: Path, *arguments: str) -> None:
    try:
        done = subprocess.run(("openssl",) + arguments, cwd=directory, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError("openssl is not on this machine", "version 1.1.1 or newer",
                          hint="apt install openssl")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"openssl {arguments[0]} failed", got=last, hint="is it 1.1.1 or newer?")
