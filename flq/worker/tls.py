"""What a worker trusts and shows under TLS: its files, looked at before anything is sent, and what
a failed handshake was about.
"""

import ssl
from typing import Optional

from flq.errors import ConfigError
from flq.host import private_files


def check_cafile(cafile: str) -> None:
    """requests would say so with the first request, and in other words in each of its versions."""
    try:
        ssl.create_default_context().load_verify_locations(cafile)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        got = error.strerror if isinstance(
            error, OSError) and not isinstance(error, ssl.SSLError) else "no certificate"
        raise ConfigError(f"cannot use the CA file {cafile}", "a PEM file with certificates", got,
                          "name another one with --cafile")


def check_certificate(master_url: str, cert: str, key: Optional[str]) -> None:
    """As for the CA file. A key with a password would make each connection ask for it."""
    if not master_url.startswith("https://"):
        raise ConfigError("a certificate is shown under TLS only", "https://HOST:PORT", master_url,
                          "write https:// in the master's address, or leave --cert out")
    try:
        ssl.create_default_context().load_cert_chain(cert, key, password="")
    except OSError as error:  # ssl.SSLError is one
        got = "no such pair" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"cannot use the certificate {cert}" + (f" with {key}" if key else ""),
                          "a PEM certificate and its key without a password", got,
                          "name others with --cert and --key")
    private_files.check(key or cert, "the key of this client's certificate")


def is_alert(error: Exception) -> bool:
    """Whether the other end spoke of this client's certificate; the words are OpenSSL's."""
    words = str(error).lower().replace("_", " ")
    return "alert" in words and any(
        about in words for about in ("certificate", "unknown ca", "handshake failure"))


def is_distrust(error: Exception) -> bool:
    """Whether a certificate was refused, and not the connection cut: the exceptions differ from
    Python to Python, the words do not.
    """
    return any(words in str(error)
               for words in ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed",
                             "doesn't match", "mismatch"))
