"""Heads of answers, and the one renderer of errors."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from aiohttp import web

from mirror.observe.cache_status import CacheStatus
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.registry.ranges import Span
from mirror.registry.routing import Target

API_VERSION = "Docker-Distribution-Api-Version"
ALLOWED = "GET, HEAD"


def base_headers(target: Target | None) -> dict[str, str]:
    """Return the headers that every answer carries."""
    headers = {API_VERSION: "registry/2.0"}
    if target is not None and target.namespace is not None:
        headers["OCI-Namespace"] = target.namespace
    return headers


def content_headers(target: Target, digest: Digest, media_type: str, status: CacheStatus) -> dict[str, str]:
    """Return the headers of a manifest or a blob."""
    headers = {
        API_VERSION: "registry/2.0",
        "Content-Type": media_type,
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Status": status.header(),
    }
    if target.namespace is not None:
        headers["OCI-Namespace"] = target.namespace
    if status.age is not None:
        headers["Age"] = str(status.age)
    return headers


def is_not_modified(if_none_match: str | None, digest: Digest) -> bool:
    """Say whether a condition names what the client already has (RFC 9110 §13.1.2)."""
    if if_none_match is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in {"*", f'"{digest}"'} for tag in tags)


def ranges_apply(if_range: str | None, digest: Digest) -> bool:
    """Say whether a Range is to be heeded under an If-Range condition (RFC 9110 §13.1.5)."""
    return if_range is None or if_range.strip() == f'"{digest}"'


class Multipart(NamedTuple):
    """A multipart/byteranges body (RFC 9110 §14.6): what stands before each span, and at the end."""

    media_type: str
    heads: Sequence[bytes]
    spans: Sequence[Span]
    end: bytes

    @property
    def length(self) -> int:
        """The whole body's length in bytes."""
        return sum(map(len, self.heads)) + sum(span.stop - span.start for span in self.spans) + len(self.end)


def multipart(spans: Sequence[Span], size: int, media_type: str) -> Multipart:
    """Return the frame around `spans` of `size` bytes, in the order of the request."""
    boundary = secrets.token_hex(16)
    heads = [
        (
            f"{'' if place == 0 else chr(13) + chr(10)}--{boundary}\r\nContent-Type: {media_type}\r\n"
            f"Content-Range: bytes {span.start}-{span.stop - 1}/{size}\r\n\r\n"
        ).encode()
        for place, span in enumerate(spans)
    ]
    return Multipart(f"multipart/byteranges; boundary={boundary}", heads, spans, f"\r\n--{boundary}--\r\n".encode())


def error_response(error: RegistryError, target: Target | None, extra: Mapping[str, str] | None = None) -> web.Response:
    """Return the specification's JSON for an error."""
    headers = {**base_headers(target), **(extra or {})}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return error_page(error.code, error.message, error.status, headers)


def error_page(code: ErrorCode, message: str, status: int, headers: Mapping[str, str]) -> web.Response:
    """Return the JSON document of one error."""
    allowed = {"Allow": ALLOWED} if code is ErrorCode.UNSUPPORTED else {}
    return web.Response(
        body=msgspec.json.encode({"errors": [{"code": code, "message": message, "detail": None}]}),
        status=status,
        content_type="application/json",
        headers={**base_headers(None), **headers, **allowed},
    )
