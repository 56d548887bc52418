"""The OpenAPI document of the HTTP API, made from its table of endpoints and its values."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any, Final

import msgspec

from sleap_rtc import __version__
from sleap_rtc.domain.values import Value
from sleap_rtc.protocol.http import ErrorTold
from sleap_rtc.server.api import ENDPOINTS, Endpoint

_REF: Final = "#/components/schemas/{name}"
_ABOUT: Final = (
    "Signing in, and moving files to and from a room's storage. Bodies are JSON objects; "
    "fields that a server doesn't know are ignored. Every error has one shape."
)


@functools.cache
def document() -> dict[str, Any]:
    """The document, as plain values."""
    kinds: list[type[Value]] = [ErrorTold]
    for endpoint in ENDPOINTS:
        kinds += [kind for kind in (endpoint.request, endpoint.answer) if kind is not None]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    for schema in schemas.values():
        _tidy(schema)
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths[endpoint.path] = {endpoint.method.lower(): _operation(endpoint)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "sleap-rtc server", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def encoded() -> bytes:
    """The document as indented JSON, with a final newline."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n"


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "responses": {
            "200": _content(endpoint.answer, "What was asked for."),
            "default": _content(ErrorTold, "Why it can't be had."),
        },
    }
    parameters = re.findall(r"{(\w+)}", endpoint.path)
    if parameters:
        made["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            }
            for name in parameters
        ]
    if endpoint.request is not None:
        made["requestBody"] = {"required": True} | _content(endpoint.request, None)
    if endpoint.signed_in:
        made["security"] = [{"token": []}]
    return made


def _content(kind: type[Value], description: str | None) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=kind.__name__)}
    made: dict[str, Any] = {"content": {"application/json": {"schema": schema}}}
    return made if description is None else {"description": description} | made


def _tidy(schema: dict[str, Any]) -> None:
    """Leave out how unknown fields are kept here; unwrap descriptions; anchors as in JavaScript."""
    schema.get("properties", {}).pop("unknown", None)
    schema.pop("additionalProperties", None)
    if "description" in schema:
        text = inspect.cleandoc(schema["description"]).replace("``", "`")
        schema["description"] = " ".join(text.partition("\n\n")[0].split())
    _anchors(schema)


def _anchors(plain: Any) -> None:
    if isinstance(plain, dict):
        pattern = plain.get("pattern")
        if isinstance(pattern, str):
            plain["pattern"] = pattern.replace("\\A", "^").replace("\\Z", "$")
        for item in plain.values():
            _anchors(item)
    elif isinstance(plain, list):
        for item in plain:
            _anchors(item)
