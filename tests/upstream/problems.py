"""Error answers, in every shape that registries give them."""

from __future__ import annotations

import json

from aiohttp import web

from tests.upstream.dials import Dials
from tests.upstream.failures import Failure, Shape
from tests.upstream.routes import Kind

_CODES = {
    400: "UNSUPPORTED",
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    416: "BLOB_UPLOAD_INVALID",
    429: "TOOMANYREQUESTS",
}
_NOT_FOUND: dict[Kind, str] = {"manifest": "MANIFEST_UNKNOWN", "blob": "BLOB_UNKNOWN", "upload": "BLOB_UPLOAD_UNKNOWN"}
_HTML = "<!DOCTYPE html><html><head><title>{status}</title></head><body><h1>{status}</h1><p>{message}</p></body></html>"


def problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error answer of the distribution spec."""
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]})
    return web.Response(status=status, text=body, content_type="application/json", headers=headers)


def failure_answer(failure: Failure, kind: Kind) -> web.Response:
    """Return the answer that an injected failure describes."""
    headers = dict(failure.headers)
    if failure.retry_after is not None:
        headers["Retry-After"] = failure.retry_after
    status = failure.status
    usual = _NOT_FOUND.get(kind) if status == 404 else None
    code = failure.code or usual or _CODES.get(status, "UNKNOWN")
    return shaped(failure.body, status, code, failure.message, headers)


def not_found(dials: Dials, code: str, message: str) -> web.Response:
    """Return a 404 in the shape that the dials give it."""
    return shaped(dials.not_found_body, 404, dials.not_found_code or code, message)


def shaped(shape: Shape, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error answer in any of the shapes."""
    if shape == "json":
        return problem(status, code, message, headers)
    text, content_type = {
        "plain": (message, "text/plain"),
        "html": (_HTML.format(status=status, message=message), "text/html"),
        "code": (json.dumps({"code": str(status)}), "application/json"),
        "empty": ("", "text/plain"),
    }[shape]
    return web.Response(status=status, text=text, content_type=content_type, headers=headers)
