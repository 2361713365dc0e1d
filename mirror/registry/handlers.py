"""What each kind of request is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from aiohttp import HttpVersion11, web

from mirror.observe.cache_status import Outcome
from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.pull import BlobBody, Pull
from mirror.registry import responses
from mirror.registry.ranges import RangeInvalid, Span, is_multiple, parse_range
from mirror.registry.routing import Kind, Target
from mirror.registry.sender import Sender
from mirror.registry.transmit import Transmission

_MOST_LISTED = 1000


class Answer(NamedTuple):
    """An answer to be sent, or sent already.

    `sent` counts body bytes; `cut` is why the body ended early, if it did; `first_byte` is the seconds from the
    handler's start to the head of an answer that was sent already; `refused` is what an error tells the client.
    """

    response: web.StreamResponse
    outcome: Outcome
    sent: int
    cut: Exception | None = None
    first_byte: float | None = None
    refused: str | None = None


class Handlers:
    """Answers requests that were parsed."""

    def __init__(self, pull: Pull, disk: Executor) -> None:
        self._pull = pull
        self._disk = disk
        self._sender = Sender(disk)

    def close(self) -> None:
        """Free what was opened to send; nothing is answered any more."""
        self._sender.close()

    async def answer(self, request: web.BaseRequest, target: Target) -> Answer:
        """Return the answer to a GET or HEAD.

        Raises:
            RegistryError: what the client is to be told instead.
            ConnectionError: the client is gone.
        """
        if target.kind is Kind.MANIFEST:
            return await self._manifest(request, target)
        if target.kind is Kind.BLOB:
            return await self._blob(request, target)
        if target.kind is Kind.CATALOG:
            return await self._catalog(target)
        if target.kind is Kind.PING:
            return _plain(b"{}", media_types.JSON, responses.base_headers(target))
        return await self._listing(target)

    async def _manifest(self, request: web.BaseRequest, target: Target) -> Answer:
        assert target.repository is not None
        assert target.reference is not None
        found = await self._pull.manifest(target.repository, target.reference)
        headers = responses.content_headers(target, found.digest, found.media_type, found.status)
        asked = request.headers
        if responses.is_not_modified(asked.get("If-None-Match"), found.digest):
            return Answer(web.Response(status=304, headers=headers), found.status.outcome, 0)
        if request.method == "GET":
            self._pull.pulled(target.repository, found.digest)
        body, status = found.body, 200
        ranges = asked.get("Range")
        if (
            ranges is not None
            and request.method == "GET"
            and responses.ranges_apply(asked.get("If-Range"), found.digest)
        ):
            status, body = _cut(ranges, body, headers)
        response = web.Response(body=body, status=status, headers=headers)
        return Answer(response, found.status.outcome, 0 if request.method == "HEAD" else len(body))

    async def _blob(self, request: web.BaseRequest, target: Target) -> Answer:
        assert target.repository is not None
        assert isinstance(target.reference, Digest)
        if request.method == "HEAD":
            return await self._blob_head(request, target, target.reference)
        body = await self._pull.blob(target.repository, target.reference)
        try:
            return await self._blob_body(request, target, target.reference, body)
        finally:
            await body.close()

    async def _blob_head(self, request: web.BaseRequest, target: Target, digest: Digest) -> Answer:
        assert target.repository is not None
        found = await self._pull.blob_size(target.repository, digest)
        headers = responses.content_headers(target, digest, media_types.OCTET_STREAM, found.status)
        if responses.is_not_modified(request.headers.get("If-None-Match"), digest):
            return Answer(web.Response(status=304, headers=headers), found.status.outcome, 0)
        response = web.StreamResponse(headers=headers)
        response.content_length = found.size
        return Answer(response, found.status.outcome, 0)

    async def _blob_body(self, request: web.BaseRequest, target: Target, digest: Digest, body: BlobBody) -> Answer:
        asked = request.headers
        headers = responses.content_headers(target, digest, media_types.OCTET_STREAM, body.status)
        if responses.is_not_modified(asked.get("If-None-Match"), digest):
            return Answer(web.Response(status=304, headers=headers), body.status.outcome, 0)
        ranges = asked.get("Range") if responses.ranges_apply(asked.get("If-Range"), digest) else None
        return await self.send(request, headers, body, ranges)

    async def send(
        self, request: web.BaseRequest, headers: dict[str, str], body: BlobBody, ranges: str | None
    ) -> Answer:
        """Send a blob, or what a Range header asks of it; `headers` are those of the whole.

        Raises:
            RegistryError: it cannot be had, or has no such ranges.
        """
        spans = None
        if body.size is not None and (body.is_stored or not is_multiple(ranges)):
            spans = _spans(ranges, body.size)
        if spans is None:
            return await self._whole(request, headers, body)
        assert body.size is not None
        if not is_multiple(ranges):
            headers["Content-Range"] = f"bytes {spans[0].start}-{spans[0].stop - 1}/{body.size}"
            return await self._spans(request, headers, body, spans, spans[0].stop - spans[0].start)
        parts = responses.multipart(spans, body.size, media_types.OCTET_STREAM)
        headers["Content-Type"] = parts.media_type
        return await self._spans(request, headers, body, spans, parts.length, parts)

    async def _whole(self, request: web.BaseRequest, headers: Mapping[str, str], body: BlobBody) -> Answer:
        outcome = body.status.outcome
        await body.confirm(0)
        data = body.read_small()
        if data is not None:
            return Answer(web.Response(body=data, headers=headers), outcome, len(data))
        response = web.StreamResponse(headers=headers)
        if body.size is None and request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        elif body.size is None:
            response.force_close()
        else:
            response.content_length = body.size
        async with Transmission(request, response, self._disk, self._sender) as transmission:
            await transmission.send(body.pieces(0, body.size))
        return _sent(response, outcome, transmission)

    async def _spans(
        self,
        request: web.BaseRequest,
        headers: Mapping[str, str],
        body: BlobBody,
        spans: list[Span],
        length: int,
        parts: responses.Multipart | None = None,
    ) -> Answer:
        await body.confirm(spans[0].start)
        response = web.StreamResponse(status=206, headers=headers)
        response.content_length = length
        async with Transmission(request, response, self._disk, self._sender) as transmission:
            for place, span in enumerate(spans):
                if parts is not None:
                    await transmission.write(parts.heads[place])
                await transmission.send(body.pieces(span.start, span.stop))
            if parts is not None:
                await transmission.write(parts.end)
        return _sent(response, body.status.outcome, transmission)

    async def _listing(self, target: Target) -> Answer:
        assert target.repository is not None
        if target.kind is Kind.TAGS:
            page = await self._pull.tags(target.repository, _tags_query(target.query))
        else:
            assert isinstance(target.reference, Digest)
            page = await self._pull.referrers(target.repository, target.reference, target.query)
        headers = {**responses.base_headers(target), "Cache-Status": page.status.header()}
        if page.status.age is not None:
            headers["Age"] = str(page.status.age)
        if page.next_query is not None:
            headers["Link"] = _link(target, page.next_query)
        if page.filters_applied is not None:
            headers["OCI-Filters-Applied"] = page.filters_applied
        return _plain(page.body, page.media_type, headers, page.status.outcome)

    async def _catalog(self, target: Target) -> Answer:
        fields = dict(parse_qsl(target.query, keep_blank_values=True))
        count = _count(fields.get("n"), _MOST_LISTED)
        last = fields.get("last", "")
        names = await asyncio.get_running_loop().run_in_executor(self._disk, self._pull.repositories)
        after = [name for name in names if name > last]
        page = after[:count]
        headers = responses.base_headers(target)
        if page and len(after) > count:
            headers["Link"] = _link(target, urlencode({"n": count, "last": page[-1]}))
        return _plain(msgspec.json.encode({"repositories": page}), media_types.JSON, headers)


def _sent(response: web.StreamResponse, outcome: Outcome, transmission: Transmission) -> Answer:
    return Answer(response, outcome, transmission.sent, transmission.cut, transmission.first_byte)


def _plain(body: bytes, media_type: str, headers: Mapping[str, str], outcome: Outcome = Outcome.HIT) -> Answer:
    response = web.Response(body=body, headers={**headers, "Content-Type": media_type})
    return Answer(response, outcome, len(body))


def _spans(ranges: str | None, size: int) -> list[Span] | None:
    try:
        return parse_range(ranges, size)
    except RangeInvalid:
        raise RangeNotSatisfiable(size) from None


def _cut(ranges: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body for ranges of a manifest, and set the headers that go with them."""
    spans = _spans(ranges, len(body))
    if spans is None:
        return 200, body
    if not is_multiple(ranges):
        headers["Content-Range"] = f"bytes {spans[0].start}-{spans[0].stop - 1}/{len(body)}"
        return 206, body[spans[0].start : spans[0].stop]
    parts = responses.multipart(spans, len(body), headers["Content-Type"])
    headers["Content-Type"] = parts.media_type
    pieces = [head + body[span.start : span.stop] for head, span in zip(parts.heads, spans, strict=True)]
    return 206, b"".join(pieces) + parts.end


class RangeNotSatisfiable(RegistryError):
    """The ranges asked for are malformed or lie beyond the end of `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(ErrorCode.RANGE_INVALID, f"the range asked for cannot be had of {size} bytes")
        self.size = size


def _tags_query(query: str) -> str:
    fields = parse_qsl(query, keep_blank_values=True)
    for key, value in fields:
        if key == "n":
            _count(value, 0)
    return query


def _count(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal():
        raise RegistryError(ErrorCode.NAME_INVALID, f"n is {text[:20]!r}: it must be a whole number")
    return int(text[:9])


def _link(target: Target, query: str) -> str:
    """Return the Link to the next page: relative, by the way that the client asked, `ns` included (RFC 8288)."""
    if target.namespace is not None:
        query = f"{query}&{urlencode({'ns': target.namespace})}"
    # More than one slash at the start would lead to another host.
    return f'</{target.path.lstrip("/")}?{query}>; rel="next"'
