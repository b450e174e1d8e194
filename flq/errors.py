"""Every way FLQ says no: one line with what was expected, what came and what to do."""

from typing import Any, Dict, NamedTuple, Optional


class FlqError(Exception):
    """An error for people. `exit_code` is what the process ends with when nobody handles it."""

    exit_code = 1

    def __init__(self, message: str, expected: Any = None, got: Any = None,
                 hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.got = got
        self.hint = hint

    def __str__(self) -> str:
        line = self.message
        if self.expected is not None:
            line += f"; expected {self.expected}"
        if self.got is not None:
            line += f"; got {self.got}"
        if self.hint:
            line += "; " + self.hint
        return line


def printable(text: str) -> str:
    """A text of somebody else's for a terminal or a log: whatever could steer the terminal or
    reorder its letters is a space; lines stay.
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def in_one_line(value: object) -> str:
    """What came over the network, fit for a log: text without line breaks and control characters.
    """
    return " ".join(printable(str(value)).split())


class ConfigError(FlqError):
    """A configuration or a command line that cannot be used."""

    exit_code = 2


class DataError(FlqError):
    """A data set or a model that is missing, damaged or of another shape."""

    exit_code = 4


class UnreachableError(FlqError):
    """The master did not answer within the time that the caller set (EX_TEMPFAIL: try again later).
    """

    exit_code = 75


class ErrorKind(NamedTuple):
    """What one error name of the protocol means.

    status: the HTTP status; action: what a worker does about it, one of `retry` (the same request
    again after a pause), `settle` (ask /outcome), `register` (a new session), `finish` (exit 0) and
    `exit` (exit 3: a person must look).
    """

    status: int
    action: str
    meaning: str


# The one list of the protocol's error names; docs/protocol.md shows it as a table and a test
# compares.
ERROR_KINDS: Dict[str, ErrorKind] = {
    "bad_request": ErrorKind(400, "exit", "the request is not of the documented form"),
    "bad_json": ErrorKind(400, "exit",
                          "the body is not one JSON object within the limits of size and depth"),
    "unauthorized": ErrorKind(401, "exit",
                              "the token is missing or not the one for this endpoint or worker"),
    "unknown_session": ErrorKind(
        401, "register",
        "the session is unknown: the master was restarted, or it ended"), "not_found": ErrorKind(
            404, "exit", "no such endpoint, worker or round"), "method_not_allowed": ErrorKind(
                405, "exit",
                "the endpoint exists but not with this method"), "request_timeout": ErrorKind(
                    408, "retry",
                    "the request did not arrive whole in time"), "session_superseded": ErrorKind(
                        409, "exit", "the same worker registered again elsewhere"),
    "worker_id_in_use": ErrorKind(
        409, "exit", "another live process holds this worker id"), "shapes_mismatch": ErrorKind(
            409, "exit",
            "the worker's model has other shapes than the master's"), "data_mismatch": ErrorKind(
                409, "exit", "the worker computed another partition of the data than the master"),
    "model_mismatch": ErrorKind(409, "exit",
                                "the worker drew other initial weights than the master"),
    "quantizer_mismatch": ErrorKind(
        409, "exit",
        "the worker's own quantiser has another source than the master's"), "other_base": ErrorKind(
            409, "register",
            "the update was computed from another model or another reference"), "wrong_round":
                ErrorKind(409, "settle", "the round is over or not open yet"),
    "not_granted": ErrorKind(
        409, "settle", "an upload that was not granted, or not yet"), "not_participant": ErrorKind(
            409, "register", "the worker does not take part in this round"), "finished": ErrorKind(
                410, "finish", "the run is finished"), "stopped": ErrorKind(
                    410, "finish", "the run was stopped by the operator"), "removed": ErrorKind(
                        410, "exit",
                        "the operator removed this worker from the run"), "too_large": ErrorKind(
                            413, "exit", "the body is larger than an update of this model can be"),
    "unsupported_media_type": ErrorKind(
        415, "exit", "the body is not of the announced kind"), "misdirected": ErrorKind(
            421, "exit", "the Host header names another machine"), "bad_frame": ErrorKind(
                422, "exit",
                "the frame is damaged, foreign or for another model"), "wrong_option": ErrorKind(
                    422, "settle", "the upload is not the option that was granted"),
    "cannot_change": ErrorKind(
        422, "exit", "this key cannot be changed while the run goes on"), "bad_value": ErrorKind(
            422, "exit", "this key cannot take this value"), "too_many_requests": ErrorKind(
                429, "retry", "too many failed requests from this address, registrations of a "
                "worker, or readers of the whole history"),
    "headers_too_large": ErrorKind(
                    431, "exit", "the request's headers are too long"), "internal": ErrorKind(
                        500, "retry",
                        "a bug in the master; its log has the trace"), "blocked": ErrorKind(
                            503, "retry", "the master cannot write its disk and waits for room"),
}


class ProtocolError(FlqError):
    """A refusal that travels: a JSON object of FIELDS with the status of its kind."""

    FIELDS = ("error", "message", "expected", "got", "hint")
    exit_code = 3

    def __init__(self, name: str, message: str, expected: Any = None, got: Any = None,
                 hint: Optional[str] = None, retry_after_s: Optional[float] = None) -> None:
        super().__init__(message, expected, got, hint)
        self.name = name
        self.kind = ERROR_KINDS[name]
        self.retry_after_s = retry_after_s

    def to_json(self) -> Dict[str, Any]:
        return dict(zip(self.FIELDS, (self.name, self.message, self.expected, self.got, self.hint)))

    @staticmethod
    def parse(document: Dict[str, Any],
              retry_after_s: Optional[float] = None) -> "Optional[ProtocolError]":
        """The refusal that came as JSON, its words fit for a log; None when it is none.

        Fields but `error` may be missing.
        """
        name = document.get(ProtocolError.FIELDS[0])
        if not isinstance(name, str) or name not in ERROR_KINDS:
            return None
        told = [
            None if document.get(field) is None else in_one_line(document[field])
            for field in ProtocolError.FIELDS[1:]
        ]
        return ProtocolError(name, told[0] or "", told[1], told[2], told[3], retry_after_s)


class FrameError(ProtocolError):
    """A binary frame that is refused whole; nothing changed.

    `reason` names the one thing that is wrong.
    """

    def __init__(self, reason: str, message: str, expected: Any = None, got: Any = None) -> None:
        super().__init__(
            "bad_frame", f"{reason}: {message}", expected, got,
            "send the frame that docs/protocol.md describes, for this run and this model")
        self.reason = reason
