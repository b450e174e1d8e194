"""The endpoints of a master, the one list of them: the master serves what it says, and its workers
ask what it says (protocol.md 1).
"""

from typing import Any, NamedTuple, Tuple, Union

from flq.protocol import messages
from flq.protocol.fields import Message

FRAME = "application/x-flq"
BYTES = "application/octet-stream"
JSON = "application/json"
CSV = "text/csv"
HTML = "text/html"
METRICS = "text/plain; version=0.0.4; charset=utf-8"
OUTCOME_HEADER = "FLQ-Outcome"
"""Of an answer with frames to who also waits for an outcome: the outcome as JSON."""

Content = Union[Message[Any], str]
"""A JSON message, or the media type of what is none of them."""


class Endpoint(NamedTuple):
    """who: anyone, worker (its token), session, operator, viewer (or an operator) or reader
    (anyone on loopback, else a viewer or an operator).

    query: the names that may stand behind the path. takes, answers: the body of the request, none
    where that is empty or ignored, and of the answers.
    """

    method: str
    path: str
    who: str
    summary: str
    query: Tuple[str, ...] = ()
    takes: Tuple[Content, ...] = ()
    answers: Tuple[Content, ...] = ()

    def url(self, **query: object) -> str:
        """The path with a query, in the order of the list. For a path without a part to fill in."""
        assert set(query) <= set(self.query) and "{" not in self.path
        told = "&".join(f"{name}={query[name]}" for name in self.query if name in query)
        return self.path + ("?" + told if told else "")


_WITH_MODEL = ("have", "hash", "wait")
_OUTCOMES = (messages.OUTCOME, FRAME)

REGISTER = Endpoint(
    "POST", "/register", "worker",
    "with {protocol, worker_id}: the run and its configuration; with a registration: a session",
    takes=(messages.QUESTION, messages.REGISTRATION), answers=(messages.HELLO, messages.REGISTERED))
GET_GLOBAL_MODEL = Endpoint(
    "GET", "/get_global_model", "session",
    "with Accept: application/x-flq the broadcast from `have` on, 204 when nothing is new; else "
    "about the model",
    ("have", "hash", "wait", "format"), answers=(FRAME, JSON, BYTES))
GET_CONSTANTS = Endpoint("GET", "/get_constants", "session",
                         "the values of the model's frozen layers, for a worker that holds others",
                         answers=(BYTES,))
BID = Endpoint("POST", "/bid", "session", "a bid or a skip; answers the outcome", _WITH_MODEL,
               (messages.BID,), _OUTCOMES)
UPLOAD_UPDATE = Endpoint("POST", "/upload_update", "session",
                         "an upload frame; answers the outcome", _WITH_MODEL, (FRAME,), _OUTCOMES)
OUTCOME = Endpoint("GET", "/outcome", "session", "what became of the answer to a round",
                   ("round",) + _WITH_MODEL, answers=_OUTCOMES)
HEARTBEAT = Endpoint("POST", "/heartbeat", "session",
                     "a sign of life while training; answers run, paused or stop",
                     takes=(messages.HEARTBEAT,), answers=(messages.ALIVE,))
LEAVE = Endpoint("POST", "/leave", "session", "leave the run cleanly", answers=(messages.GONE,))
STATUS = Endpoint("GET", "/status", "anyone",
                  "the run at a glance; with brief=1 as a whole, without its workers",
                  ("seen", "wait", "brief"), answers=(JSON,))
HISTORY = Endpoint("GET", "/history", "anyone",
                   "round records from round `since` on, as JSON or CSV",
                   ("since", "limit", "format"), answers=(JSON, CSV))
EVENTS = Endpoint("GET", "/events", "anyone",
                  "who came and went, and what an operator did, from round `since` on", ("since",),
                  answers=(JSON,))
METRICS_TEXT = Endpoint("GET", "/metrics", "anyone", "Prometheus text", answers=(METRICS,))
HEALTHZ = Endpoint("GET", "/healthz", "anyone", "liveness", answers=(JSON,))
PAGE = Endpoint("GET", "/", "anyone", "the live page", answers=(HTML,))
PAGE_FILE = Endpoint("GET", "/page/{name}", "anyone", "files of the live page", answers=("*/*",))
OPENAPI = Endpoint("GET", "/openapi.json", "anyone", "this description", answers=(JSON,))
WHO_AM_I = Endpoint("GET", "/whoami", "viewer", "the role and the name of the token that came",
                    answers=(messages.CALLER,))
GET_CONFIG = Endpoint("GET", "/config", "reader", "the configuration in force", answers=(JSON,))
PATCH_CONFIG = Endpoint("PATCH", GET_CONFIG.path, "operator",
                        "change keys at run time; answers {effective_round, changed}",
                        takes=(JSON,), answers=(messages.CHANGED,))
PAUSE = Endpoint("POST", "/pause", "operator", "no further round closes",
                 answers=(messages.STEERED,))
RESUME = Endpoint("POST", "/resume", "operator", "the run goes on", answers=(messages.STEERED,))
STOP = Endpoint("POST", "/stop", "operator",
                "close the round with what it has, save, end; answers {status, results_saved}",
                answers=(messages.STOPPED,))
REMOVE = Endpoint("POST", "/workers/{worker}/remove", "operator", "take a worker out of the run",
                  answers=(messages.WORKER_REMOVED,))

ENDPOINTS = (REGISTER, GET_GLOBAL_MODEL, GET_CONSTANTS, BID, UPLOAD_UPDATE, OUTCOME, HEARTBEAT,
             LEAVE, STATUS, HISTORY, EVENTS, METRICS_TEXT, HEALTHZ, PAGE, PAGE_FILE, OPENAPI,
             WHO_AM_I, GET_CONFIG, PATCH_CONFIG, PAUSE, RESUME, STOP, REMOVE)

WORKER_PATHS = frozenset(endpoint.path for endpoint in ENDPOINTS
                         if endpoint.who in ("worker", "session"))
"""Where every byte counts as a run's own traffic (protocol.md 7)."""
