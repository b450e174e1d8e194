"""The REST API: Flask around the service. Every request is checked, told to the service, and answered.

No business is done here. Who may call what is written down in `openapi.ENDPOINTS`.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any, Callable

import numpy as np
from flask import Flask, Response, request, send_from_directory
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from flq import config as configuration
from flq import crash_points
from flq.errors import FlqError, ProtocolError
from flq.master import openapi, status
from flq.master.guard import Access, Guard
from flq.master.run_store import StoreError
from flq.master.server import error_name
from flq.master.service import Service
from flq.parameters import unflatten
from flq.protocol import messages
from flq.records import Outcome

FRAME_TYPE = "application/x-flq"
LONGEST_JSON = 64 * 1024
_PAGE = Path(__file__).parent / "page"

_log = logging.getLogger("flq.http")


def create_app(service: Service, access: Access, stop_and_save: Callable[[], dict[str, Any]]) -> Flask:
    """The WSGI application. stop_and_save() ends the run and answers {status, results_saved}."""
    app = Flask(__name__, static_folder=None)
    guard = Guard(service, access)
    app.before_request(guard.check_host)
    app.register_error_handler(ProtocolError, _answer_refusal)
    app.register_error_handler(StoreError, _answer_store_error)
    app.register_error_handler(HTTPException, _answer_http_exception)
    app.register_error_handler(Exception, _answer_bug)
    app.after_request(_add_headers)
    _add_worker_endpoints(app, service, guard)
    _add_reading_endpoints(app, service, guard)
    _add_operator_endpoints(app, service, guard, stop_and_save)
    return app


def _add_worker_endpoints(app: Flask, service: Service, guard: Guard) -> None:
    @app.post("/register")
    def register() -> Response:
        document = _body_json()
        worker = guard.worker()
        if document.get("worker_id") != worker:
            raise ProtocolError("unauthorized", "the token belongs to another worker", worker, document.get("worker_id"))
        if "shapes_hash" not in document:
            return _json(service.hello(worker))
        return _json(service.register(messages.parse_registration(document)))

    @app.get("/get_global_model")
    def get_global_model() -> Response:
        if request.headers.get("Accept") == FRAME_TYPE:
            have = _argument("have", int, -1)
            with guard.session() as session:
                data = service.broadcast(session, have, _hex(request.args.get("hash", "")), _wait())
            return Response(status=204) if data is None else Response(data, mimetype=FRAME_TYPE)
        return _model_for_people(service, guard)

    @app.get("/get_constants")
    def get_constants() -> Response:
        with guard.session() as session:
            return Response(service.constants(session), mimetype="application/octet-stream")

    @app.post("/bid")
    def bid() -> Response:
        document = _body_json()
        with guard.session() as session:
            return _outcome(service.bid(session, document, _wait()))

    @app.post("/upload_update")
    def upload_update() -> Response:
        if request.mimetype != FRAME_TYPE:
            raise ProtocolError("unsupported_media_type", "an upload is a frame", FRAME_TYPE, request.mimetype)
        with guard.session() as session:
            return _outcome(service.upload(session, request.get_data(cache=False), _wait()))

    @app.get("/outcome")
    def outcome() -> Response:
        with guard.session() as session:
            return _outcome(service.outcome(session, _argument("round", _natural), _wait()))

    @app.post("/heartbeat")
    def heartbeat() -> Response:
        temperature_c = messages.parse_heartbeat(_body_json())
        with guard.session() as session:
            return _json({"state": service.heartbeat(session, temperature_c)})

    @app.post("/leave")
    def leave() -> Response:
        with guard.session() as session:
            service.leave(session)
        return _json({"state": "left"})


def _add_reading_endpoints(app: Flask, service: Service, guard: Guard) -> None:
    @app.get("/status")
    def get_status() -> Response:
        return _json(status.status(service))

    @app.get("/history")
    def history() -> Response:
        since = _argument("since", int, 0)
        if request.args.get("format") == "csv":
            return Response(status.history_csv(service, since), mimetype="text/csv")
        return _json({"rounds": status.history(service, since)})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(status.metrics(service), content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz")
    def healthz() -> Response:
        return _json({"status": "ok", "run_id": service.run_id})

    @app.get("/openapi.json")
    def description() -> Response:
        return _json(openapi.document())

    @app.get("/")
    def page() -> Response:
        return send_from_directory(_PAGE, "index.html")

    @app.get("/page/<name>")
    def page_file(name: str) -> Response:
        return send_from_directory(_PAGE, name)

    @app.get("/config")
    def get_config() -> Response:
        guard.protected_read()
        return _json(configuration.to_dict(service.run.config))


def _add_operator_endpoints(app: Flask, service: Service, guard: Guard, stop_and_save: Callable[[], dict[str, Any]]) -> None:
    @app.route("/config", methods=["PATCH"])
    def patch_config() -> Response:
        guard.operator()
        document = _body_json()
        changes: dict[str, Any] = {}
        for name, value in document.items():
            if isinstance(value, dict):
                changes.update({f"{name}.{inner}": item for inner, item in value.items()})
            else:
                changes[name] = value
        return _json(service.change(changes, by=str(request.remote_addr)))

    @app.post("/pause")
    def pause() -> Response:
        guard.operator()
        service.pause()
        return _json({"status": "paused"})

    @app.post("/resume")
    def resume() -> Response:
        guard.operator()
        service.resume()
        return _json({"status": "running"})

    @app.post("/stop")
    def stop() -> Response:
        guard.operator()
        return _json(stop_and_save())

    @app.post("/workers/<int:worker>/remove")
    def remove(worker: int) -> Response:
        guard.operator()
        service.remove(worker)
        return _json({"status": "removed", "worker": worker})


def _model_for_people(service: Service, guard: Guard) -> Response:
    form = request.args.get("format", "")
    with service.locked() as run:
        model, tested = run.model, run.history.newest_tested
    layout = service.learner.layout
    about = {"round": model.version, "version": model.version, "accuracy": tested.accuracy if tested else None,
             "loss": tested.loss if tested else None, "num_parameters": layout.num_params, "shapes": layout.shapes}
    if not form:
        return _json(about)
    guard.protected_read()
    tensors = unflatten(model.broadcast, layout.shapes)
    if form == "json":
        return _json(dict(about, weights=[tensor.tolist() for tensor in tensors]))
    if form == "npz":
        file = io.BytesIO()
        arrays: dict[str, Any] = {f"p{index}": tensor for index, tensor in enumerate(tensors)}
        arrays.update((f"s{index}", tensor) for index, tensor in enumerate(unflatten(model.state, layout.state_shapes)))
        if layout.num_constants:
            constants = np.frombuffer(service.learner.constants, "<f4")
            arrays.update((f"c{index}", tensor) for index, tensor in enumerate(unflatten(constants, layout.constant_shapes)))
        np.savez(file, version=np.int64(model.version), **arrays)
        return Response(file.getvalue(), mimetype="application/octet-stream")
    raise ProtocolError("bad_request", "unknown format", "json or npz", form[:40])


def _body_json() -> dict[str, Any]:
    if (request.content_length or 0) > LONGEST_JSON:
        raise ProtocolError("too_large", "the JSON body is too long", f"at most {LONGEST_JSON} bytes", request.content_length)
    return messages.parse_json(request.get_data(cache=False))


def _argument(name: str, kind: Callable[[str], Any], default: Any = None) -> Any:
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    try:
        return kind(text or "")
    except ValueError:
        raise ProtocolError("bad_request", f"{name}= cannot take this value", "a number", (text or "")[:40])


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _wait() -> float:
    seconds: float = _argument("wait", float, 0.0)
    if not 0 <= seconds <= 3600:
        raise ProtocolError("bad_request", "wait= cannot take this value", "seconds from 0 to 3600", str(seconds))
    return seconds


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ProtocolError("bad_request", "hash= cannot take this value", "hex digits", text[:40])


def _json(document: dict[str, Any], code: int = 200) -> Response:
    return Response(messages.to_json(document), code, mimetype="application/json")


def _outcome(outcome: Outcome) -> Response:
    crash_points.reach("answer.before")
    return _json(outcome._asdict(), 202 if outcome.state == "open" else 200)


def _answer_refusal(error: ProtocolError) -> Response:
    response = _json(error.to_json(), error.kind.status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(int(error.retry_after_s))
    elif error.kind.status == 503:
        response.headers["Retry-After"] = "2"
    return response


def _answer_store_error(error: StoreError) -> Response:
    """A disk that cannot be read now is the master's trouble, not the worker's: it asks again."""
    _log.error("%s %s: %s", request.method, request.path, error)
    return _answer_refusal(ProtocolError("blocked", error.message, got=error.got, hint=error.hint))


def _answer_http_exception(error: HTTPException) -> ResponseReturnValue:
    code = error.code or 500
    if code < 400:
        return error.get_response()
    message = f"{request.method} {request.path}: {error.name}"
    refusal = ProtocolError(error_name(code), message, hint="GET /openapi.json lists the endpoints")
    return _json(refusal.to_json(), refusal.kind.status)


def _answer_bug(error: Exception) -> Response:
    if isinstance(error, FlqError):
        return _json(ProtocolError("bad_request", str(error)).to_json(), 400)
    _log.exception("%s %s failed", request.method, request.path)
    return _json(ProtocolError("internal", "the master failed to answer", hint="its log has the trace").to_json(), 500)


def _add_headers(response: Response) -> Response:
    if response.mimetype == "text/html" or request.path.startswith("/page/"):
        response.headers["Content-Security-Policy"] = "default-src 'self'"
        response.headers["X-Content-Type-Options"] = "nosniff"
    return response
