"""A registry as the last source of a blob, and what siblings of the test's own have of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from mirror.fill import Fleet, Leads, Supply
from mirror.fleet import Claim, Filler
from mirror.fleet.signature import PROOF, SIGNATURE, parse, prove
from mirror.observe.metrics import HubMetrics, Registry, new_registry
from mirror.oci.digest import Digest
from mirror.source.sibling import Siblings
from tests.source.conftest import APP, HOST, Source, asking
from tests.source.sibling.impostor import posing
from tests.source.sibling.member import SECRET, Member
from tests.upstream import Upstream


class Knowing(Member):
    """A coordinator that knows that its siblings, and no others, hold every blob."""

    async def claim(self, digest: Digest, suspect: Filler | None = None, *, may_lead: bool = True) -> Claim:
        """Say that all siblings hold it."""
        return Claim(tuple(self.siblings.values()))


class Origin:
    """What blobs come from; `lent` is what a sibling sends for any of them, None for no sibling."""

    def __init__(self, upstream: Upstream, source: Source) -> None:
        self.upstream = upstream
        self.repository = APP
        self.registry: Registry = new_registry()
        self.metrics = HubMetrics(self.registry)
        self.lent: bytes | None = None
        self.member = Knowing("a")
        self.siblings = Siblings(self.member, lambda: SECRET, self.metrics)
        self._source = source

    def push(self, size: int) -> Digest:
        """Push a blob."""
        return Digest(self.upstream.push_random_blob(APP.name, size))

    def supply(self, digest: Digest) -> Supply:
        """Return where a blob comes from."""
        return Supply(Fleet(self.member, Leads(), self.siblings), self._source.blobs, digest)

    def mismatches(self, label: str = HOST) -> float:
        """Return how often what came from an upstream, or from a sibling by no name, was not what it should be."""
        name = "layover_digest_mismatches_total"
        return self.registry.get_sample_value(name, {"upstream": label}) or 0.0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer as the sibling does."""
        assert self.lent is not None
        signature = parse(request.headers[SIGNATURE])
        assert signature is not None
        whole = request.http_range
        start, stop = whole.start or 0, min(whole.stop or len(self.lent), len(self.lent))
        headers = {PROOF: prove(signature, SECRET, None)}
        if "Range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(self.lent)}"
        status = 206 if "Range" in request.headers else 200
        return web.Response(body=self.lent[start:stop], status=status, headers=headers)

    @asynccontextmanager
    async def lending(self, content: bytes) -> AsyncIterator[None]:
        """Have a sibling that sends `content` for every blob."""
        self.lent = content
        async with posing(self.answer) as sibling:
            self.member.siblings = {sibling.identity: sibling}
            yield


@asynccontextmanager
async def opened(upstream: Upstream) -> AsyncIterator[Origin]:
    """Have blobs of a registry, whose dials are put back at the end."""
    upstream.counters.clear()
    async with asking(upstream.url) as source:
        origin = Origin(upstream, source)
        try:
            yield origin
        finally:
            await origin.siblings.close()
            upstream.reset()
            upstream.resume()
