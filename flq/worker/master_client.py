"""The one file that knows the transport: HTTP with requests. Its errors are translated here, once."""

import json
import os
import re
import ssl
from typing import Any, Dict, Optional
from urllib.parse import urlsplit

import requests

from flq.errors import ERROR_KINDS, ConfigError, ProtocolError, UnreachableError
from flq.protocol.messages import MAX_DEPTH, to_json

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
"""Longest silence beyond what a long poll was asked to wait."""
FRAME_TYPE = "application/x-flq"
CONSTANTS_TYPE = "application/octet-stream"


class HttpClient(object):
    """One worker's connection to the master. Not shared between threads: each worker has its own.

    Methods return the parsed answer. They raise ProtocolError for a refusal (with the worker's action in
    its kind) and UnreachableError when no usable answer came; both leave it to the caller to try again.
    cafile: a PEM file with the only CAs that may have signed an https:// master's certificate; None for those
    that requests brings. ConfigError: it cannot be read, the address is http://, or the master's certificate is not
    signed by them.
    """

    def __init__(self, master_url: str, cafile: Optional[str] = None) -> None:
        if not _is_address(master_url):
            raise ConfigError("system.master_url is not a URL", "http://HOST:PORT", master_url)
        if cafile and not master_url.startswith("https://"):  # whoever names an authority does not expect to talk in the clear
            raise ConfigError("a CA file cannot protect an address without TLS", "https://HOST:PORT", master_url,
                              "write https:// in the master's address, or leave --cafile and security.cafile out")
        if cafile:
            _check_cafile(cafile)
        self._url = master_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment must not see or stop local traffic
        self._session.verify = cafile or True
        # What requests would add costs bytes in every message and says nothing to the master.
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": "flq", "Accept-Encoding": "identity"})

    def authorize(self, credential: str) -> None:
        """The worker's token before registration, its session afterwards."""
        self._session.headers["Authorization"] = "Bearer " + credential

    def register(self, document: Dict[str, Any]) -> Dict[str, Any]:
        response = self._send("POST", "/register", to_json(document), {"Content-Type": "application/json"}, 0.0)
        answer = self._parse(response)
        if "run_id" not in answer:
            raise self._foreign(response)
        return answer

    def fetch_model(self, have: int, params_hash: str, wait_s: float) -> Optional[bytes]:
        """Frames from version `have` to now, None when nothing is new."""
        path = "/get_global_model?have={}&hash={}&wait={:g}".format(have, params_hash, wait_s)
        response = self._send("GET", path, None, {"Accept": FRAME_TYPE}, wait_s)
        if response.status_code == 204:
            return None
        if response.headers.get("Content-Type") != FRAME_TYPE:
            raise self._foreign(response)
        return response.content

    def fetch_constants(self) -> bytes:
        """The values of the model's frozen layers, little-endian float32."""
        response = self._send("GET", "/get_constants", None, {}, 0.0)
        if response.headers.get("Content-Type") != CONSTANTS_TYPE:
            raise self._foreign(response)
        return response.content

    def bid(self, document: Dict[str, Any], wait_s: float) -> Dict[str, Any]:
        return self._json("POST", "/bid?wait={:g}".format(wait_s), to_json(document), wait_s)

    def upload(self, frame: bytes, wait_s: float) -> Dict[str, Any]:
        response = self._send("POST", "/upload_update?wait={:g}".format(wait_s), frame, {"Content-Type": FRAME_TYPE}, wait_s)
        return self._parse(response)

    def outcome(self, round_: int, wait_s: float) -> Dict[str, Any]:
        return self._json("GET", "/outcome?round={}&wait={:g}".format(round_, wait_s), None, wait_s)

    def heartbeat(self, document: Dict[str, Any]) -> Dict[str, Any]:
        return self._json("POST", "/heartbeat", to_json(document))

    def status(self) -> Dict[str, Any]:
        """What anybody may read of the run."""
        return self._json("GET", "/status", None)

    def leave(self) -> None:
        self._json("POST", "/leave", b"{}")

    def close(self) -> None:
        self._session.close()

    def _json(self, method: str, path: str, body: Optional[bytes], wait_s: float = 0.0) -> Dict[str, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        return self._parse(self._send(method, path, body, headers, wait_s))

    def _send(self, method: str, path: str, body: Optional[bytes], headers: Dict[str, str], wait_s: float) -> requests.Response:
        try:
            response = self._session.request(method, self._url + path, data=body, headers=headers, allow_redirects=False,
                                             timeout=(CONNECT_TIMEOUT_S, wait_s + ANSWER_TIMEOUT_S))
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
            raise ConfigError("system.master_url is not a URL", "http://HOST:PORT", self._url, str(error))
        except requests.exceptions.SSLError as error:
            if _is_distrust(error):
                raise ConfigError("the certificate of {} is not trusted".format(self._url),
                                  "one for this name or address, signed by the CA of --cafile", _reason(error),
                                  "give the CA's file with --cafile, or the name that is in the certificate with --master_url")
            raise UnreachableError("no TLS with {}".format(self._url), got=_reason(error), hint="does the master speak http:// there?")
        except requests.exceptions.RequestException as error:
            hint = "is the master running{} and the address right?".format(" with --certfile" if self._url.startswith("https") else "")
            raise UnreachableError("no answer from {}".format(self._url), got=_reason(error), hint=hint)
        announced = response.headers.get("Content-Length", "")
        # A head that was cut has no headers at all; without a length the end of the connection is the end of the answer.
        whole = len(response.content) >= int(announced) if announced.isdecimal() else bool(response.headers)
        if not whole:  # older requests do not say so
            expected = "{} bytes".format(announced) if announced else "headers"
            raise UnreachableError("the answer of {} was cut short".format(self._url), expected, "{} bytes".format(len(response.content)))
        if response.status_code >= 300:
            raise self._refusal(response)
        return response

    def _parse(self, response: requests.Response) -> Dict[str, Any]:
        document = _json_of(response)
        if document is None:
            raise self._foreign(response)
        return document

    def _refusal(self, response: requests.Response) -> Exception:
        document = _json_of(response) or {}
        name = document.get("error")
        if not isinstance(name, str) or name not in ERROR_KINDS:
            return self._foreign(response)
        retry_after = response.headers.get("Retry-After", "")
        expected, got, hint = [_in_one_line(document.get(field)) for field in ("expected", "got", "hint")]
        return ProtocolError(name, _in_one_line(document.get("message", "")), expected, got, hint,
                             float(retry_after) if retry_after.isdecimal() else None)

    def _foreign(self, response: requests.Response) -> Exception:
        """An answer that no FLQ master gives: a proxy in between, or another service on that port."""
        if response.status_code in (502, 503, 504):
            return UnreachableError("{} is not ready".format(self._url), got="HTTP {}".format(response.status_code))
        return ProtocolError("not_found", "{} does not answer like an FLQ master".format(self._url), "FLQ's protocol",
                             "HTTP {} {}".format(response.status_code, _in_one_line(response.headers.get("Content-Type", ""))),
                             "check system.master_url")


def _is_address(url: str) -> bool:
    """Whether a URL names a machine and, where it has a port, one that can be connected to."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:  # the port is no number or out of range, or a bracket is open
        return False


def _check_cafile(cafile: str) -> None:
    """requests would say so with the first request, and in other words in each of its versions."""
    try:
        ssl.create_default_context().load_verify_locations(cafile)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        got = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else "no certificate"
        raise ConfigError("cannot use the CA file {}".format(cafile), "a PEM file with certificates", got, "name another one with --cafile")


def _is_distrust(error: Exception) -> bool:
    """Whether a certificate was refused, and not the connection cut: the exceptions differ from Python to Python, the words do not."""
    return any(words in str(error) for words in ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "doesn't match", "mismatch"))


def _json_of(response: requests.Response) -> Optional[Dict[str, Any]]:
    """The JSON object that came, None when it is none."""
    if _is_deep(response.content):  # too deep for any answer, and Python 3.6 can die of it
        return None
    try:
        document = json.loads(response.content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _is_deep(data: bytes) -> bool:
    """Whether brackets and braces are nested beyond MAX_DEPTH, those in texts left out."""
    depth = 0
    for mark in re.finditer(br'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark.group(), 0)
        if depth > MAX_DEPTH:
            return True
    return False


def _reason(error: Exception) -> str:
    """The innermost cause in a few words: requests wraps it several times."""
    seen = error  # type: Any
    while True:
        inner = getattr(seen, "reason", None) or next((arg for arg in getattr(seen, "args", ()) if isinstance(arg, Exception)), None)
        if not isinstance(inner, Exception):
            break
        seen = inner
    if isinstance(seen, OSError) and seen.errno:
        return os.strerror(seen.errno)
    reason: str = _in_one_line(re.sub(r"\[Errno -?\d+\] ", "", str(seen).rsplit(": ", 1)[-1]))
    return reason


def _in_one_line(value: Any) -> Any:
    """What came over the network, fit for a log: text without line breaks and control characters; None stays None."""
    if value is None:
        return None
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
