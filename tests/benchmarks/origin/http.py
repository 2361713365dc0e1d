"""Just enough HTTP/1.1 to be a registry's pull side: requests without bodies over connections that stay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from http import HTTPStatus
from typing import NamedTuple

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Request(NamedTuple):
    """A request's method, path, query and headers (names in lower case)."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Return the next request of a connection, or None when there is none."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        path, _, query = target.partition("?")
        pairs = (line.partition(":") for line in lines)
        return Request(method, path, query, {name.lower(): value.strip() for name, _, value in pairs})
    return None


def head(status: int, headers: dict[str, object]) -> bytes:
    """Return the head of a response."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(status: int, document: object, headers: dict[str, object] | None = None) -> bytes:
    """Return a whole response with a JSON body."""
    body = json.dumps(document).encode()
    return head(status, {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})}) + body


def span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last that a Range header asks for, or None without a single range.

    A range with nothing in it is (0, 0).
    """
    asked = _RANGE.fullmatch(header or "")
    if asked is None or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    if not first:
        return max(0, size - int(last)), size
    start, stop = int(first), min(int(last) + 1, size) if last else size
    return (start, stop) if start < stop else (0, 0)
