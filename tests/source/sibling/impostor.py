"""Servers where a sibling is said to be, which answer as a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from mirror.fleet import Sibling
from mirror.fleet.signature import PROOF, SIGNATURE, parse, prove
from tests.replica import free_port
from tests.source.sibling.member import SECRET, sibling_at

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def posing(handler: Handler, identity: str = "b") -> AsyncIterator[Sibling]:
    """Run a server where a sibling is said to be."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield sibling_at(f"http://127.0.0.1:{port}", identity, boot=f"boot-{identity}")
    finally:
        await runner.cleanup()


def lying(body: bytes, status: int = 200) -> Handler:
    """Return a sibling that knows the secret, and has other bytes than it says."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        signature = parse(request.headers[SIGNATURE])
        assert signature is not None
        return web.Response(body=body, status=status, headers={PROOF: prove(signature, SECRET, None)})

    return answer
