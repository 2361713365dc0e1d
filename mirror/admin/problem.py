"""What the API answers where it cannot do what was asked: one shape, one clear sentence."""

from __future__ import annotations

import msgspec
from aiohttp import web


class Error(msgspec.Struct, frozen=True):
    """What went wrong, and what to do."""

    error: str


class Problem(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text

    @property
    def response(self) -> web.Response:
        """The answer."""
        headers = {"WWW-Authenticate": 'Bearer realm="layover"'} if self.status == 401 else {}
        return answer(Error(self.text), self.status, headers)


def answer(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a value as JSON."""
    told = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return web.Response(
        body=msgspec.json.encode(value, enc_hook=str), status=status, content_type="application/json", headers=told
    )
