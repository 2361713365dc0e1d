"""Answers that no registry gives: without an end, a byte at a time, or swollen."""

from __future__ import annotations

import asyncio
import gzip

from aiohttp import web

from tests.upstream.dials import Dials
from tests.upstream.routes import Kind, Route
from tests.upstream.site import Site

_BLOCK = 2**16
_SWOLLEN = 2**20
_BOMB_MEMBERS = 64
_OPENING = b'{"schemaVersion": 2, "token": "endless", "tags": [], "manifests": [], "padding": "'


class Floods:
    """Gives such answers, instead of the real ones, to the kinds of request that the dials name."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._bomb = b""

    async def answer(self, request: web.BaseRequest, route: Route) -> web.StreamResponse | None:
        """Return the answer, or never, while the client stays; None where the real answer is due."""
        dials = self._site.dials
        if _named(dials.drip_headers, route.kind):
            await self._drip(request, b"HTTP/1.1 200 OK\r\nX-Drip: ")
        if request.method == "HEAD":
            return None
        if _named(dials.drip_body, route.kind):
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {_SWOLLEN}\r\n\r\n"
            await self._drip(request, head.encode())
        if _named(dials.endless, route.kind):
            return await self._flood(request)
        if _named(dials.gzip_bomb, route.kind):
            self._bomb = self._bomb or gzip.compress(bytes(2**30 // _BOMB_MEMBERS), mtime=0) * _BOMB_MEMBERS
            headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
            return web.Response(body=self._bomb, headers=headers)
        return None

    async def _flood(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        block = _OPENING.ljust(_BLOCK, b"x")
        while True:
            await response.write(block)
            self._site.counters.flood(len(block))
            block = b"x" * _BLOCK
            await asyncio.sleep(0)

    async def _drip(self, request: web.BaseRequest, head: bytes) -> None:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        transport.write(head)
        for _ in range(_SWOLLEN):
            transport.write(b"x")
            await asyncio.sleep(self._site.dials.drip_seconds)
        await asyncio.Event().wait()


def marks(dials: Dials, kind: Kind) -> dict[str, str]:
    """Return the headers that the dials add to every answer of a kind."""
    found = {} if dials.cookie is None else {"Set-Cookie": dials.cookie}
    if _named(dials.heavy_headers, kind):
        size = dials.heavy_header_line
        found |= {f"X-Filler-{number}": "x" * size for number in range(max(1, _SWOLLEN // size))}
    return found


def _named(kinds: set[str], kind: Kind) -> bool:
    return kind in kinds or "*" in kinds
