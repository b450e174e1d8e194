"""`python -m flq certs`: a certificate authority of one's own and a server certificate from it,
made by openssl.
"""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
import tempfile
from pathlib import Path

from flq.errors import ConfigError

AUTHORITY_DAYS, SERVER_DAYS = 3650, 825
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
_SERVER = """[req]
distinguished_name = subject
prompt = no
[subject]
CN = FLQ master
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
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
    ca, ca_key, server, server_key = (folder / name
                                      for name in ("ca.pem", "ca.key", "server.pem", "server.key"))
    if ca.exists() != ca_key.exists():
        there, missing = (ca, ca_key) if ca.exists() else (ca_key, ca)
        raise ConfigError(f"{there} is there and {missing} is not", "both, or neither",
                          hint="bring it back, or name another --out")
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # beside them: a rename replaces them whole
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
            work = Path(scratch)
            (work / "ca.cnf").write_text(_AUTHORITY, encoding="ascii")
            (work / "server.cnf").write_text(_SERVER.format(names=alternatives), encoding="ascii")
            if not ca.exists():
                _openssl(work, "req", "-x509", *_CURVE, "-keyout", "ca.key", "-out", "ca.pem",
                         "-days", str(AUTHORITY_DAYS), "-config", "ca.cnf", "-sha256")
                os.replace(work / "ca.key", ca_key)
                os.replace(work / "ca.pem", ca)
            _openssl(work, "req", "-new", *_CURVE, "-keyout", "server.key", "-out", "server.csr",
                     "-config", "server.cnf", "-sha256")
            serial = str(int.from_bytes(os.urandom(16), "big"))
            _openssl(work, "x509", "-req", "-in", "server.csr", "-CA", str(ca.resolve()), "-CAkey",
                     str(ca_key.resolve()), "-set_serial", serial, "-out", "server.pem", "-days",
                     str(SERVER_DAYS), "-sha256", "-extfile", "server.cnf", "-extensions", "server")
            os.replace(work / "server.key", server_key)
            os.replace(work / "server.pem", server)
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}", got=error.strerror,
                          hint="name another folder with --out")
    finally:
        os.umask(before)
    for public in (ca, server):
        public.chmod(0o644)
    return [ca, ca_key, server, server_key]


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
