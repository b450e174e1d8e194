"""The REST API: Flask around the service. Every request is checked, told to the service, and
answered.

No business is done here. Who may call what is written down in `protocol.endpoints.ENDPOINTS`.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any, Callable

from flask import Flask, Response, request, send_from_directory
from werkzeug.exceptions import HTTPException

from flq import config as configuration
from flq.errors import ProtocolError
from flq.master import status
from flq.master.http import openapi
from flq.master.http.answers import (
    answer,
    answer_bug,
    answer_http_exception,
    answer_refusal,
    answer_store_error,
    frames_response,
    in_time,
    json_response,
    outcome_response,
)
from flq.master.http.guard import Access, Guard
from flq.master.http.history_answers import HistoryAnswers
from flq.master.http.viewers import Viewers
from flq.master.http.weights import model_for_people
from flq.master.service import Service
from flq.master.store.events import Order
from flq.master.store.run_store import StoreError
from flq.protocol import endpoints, messages
from flq.protocol.endpoints import Endpoint
from flq.protocol.messages import Alive, Gone, Steered, Stopped, WorkerRemoved
from flq.records import HeldModel

LONGEST_JSON = 64 * 1024
_PAGE_FILES = endpoints.PAGE_FILE.path.partition("{")[0]
_PAGE = Path(__file__).parent / "page"

PAGE_HEADERS = {
    "Content-Security-Policy":
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "
        "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin"
}
"""The page takes nothing from elsewhere, and nothing may show it in a frame: it has buttons."""

_CONVERTERS = {"{worker}": "<int:worker>", "{name}": "<name>"}

_log = logging.getLogger("flq.http")

Handler = Callable[..., Response]


def create_app(service: Service, access: Access,
               stop_and_save: Callable[[Order], Stopped]) -> Flask:
    """The WSGI application. stop_and_save(whose order) ends the run."""
    app = Flask(__name__, static_folder=None)
    guard = Guard(service, access)
    app.before_request(guard.check_host)
    app.before_request(guard.check_certificate)
    app.register_error_handler(ProtocolError, answer_refusal)
    app.register_error_handler(StoreError, answer_store_error)
    app.register_error_handler(HTTPException, answer_http_exception)
    app.register_error_handler(Exception, answer_bug)
    app.after_request(_add_headers)
    _add_worker_endpoints(app, service, guard)
    _add_reading_endpoints(app, service, guard)
    _add_operator_endpoints(app, service, guard, stop_and_save)
    return app


def _serve(app: Flask, endpoint: Endpoint) -> Callable[[Handler], Handler]:
    """Decorates the function that answers an endpoint."""
    rule = endpoint.path
    for part, converter in _CONVERTERS.items():
        rule = rule.replace(part, converter)
    return app.route(rule, methods=[endpoint.method])


def _add_worker_endpoints(app: Flask, service: Service, guard: Guard) -> None:
    @_serve(app, endpoints.REGISTER)
    def register() -> Response:
        document = _body_json()
        worker = guard.worker()
        claimed = messages.claimed_worker(document)
        if claimed != worker:
            raise ProtocolError("unauthorized", "the token belongs to another worker", worker,
                                claimed)
        if messages.is_question(document):
            return answer(messages.HELLO, service.hello(worker))
        registered = service.register(messages.REGISTRATION.parse(document))
        try:
            guard.worker()  # revoked meanwhile: the session came after the others were ended
        except ProtocolError:
            with service.locked() as run:
                run.end_session(worker)
            raise
        return answer(messages.REGISTERED, registered)

    @_serve(app, endpoints.GET_GLOBAL_MODEL)
    def get_global_model() -> Response:
        if request.headers.get("Accept") == endpoints.FRAME:
            held = _held()
            with guard.session() as session:
                return in_time(functools.partial(service.broadcast, session, held, _wait()),
                               guard.unless_revoked(frames_response))
        return _model_for_people(service, guard)

    @_serve(app, endpoints.GET_CONSTANTS)
    def get_constants() -> Response:
        with guard.session() as session:
            return Response(service.constants(session), mimetype=endpoints.BYTES)

    @_serve(app, endpoints.BID)
    def bid() -> Response:
        document = _body_json()
        with guard.session() as session:
            ask = functools.partial(service.bid, session, document, _wait(), held=_held_too())
            return in_time(ask, guard.unless_revoked(outcome_response))

    @_serve(app, endpoints.UPLOAD_UPDATE)
    def upload_update() -> Response:
        if request.mimetype != endpoints.FRAME:
            raise ProtocolError("unsupported_media_type", "an upload is a frame", endpoints.FRAME,
                                request.mimetype)
        with guard.session() as session:
            data = request.get_data(cache=False)
            ask = functools.partial(service.upload, session, data, _wait(), held=_held_too())
            return in_time(ask, guard.unless_revoked(outcome_response))

    @_serve(app, endpoints.OUTCOME)
    def outcome() -> Response:
        with guard.session() as session:
            round_ = _argument("round", _natural)
            ask = functools.partial(service.outcome, session, round_, _wait(), held=_held_too())
            return in_time(ask, guard.unless_revoked(outcome_response))

    @_serve(app, endpoints.HEARTBEAT)
    def heartbeat() -> Response:
        temperature_c = messages.HEARTBEAT.parse(_body_json()).temperature_c
        with guard.session() as session:
            return answer(messages.ALIVE, Alive(service.heartbeat(session, temperature_c)))

    @_serve(app, endpoints.LEAVE)
    def leave() -> Response:
        with guard.session() as session:
            service.leave(session)
        return answer(messages.GONE, Gone())


def _add_reading_endpoints(app: Flask, service: Service, guard: Guard) -> None:
    viewers, histories = Viewers(service), HistoryAnswers(service)

    @_serve(app, endpoints.STATUS)
    def get_status() -> Response:
        if request.args.get("brief", "0") != "0":
            return json_response(status.brief(service))
        if "seen" not in request.args:
            return json_response(status.status(service))
        respond = guard.unless_revoked(functools.partial(Response, mimetype=endpoints.JSON))
        return respond(viewers.status(request.args["seen"], _wait()))

    @_serve(app, endpoints.HISTORY)
    def history() -> Response:
        since = _argument("since", int, 0)
        limit = _argument("limit", _natural) if "limit" in request.args else None
        return histories.answer(since, limit, request.args.get("format") == "csv")

    @_serve(app, endpoints.EVENTS)
    def events() -> Response:
        return json_response({"events": status.events(service, _argument("since", int, 0))})

    @_serve(app, endpoints.METRICS_TEXT)
    def metrics() -> Response:
        return Response(status.metrics(service), content_type=endpoints.METRICS)

    @_serve(app, endpoints.HEALTHZ)
    def healthz() -> Response:
        return json_response({"status": "ok", "run_id": service.run_id})

    @_serve(app, endpoints.OPENAPI)
    def description() -> Response:
        return json_response(openapi.document())

    @_serve(app, endpoints.PAGE)
    def page() -> Response:
        return send_from_directory(_PAGE, "index.html")

    @_serve(app, endpoints.PAGE_FILE)
    def page_file(name: str) -> Response:
        return send_from_directory(_PAGE, name)

    @_serve(app, endpoints.WHO_AM_I)
    def who_am_i() -> Response:
        caller = guard.caller()
        return answer(messages.CALLER, messages.WhoIs(caller.role, caller.name))

    @_serve(app, endpoints.GET_CONFIG)
    def get_config() -> Response:
        guard.protected_read()
        return json_response(configuration.to_dict(service.run.config))


def _add_operator_endpoints(app: Flask, service: Service, guard: Guard,
                            stop_and_save: Callable[[Order], Stopped]) -> None:
    @_serve(app, endpoints.PATCH_CONFIG)
    def patch_config() -> Response:
        order = guard.operator().order()
        changes = messages.parse_changes(_body_json())
        return answer(messages.CHANGED, service.change(changes, *order))

    @_serve(app, endpoints.PAUSE)
    def pause() -> Response:
        service.pause(guard.operator().order())
        return answer(messages.STEERED, Steered("paused"))

    @_serve(app, endpoints.RESUME)
    def resume() -> Response:
        service.resume(guard.operator().order())
        return answer(messages.STEERED, Steered("running"))

    @_serve(app, endpoints.STOP)
    def stop() -> Response:
        return answer(messages.STOPPED, stop_and_save(guard.operator().order()))

    @_serve(app, endpoints.REMOVE)
    def remove(worker: int) -> Response:
        service.remove(worker, guard.operator().order())
        return answer(messages.WORKER_REMOVED, WorkerRemoved(worker))


def _model_for_people(service: Service, guard: Guard) -> Response:
    form = request.args.get("format", "")
    if form:
        guard.protected_read()
    shown = model_for_people(service, form)
    if isinstance(shown, bytes):
        return Response(shown, mimetype=endpoints.BYTES)
    return json_response(shown)


def _body_json() -> dict[str, Any]:
    if (request.content_length or 0) > LONGEST_JSON:
        raise ProtocolError("too_large", "the JSON body is too long",
                            f"at most {LONGEST_JSON} bytes", request.content_length)
    return messages.parse_json(request.get_data(cache=False))


def _argument(name: str, kind: Callable[[str], Any], default: Any = None) -> Any:
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    try:
        return kind(text or "")
    except ValueError:
        raise ProtocolError("bad_request", f"{name}= cannot take this value", "a number",
                            (text or "")[:40])


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _wait() -> float:
    seconds: float = _argument("wait", float, 0.0)
    if not 0 <= seconds <= 3600:
        raise ProtocolError("bad_request", "wait= cannot take this value", "seconds from 0 to 3600",
                            str(seconds))
    return seconds


def _held() -> HeldModel:
    """The model that the worker says it holds."""
    text = request.args.get("hash", "")
    try:
        return HeldModel(_argument("have", int, -1), bytes.fromhex(text))
    except ValueError:
        raise ProtocolError("bad_request", "hash= cannot take this value", "hex digits", text[:40])


def _held_too() -> HeldModel | None:
    """The same in a request for an outcome; None where that is asked for alone."""
    return _held() if "have" in request.args else None


def _add_headers(response: Response) -> Response:
    if response.mimetype == endpoints.HTML or request.path.startswith(_PAGE_FILES):
        response.headers.update(PAGE_HEADERS)
    return response
