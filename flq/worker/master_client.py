"""The one file that knows the transport: HTTP with requests.

Its errors are translated here, once.
"""

import os
import re
from typing import Any, Dict, Optional
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from flq.errors import ConfigError, ProtocolError, UnreachableError, in_one_line
from flq.protocol import endpoints, messages
from flq.protocol.endpoints import Endpoint
from flq.protocol.fields import Document, Message, Record
from flq.protocol.messages import (
    Heartbeat,
    Hello,
    Question,
    Registered,
    Registration,
    to_json,
)
from flq.records import Bid, HeldModel, Outcome
from flq.worker import tls
from flq.worker.answers import Answer, json_of, natural
from flq.worker.client import MasterClient

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
"""Longest silence beyond what a long poll was asked to wait."""
LONGEST_RETRY_S = 60.0
"""Longest pause that a master may ask for."""
LONGEST_JSON = 2 ** 20
LONGEST_STATUS = 2 ** 26
"""Bytes of an answer: of a message, and of a status with 65,536 workers."""
_PIECE = 2 ** 16
_WHICH_MASTER = "check system.master_url"


class HttpClient(MasterClient):
    """One worker's connection to the master.

    cafile: a PEM file with the only CAs that may have signed an https:// master's certificate; None
    for those that requests brings. longest: bytes of a model or of constants at most; no answer is
    read beyond what it can be, and none that is compressed, which could be any size. cert, key: PEM
    files with this client's own certificate, for a master that asks for one; the key may stand in
    the same file.
    ConfigError: a file cannot be read, the address is http://, or the master's certificate is not
    signed by the CAs.
    """

    def __init__(self, master_url: str, cafile: Optional[str] = None, cert: Optional[str] = None,
                 key: Optional[str] = None, longest: int = LONGEST_JSON) -> None:
        if not _is_address(master_url):
            raise ConfigError("system.master_url is not a URL", "http://HOST:PORT", master_url)
        # whoever names an authority does not expect to talk in the clear
        if cafile and not master_url.startswith("https://"):
            raise ConfigError(
                "a CA file cannot protect an address without TLS", "https://HOST:PORT", master_url,
                "write https:// in the master's address, or leave --cafile and security.cafile out")
        if cafile:
            tls.check_cafile(cafile)
        if key and not cert:
            raise ConfigError("--key is the key of a certificate", "--cert", "none")
        if cert:
            tls.check_certificate(master_url, cert, key)
        self._url, self._longest = master_url.rstrip("/"), longest
        self._session = requests.Session()
        # a proxy of the environment must not see or stop local traffic
        self._session.trust_env = False
        self._session.verify = cafile or True
        self._session.cert = (cert, key or cert) if cert else None
        self._has_certificate = bool(cert)
        # What requests would add costs bytes in every message and says nothing to the master.
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": "flq", "Accept-Encoding": "identity"})

    def authorize(self, credential: str) -> None:
        self._session.headers["Authorization"] = "Bearer " + credential

    def hello(self, question: Question) -> Hello:
        """What a worker needs before it can build its model and find its samples.

        The credential is the worker's token.
        """
        return self._post(endpoints.REGISTER, messages.QUESTION.to_json(question), messages.HELLO)

    def register(self, registration: Registration) -> Registered:
        return self._post(endpoints.REGISTER, messages.REGISTRATION.to_json(registration),
                          messages.REGISTERED)

    def fetch_model(self, held: HeldModel, wait_s: float) -> Optional[bytes]:
        response = self._send(endpoints.GET_GLOBAL_MODEL, None, {"Accept": endpoints.FRAME}, wait_s,
                              self._longest, **_query_of(held))
        return None if response.status_code == 204 else self._bytes(response, endpoints.FRAME)

    def fetch_constants(self) -> bytes:
        return self._bytes(self._send(endpoints.GET_CONSTANTS, longest=self._longest),
                           endpoints.BYTES)

    def bid(self, bid: Bid, wait_s: float, held: Optional[HeldModel] = None) -> Outcome:
        return self._exchange(endpoints.BID, to_json(messages.BID.to_json(bid)), endpoints.JSON,
                              wait_s, held)

    def upload(self, frame: bytes, wait_s: float, held: Optional[HeldModel] = None) -> Outcome:
        return self._exchange(endpoints.UPLOAD_UPDATE, frame, endpoints.FRAME, wait_s, held)

    def outcome(self, round_: int, wait_s: float, held: Optional[HeldModel] = None) -> Outcome:
        return self._exchange(endpoints.OUTCOME, None, None, wait_s, held, round=round_)

    def heartbeat(self, temperature_c: Optional[float]) -> str:
        return self._post(endpoints.HEARTBEAT, messages.HEARTBEAT.to_json(Heartbeat(temperature_c)),
                          messages.ALIVE).run_state

    def status(self) -> Document:
        """What anybody may read of the run."""
        return self._document(self._send(endpoints.STATUS, longest=LONGEST_STATUS))

    def leave(self) -> None:
        self._post(endpoints.LEAVE, {}, messages.GONE)

    def close(self) -> None:
        self._session.close()

    def _post(self, endpoint: Endpoint, document: Document, answer: Message[Record]) -> Record:
        return self._parse(
            self._send(endpoint, to_json(document), {"Content-Type": endpoints.JSON}), answer)

    def _exchange(self, endpoint: Endpoint, body: Optional[bytes], kind: Optional[str],
                  wait_s: float, held: Optional[HeldModel], **query: object) -> Outcome:
        """An outcome, with the frames that came with it."""
        if held is not None:
            query.update(_query_of(held))
        response = self._send(endpoint, body, {} if kind is None else {"Content-Type": kind},
                              wait_s, LONGEST_JSON if held is None else self._longest, **query)
        told = response.headers.get(endpoints.OUTCOME_HEADER)
        if held is None or told is None:
            if len(response.content) > LONGEST_JSON:  # nothing so long is parsed
                raise self._unlike(f"a message of at most {LONGEST_JSON} bytes",
                                   f"{len(response.content)} bytes")
            return self._parse(response, messages.OUTCOME)
        frames = self._bytes(response, endpoints.FRAME)
        outcome = self._parse(response._replace(content=told.encode("latin-1")), messages.OUTCOME)
        return outcome._replace(frames=frames)

    def _send(self, endpoint: Endpoint, body: Optional[bytes] = None,
              headers: Optional[Dict[str, str]] = None, wait_s: Optional[float] = None,
              longest: int = LONGEST_JSON, **query: object) -> Answer:
        """The answer, when it came whole and is no refusal. wait_s: None where the request is no
        long poll. longest: bytes that it can have, of a refusal LONGEST_JSON.
        """
        if wait_s is not None:
            query["wait"] = f"{wait_s:g}"
        try:
            response = self._session.request(
                endpoint.method, self._url + endpoint.url(**query), data=body, headers=headers
                or {}, allow_redirects=False, stream=True,
                timeout=(CONNECT_TIMEOUT_S, (wait_s or 0.0) + ANSWER_TIMEOUT_S))
            with response:
                answer = self._read(response, longest if response.ok else LONGEST_JSON)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                UnicodeError) as error:
            raise ConfigError("system.master_url is not a URL", "http://HOST:PORT", self._url,
                              str(error))
        except requests.exceptions.SSLError as error:
            if tls.is_distrust(error):
                raise ConfigError(
                    f"the certificate of {self._url} is not trusted",
                    "one for this name or address, signed by the CA of --cafile", _reason(error),
                    "give the CA's file with --cafile, or the name that is in the certificate with "
                    "--master_url"
                )
            self._raise_if_unwanted(error)
            raise UnreachableError(f"no TLS with {self._url}", got=_reason(error),
                                   hint="does the master speak http:// there?")
        # the second while the answer is read
        except (requests.exceptions.RequestException, HTTPError) as error:
            self._raise_if_unwanted(error)
            served = " with --certfile" if self._url.startswith("https") else ""
            hint = f"is the master running{served} and the address right?"
            raise UnreachableError(f"no answer from {self._url}", got=_reason(error), hint=hint)
        if answer.status_code >= 300:
            raise self._refusal(answer)
        return answer

    def _read(self, response: requests.Response, longest: int) -> Answer:
        """The body as it travelled, which is never unpacked: a small one could stand for any size.
        """
        coding = response.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise self._unlike("an answer that is not compressed",
                               "Content-Encoding " + in_one_line(coding)[:40])
        announced = natural(response.headers.get("Content-Length", ""))
        data = bytearray()
        if announced is None or announced <= longest:
            # requests' own way reads lines of any length between the chunks of an answer
            while len(data) <= longest:
                piece = response.raw.read(min(_PIECE, longest + 1 - len(data)),
                                          decode_content=False)
                if not piece:
                    break
                data += piece
        if max(len(data), announced or 0) > longest:
            raise self._unlike(f"an answer of at most {longest} bytes",
                               f"{announced} bytes" if announced else "more")
        # A head that was cut has no headers at all; without a length the end of the connection is
        # the end of the answer.
        if len(data) < announced if announced is not None else not response.headers:
            expected = "headers" if announced is None else f"{announced} bytes"
            raise UnreachableError(f"the answer of {self._url} was cut short", expected,
                                   f"{len(data)} bytes")
        return Answer(response.status_code, response.headers, bytes(data))

    def _raise_if_unwanted(self, error: Exception) -> None:
        """Whether the master ended the connection because of this client's certificate: an alert of
        TLS, which comes with the handshake or with the first answer."""
        if not tls.is_alert(error):
            return
        raise ConfigError(
            f"{self._url} lets nobody in without a certificate of its authority",
            "one that `python -m flq certs --worker M` made, with --cert and --key",
            "one that it does not accept" if self._has_certificate else "none",
            "is it of the right authority, and not too old?" if self._has_certificate else None)

    def _bytes(self, response: Answer, kind: str) -> bytes:
        if response.headers.get("Content-Type") != kind:
            raise self._foreign(response)
        return response.content

    def _document(self, response: Answer) -> Document:
        document = json_of(response)
        if document is None:
            raise self._foreign(response)
        return document

    def _parse(self, response: Answer, message: Message[Record]) -> Record:
        document = self._document(response)
        try:
            return message.parse(document)
        except ProtocolError as error:
            what = f"{self._no_master()}: HTTP {response.status_code}, but {error.message}"
            raise ProtocolError("not_found", what, error.expected, error.got, _WHICH_MASTER)

    def _refusal(self, response: Answer) -> Exception:
        retry_after = natural(response.headers.get("Retry-After", ""))
        wait_s = None if retry_after is None else min(float(retry_after), LONGEST_RETRY_S)
        return ProtocolError.parse(json_of(response) or {}, wait_s) or self._foreign(response)

    def _foreign(self, response: Answer) -> Exception:
        """An answer that no FLQ master gives: a proxy in between, or another service on that port.
        """
        if response.status_code in (502, 503, 504):
            return UnreachableError(f"{self._url} is not ready", got=f"HTTP {response.status_code}")
        return self._unlike(
            "FLQ's protocol",
            f"HTTP {response.status_code} {in_one_line(response.headers.get('Content-Type', ''))}")

    def _unlike(self, expected: str, got: str) -> ProtocolError:
        return ProtocolError("not_found", self._no_master(), expected, got, _WHICH_MASTER)

    def _no_master(self) -> str:
        return f"{self._url} does not answer like an FLQ master"


def _query_of(held: HeldModel) -> Dict[str, object]:
    return {"have": held.version, "hash": held.params_hash.hex()}


def _is_address(url: str) -> bool:
    """Whether a URL names a machine and, where it has a port, one that can be connected to."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(
            parts.hostname) and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:  # the port is no number or out of range, or a bracket is open
        return False


def _reason(error: Exception) -> str:
    """The innermost cause in a few words: requests wraps it several times."""
    seen: Any = error
    while True:
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in getattr(seen, "args", ()) if isinstance(arg, Exception)), None)
        if not isinstance(inner, Exception):
            break
        seen = inner
    if isinstance(seen, OSError) and seen.errno:
        return os.strerror(seen.errno)
    return in_one_line(re.sub(r"\[Errno -?\d+\] ", "", str(seen).rsplit(": ", 1)[-1]))
