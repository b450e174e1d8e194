"""What the REST API answers: records and refusals as JSON, and what comes later."""

from __future__ import annotations

import logging
from typing import Any, Callable

from flask import Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from flq.errors import FlqError, ProtocolError
from flq.host import crash_points
from flq.master.http.parking import PLACE, Parked
from flq.master.http.server import error_name
from flq.master.run.run import PENDING
from flq.master.store.run_store import StoreError
from flq.protocol import endpoints, messages
from flq.protocol.fields import Message, Record
from flq.records import Outcome

_log = logging.getLogger("flq.http")


def json_response(document: dict[str, Any], code: int = 200) -> Response:
    return Response(messages.to_json(document), code, mimetype=endpoints.JSON)


def answer(message: Message[Record], record: Record) -> Response:
    return json_response(message.to_json(record))


def in_time(ask: Callable[..., Any], respond: Callable[[Any], Response]) -> Response:
    """The response to a question that may have to wait: it holds no thread then, where the server
    can park requests. ask(then): a method of the service that takes `then`.
    """
    place = request.environ.get(PLACE)
    if place is None:
        return respond(ask(None))
    left, what = place(), f"{request.method} {request.path}"

    def then(found: Any, error: Exception | None) -> None:
        try:
            if error is not None:
                raise error
            response = respond(found)
        except ProtocolError as refusal:
            response = answer_refusal(refusal)
        except StoreError as trouble:
            response = answer_store_error(trouble, what)
        except Exception as bug:  # as Flask would: the request must have an answer
            response = answer_bug(bug, what)
        left.answer(response)

    found = ask(then)
    if found is PENDING:
        raise Parked
    return respond(found)


def frames_response(data: bytes | None) -> Response:
    return Response(status=204) if data is None else Response(data, mimetype=endpoints.FRAME)


def outcome_response(outcome: Outcome) -> Response:
    crash_points.reach("answer.before")
    document = messages.OUTCOME.to_json(outcome)
    if outcome.frames:
        told = {endpoints.OUTCOME_HEADER: messages.to_json(document).decode("ascii")}
        return Response(outcome.frames, mimetype=endpoints.FRAME, headers=told)
    return json_response(document, 202 if outcome.verdict == "open" else 200)


def answer_refusal(error: ProtocolError) -> Response:
    response = json_response(error.to_json(), error.kind.status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(int(error.retry_after_s))
    elif error.kind.status == 503:
        response.headers["Retry-After"] = "2"
    return response


def answer_store_error(error: StoreError, what: str | None = None) -> Response:
    """A disk that cannot be read now is the master's trouble, not the worker's: it asks again.
    what: the request, where it is not the one that this thread serves.
    """
    _log.error("%s: %s", what or f"{request.method} {request.path}", error)
    return answer_refusal(ProtocolError("blocked", error.message, got=error.got, hint=error.hint))


def answer_http_exception(error: HTTPException) -> ResponseReturnValue:
    code = error.code or 500
    if code < 400:
        return error.get_response()
    message = f"{request.method} {request.path}: {error.name}"
    refusal = ProtocolError(
        error_name(code), message,
        hint=f"{endpoints.OPENAPI.method} {endpoints.OPENAPI.path} lists the endpoints")
    return json_response(refusal.to_json(), refusal.kind.status)


def answer_bug(error: Exception, what: str | None = None) -> Response:
    if isinstance(error, FlqError):
        return json_response(ProtocolError("bad_request", str(error)).to_json(), 400)
    _log.exception("%s failed", what or f"{request.method} {request.path}")
    return json_response(
        ProtocolError("internal", "the master failed to answer",
                      hint="its log has the trace").to_json(), 500)
