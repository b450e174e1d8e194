"""GET /openapi.json: the endpoints, from one table. docs/protocol.md shows the same table and a test compares."""

from __future__ import annotations

from typing import Any, NamedTuple

from flq import __version__


class Endpoint(NamedTuple):
    """who: anyone, worker (its token), session, operator or reader (the operator unless bound to loopback)."""

    method: str
    path: str
    who: str
    summary: str
    query: tuple[str, ...] = ()


ENDPOINTS = (
    Endpoint("POST", "/register", "worker", "with {protocol, worker_id}: the run and its configuration; with a registration: a session"),
    Endpoint("GET", "/get_global_model", "session",
             "with Accept: application/x-flq the broadcast from `have` on, 204 when nothing is new; else about the model",
             ("have", "hash", "wait", "format")),
    Endpoint("GET", "/get_constants", "session", "the values of the model's frozen layers, for a worker that holds others"),
    Endpoint("POST", "/bid", "session", "a bid or a skip; answers the outcome", ("wait",)),
    Endpoint("POST", "/upload_update", "session", "an upload frame; answers the outcome", ("wait",)),
    Endpoint("GET", "/outcome", "session", "what became of the answer to a round", ("round", "wait")),
    Endpoint("POST", "/heartbeat", "session", "a sign of life while training; answers run, paused or stop"),
    Endpoint("POST", "/leave", "session", "leave the run cleanly"),
    Endpoint("GET", "/status", "anyone", "the run at a glance"),
    Endpoint("GET", "/history", "anyone", "round records from round `since` on, as JSON or CSV", ("since", "format")),
    Endpoint("GET", "/metrics", "anyone", "Prometheus text"),
    Endpoint("GET", "/healthz", "anyone", "liveness"),
    Endpoint("GET", "/", "anyone", "the live page"),
    Endpoint("GET", "/page/{name}", "anyone", "files of the live page"),
    Endpoint("GET", "/openapi.json", "anyone", "this description"),
    Endpoint("GET", "/config", "reader", "the configuration in force"),
    Endpoint("PATCH", "/config", "operator", "change keys at run time; answers {effective_round, changed}"),
    Endpoint("POST", "/pause", "operator", "no further round closes"),
    Endpoint("POST", "/resume", "operator", "the run goes on"),
    Endpoint("POST", "/stop", "operator", "close the round with what it has, save, end; answers {status, results_saved}"),
    Endpoint("POST", "/workers/{worker}/remove", "operator", "take a worker out of the run"),
)

_TOKENS = {"worker": "worker", "session": "session", "operator": "operator", "reader": "operator"}


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        parameters: list[dict[str, Any]] = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in endpoint.query]
        if "{" in endpoint.path:
            name = endpoint.path.split("{")[1].split("}")[0]
            parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
        responses = {"200": {"description": "the answer"}, "default": {"$ref": "#/components/responses/Error"}}
        operation: dict[str, Any] = {"summary": endpoint.summary, "parameters": parameters, "responses": responses}
        if endpoint.who in _TOKENS:
            operation["security"] = [{_TOKENS[endpoint.who]: []}]
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    error = {"type": "object", "required": ["error", "message"],
             "properties": {name: {} if name in ("expected", "got") else {"type": ["string", "null"]}
                            for name in ("error", "message", "expected", "got", "hint")}}
    return {
        "openapi": "3.1.0", "info": {"title": "FLQ master", "version": __version__}, "paths": paths,
        "components": {
            "schemas": {"Error": error},
            "responses": {"Error": {"description": "what was expected, what came, what to do",
                                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}},
            "securitySchemes": {name: {"type": "http", "scheme": "bearer"} for name in sorted(set(_TOKENS.values()))},
        },
    }
