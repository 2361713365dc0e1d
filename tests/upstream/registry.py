"""The server's front: every request is counted, then spoiled as the dials say, then answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from tests.upstream.blobs import Blobs
from tests.upstream.challenges import Gatekeeper
from tests.upstream.counters import Received
from tests.upstream.floods import Floods, marks
from tests.upstream.limits import Limits
from tests.upstream.listings import Listings
from tests.upstream.logins import Logins
from tests.upstream.manifests import Manifests
from tests.upstream.problems import failure_answer, problem
from tests.upstream.redirects import Redirects
from tests.upstream.routes import Kind, Origin, Route, parse
from tests.upstream.site import Site
from tests.upstream.tokens import Tokens
from tests.upstream.uploads import Uploads

Answerer = Callable[[web.BaseRequest, Route], Coroutine[Any, Any, web.StreamResponse]]


class Registry:
    """Answers on every origin."""

    def __init__(self, site: Site) -> None:
        self._site = site
        redirects = Redirects(site)
        logins = Logins(site)
        blobs = Blobs(site, redirects)
        listings = Listings(site, redirects)
        self.tokens = Tokens(site, logins)
        self._gatekeeper = Gatekeeper(site, self.tokens, logins)
        self._limits = Limits(site)
        self._floods = Floods(site)
        self._writable: dict[Kind, Answerer] = {
            "manifest": Manifests(site, redirects).answer,
            "upload": Uploads(site).answer,
            "token": self.tokens.answer,
            "exchange": self.tokens.exchange,
        }
        self._readable: dict[Kind, Answerer] = {
            "blob": blobs.registry,
            "cdn": blobs.storage,
            "tags": listings.tags,
            "referrers": listings.referrers,
            "ping": _ping,
            "other": listings.elsewhere,
        }

    async def answer(self, request: web.BaseRequest, origin: Origin) -> web.StreamResponse:
        """Answer one request."""
        route = parse(origin, request.raw_path.partition("?")[0])
        received = Received(origin, request.method, request.raw_path, request.headers.copy())
        self._site.counters.record(route, received)
        if request.method == "POST" and route.kind != "upload":
            self._site.counters.note(origin, (await request.read()).decode(errors="replace"))
        await self._delay(request, route)
        response = self._refusal(request, route) or await self._floods.answer(request, route)
        if response is None:
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            response = await self._dispatch(request, route)
        if not response.prepared:
            response.headers.update(marks(self._site.dials, route.kind))
            response.headers.update(self._limits.marks(route, self._gatekeeper.user(request)))
        return response

    async def _dispatch(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        if route.kind in self._writable:
            return await self._writable[route.kind](request, route)
        if request.method not in ("GET", "HEAD"):
            return problem(405, "UNSUPPORTED", "no such method")
        return await self._readable[route.kind](request, route)

    async def _delay(self, request: web.BaseRequest, route: Route) -> None:
        dials = self._site.dials
        if (route.kind in dials.black_hole or "*" in dials.black_hole) and dials.black_hole_times != 0:
            if dials.black_hole_times is not None:
                dials.black_hole_times -= 1
            await asyncio.Event().wait()
        if (route.kind in dials.hang_up or "*" in dials.hang_up) and dials.hang_up_times != 0 and request.transport:
            if dials.hang_up_times is not None:
                dials.hang_up_times -= 1
            request.transport.abort()
            await asyncio.Event().wait()
        seconds = dials.latency.get(route.kind, dials.latency.get("*", 0.0))
        if seconds:
            await asyncio.sleep(seconds)

    def _refusal(self, request: web.BaseRequest, route: Route) -> web.Response | None:
        for failure in self._site.dials.failures:
            if failure.matches(route.kind, request.method, route.repository, route.reference):
                return failure_answer(failure, route.kind)
        if route.kind in ("token", "exchange", "cdn", "other"):
            return None
        guarded = route.origin in self._site.dials.auth_origins
        refusal = self._gatekeeper.refusal(request, route) if guarded else None
        refusal = refusal or self._missing(request, route)
        return refusal or self._limits.refusal(request, route, self._gatekeeper.user(request))

    def _missing(self, request: web.BaseRequest, route: Route) -> web.Response | None:
        pulls = request.method in ("GET", "HEAD") and route.kind != "upload"
        if pulls and route.repository and route.repository not in self._site.storage.repositories:
            return self._gatekeeper.missing(request, route)
        return None


async def _ping(request: web.BaseRequest, route: Route) -> web.Response:
    headers = {"Docker-Distribution-API-Version": "registry/2.0"}
    return web.Response(text="{}", content_type="application/json", headers=headers)
