"""Answers to blob requests, on the registry's origin and on the CDN's."""

from __future__ import annotations

import re
from pathlib import Path

from aiohttp import web

from tests.upstream.counters import Span
from tests.upstream.floods import marks
from tests.upstream.problems import not_found
from tests.upstream.redirects import Redirects
from tests.upstream.routes import Route
from tests.upstream.site import Site
from tests.upstream.transfers import RawResponse, Sender, Transfer

_RANGE = re.compile(r"bytes=(?=\d|-\d)(\d*)-(\d*)")


class Blobs:
    """Serves blobs from the storage's files."""

    def __init__(self, site: Site, redirects: Redirects) -> None:
        self._site = site
        self._redirects = redirects
        self._sender = Sender(site)

    async def registry(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Answer on the registry's origin: the bytes, or a redirect to them."""
        dials = self._site.dials
        repository = self._site.storage.repositories.get(route.repository)
        if repository is None or route.digest not in repository.blobs:
            return not_found(dials, "BLOB_UNKNOWN", f"blob {route.digest} is unknown to {route.repository}")
        if dials.redirect and (request.method == "GET" or dials.redirect_head):
            return self._redirects.blob(route, dials.redirect_hops)
        return await self._serve(request, route)

    async def storage(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Answer to a signed URL."""
        refusal = self._redirects.refusal(request, route)
        if refusal is not None:
            return refusal
        if not self._site.storage.path(route.digest).exists():
            return web.Response(status=404)
        return await self._serve(request, route)

    async def _serve(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        dials = self._site.dials
        faulty = dials.blob_digests is None or route.digest in dials.blob_digests
        path = self._file(route.digest, faulty=faulty)
        packed = dials.blob_gzip and faulty and "gzip" in request.headers.get("Accept-Encoding", "")
        if packed:
            path = self._site.storage.gzipped(path)
        size = path.stat().st_size
        asked = None if packed else self._asked(request)
        span = _span(asked, size)
        if span is None or (asked and dials.blob_ranges == "refused"):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        if asked and dials.blob_ranges == "shifted":
            span = Span(span.start - 1, span.end - 1) if span.start else Span(1, span.end)
        length = dials.blob_length if faulty else "announced"
        if request.method == "HEAD":
            length = "announced"
        headers = self._headers(route, span, length)
        if packed:
            headers["Content-Encoding"] = "gzip"
        if asked:
            headers["Content-Range"] = _content_range(span, size, shift=int(dials.blob_ranges == "wrong"))
        response = RawResponse(status=206 if asked else 200, headers=headers)
        if request.method == "HEAD":
            return response
        transfer = Transfer(
            path=path,
            digest=route.digest,
            span=span,
            chunked=length == "chunked",
            close=length == "close",
            extra=max(0, dials.blob_extra) if faulty else 0,
            faulty=faulty and not packed,
        )
        return await self._sender.send(request, response, transfer)

    def _headers(self, route: Route, span: Span, length: str) -> dict[str, str]:
        dials = self._site.dials
        headers = {"Content-Type": dials.blob_type, "Accept-Ranges": "bytes", **marks(dials, route.kind)}
        if dials.blob_digest_header:
            headers["Docker-Content-Digest"] = route.digest
        if length == "announced":
            headers["Content-Length"] = str(span.end - span.start)
        elif length == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Connection"] = "close"
        return headers

    def _file(self, digest: str, *, faulty: bool) -> Path:
        dials, storage = self._site.dials, self._site.storage
        path = storage.corrupted(digest) if dials.blob_corrupt and faulty else storage.path(digest)
        return storage.resized(path, dials.blob_resize) if dials.blob_resize and faulty else path

    def _asked(self, request: web.BaseRequest) -> re.Match[str] | None:
        """Return the range asked for, if it is one that this server heeds: a single one."""
        if self._site.dials.blob_ranges == "ignored":
            return None
        return _RANGE.fullmatch(request.headers.get("Range", ""))


def _span(asked: re.Match[str] | None, size: int) -> Span | None:
    """Return the bytes to send; None when there are none to send."""
    if asked is None:
        return Span(0, size)
    first, last = asked.groups()
    if not first:
        return Span(max(0, size - int(last)), size) if int(last) and size else None
    end = min(int(last) + 1, size) if last else size
    return Span(int(first), end) if int(first) < end else None


def _content_range(span: Span, size: int, *, shift: int) -> str:
    return f"bytes {span.start + shift}-{span.end - 1 + shift}/{size + shift}"
