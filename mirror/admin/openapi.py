"""The API's description (OpenAPI 3.1), made from the very table that is routed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import msgspec

from mirror.admin.endpoint import Endpoint, What
from mirror.admin.problem import Error

_REF = "#/components/schemas/{name}"
_PROBLEMS = {
    "400": "Something is missing, or is no image, digest or glob",
    "401": "The token is missing or wrong",
    "403": "It may not be asked from there",
    "404": "Nothing is known by that name",
    "415": "The body is not JSON",
    "500": "The store cannot be used",
    "503": "The replica is just starting",
}


def describe(base: str, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the document of endpoints that lie under `base`."""
    table = tuple(endpoints)
    kinds: list[type[msgspec.Struct]] = list(dict.fromkeys([What, Error, *(each.answer for each in table)]))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    shapes = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in table:
        paths.setdefault(f"{base}{each.path}", {})[each.method.lower()] = _operation(each, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Layover", "version": version("layover")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # None is needed on loopback where no token is configured.
        "security": [{"token": []}, {}],
    }


def _operation(endpoint: Endpoint, shapes: dict[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    problems = {status: _content(text, shapes[Error]) for status, text in _PROBLEMS.items()}
    found: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}_{endpoint.path.strip('/')}",
        "responses": {"200": _content("Done", shapes[endpoint.answer]), **problems},
    }
    if endpoint.query:
        found["parameters"] = [
            {
                "name": name,
                "in": "query",
                "required": name in endpoint.needed,
                "description": meaning,
                "schema": {"type": "string"},
            }
            for name, meaning in endpoint.query.items()
        ]
    if endpoint.takes_body:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": shapes[What]}}}
    return found


def _content(text: str, shape: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": shape}}}
