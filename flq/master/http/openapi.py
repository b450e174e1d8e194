"""The master's own description: the list of endpoints as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from flq import __version__
from flq.errors import ProtocolError
from flq.keys import KEYS, Key
from flq.protocol.endpoints import ENDPOINTS, JSON, PATCH_CONFIG, Content
from flq.protocol.fields import Message

_JSON_TYPES = {"text": "string", "hex": "string", "list": "array", "integer": "integer",
               "number": "number", "boolean": "boolean", "object": "object"}
_TOKENS = {
    "worker": ("worker",), "session": ("session",), "operator": ("operator",),
    "viewer": ("viewer", "operator"), "reader": ("viewer", "operator")
}
"""Of each `Endpoint.who`: the roles, each of which is enough."""

_ROLES = {
    "worker": "a worker's token, of `python -m flq token --worker M`",
    "session": "what /register answered a worker",
    "operator": "the operator's token, or one of `python -m flq token --operator NAME`",
    "viewer": "a token of `python -m flq token --viewer NAME`: it reads and changes nothing"
}


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        parameters: list[dict[str,
                              Any]] = [{"name": name, "in": "query", "schema": {"type": "string"}}
                                       for name in endpoint.query]
        if "{" in endpoint.path:
            name = endpoint.path.split("{")[1].split("}")[0]
            parameters.append(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
        responses = {
            "200": {"description": "the answer"},
            "default": {"$ref": "#/components/responses/Error"}
        }
        operation: dict[str, Any] = {
            "summary": endpoint.summary, "parameters": parameters, "responses": responses
        }
        if endpoint.who in _TOKENS:
            operation["security"] = [{role: []} for role in _TOKENS[endpoint.who]]
        if endpoint.who == "reader":
            operation["description"] = ("open to anyone where the master is bound to loopback, as "
                                        "security.protect_reads says")
        if endpoint is PATCH_CONFIG:
            operation["requestBody"] = {"content": {JSON: {"schema": _changes()}}}
        elif endpoint.takes:
            operation["requestBody"] = {"content": _content(endpoint.takes)}
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    error = {
        "type": "object", "required": ["error", "message"], "properties": {
            name: {} if name in ("expected", "got") else {"type": ["string", "null"]}
            for name in ProtocolError.FIELDS
        }
    }
    return {
        "openapi": "3.1.0", "info": {"title": "FLQ master", "version": __version__}, "paths": paths,
        "components": {
            "schemas": {"Error": error}, "responses": {
                "Error": {
                    "description": "what was expected, what came, what to do", "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
                    }
                }
            }, "securitySchemes": {
                role: {"type": "http", "scheme": "bearer", "description": meaning}
                for role, meaning in _ROLES.items()
            },
        },
    }


def _content(takes: tuple[Content, ...]) -> dict[str, Any]:
    """What the body of a request can be."""
    messages = [_schema(one) for one in takes if isinstance(one, Message)]
    content: dict[str, Any] = {
        one: {"schema": {"type": "string", "format": "binary"}}
        for one in takes if isinstance(one, str)
    }
    if messages:
        content[JSON] = {"schema": messages[0] if len(messages) == 1 else {"anyOf": messages}}
    return content


def _schema(message: Message[Any]) -> dict[str, Any]:
    """A message's fields; their bounds are in docs/protocol.md."""
    types = {name: _types(what) for name, what in message.fields}
    needed = [name for (name, _), kind in zip(message.fields, message.kinds.values())
              if kind.missing is None and "null" not in types[name]]
    properties = {name: {"type": kinds} for name, kinds in types.items()}
    return {"type": "object", "properties": properties, "required": needed}


def _types(what: str) -> list[str]:
    """JSON's types of a field, from its type in the words of protocol.md."""
    word = what.replace(",", "").split()[0]
    return [_JSON_TYPES[word]] + ["null"] * what.endswith("or null")


def _changes() -> dict[str, Any]:
    """What an operator may change while the run goes on: the page makes its form of it."""
    return {
        "type": "object",
        "properties": {key.path: _value(key) for key in KEYS if key.runtime},
        "additionalProperties": False
    }


def _value(key: Key) -> dict[str, Any]:
    kind = {int: "integer", float: "number", bool: "boolean", str: "string", list: "array"}[
        key.kind]
    value: dict[str, Any] = {
        "type": [kind, "null"] if key.null_means else kind, "description": key.doc
    }
    for name, bound in (("minimum", key.low), ("maximum", key.high)):
        if bound is not None:
            value[name] = bound
    return value
