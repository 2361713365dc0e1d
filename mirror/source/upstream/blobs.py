"""Blobs of an upstream, from any offset on."""

from __future__ import annotations

import asyncio
import re
import time
from typing import NamedTuple

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.pace import Pace
from mirror.source.stream import BlobStream, RangeMistaken, RangeRefused
from mirror.source.upstream import failures
from mirror.source.upstream.ask import FIRST_BYTE, Ask
from mirror.source.upstream.body import left_over
from mirror.source.upstream.client import Opened, UpstreamClient
from mirror.source.upstream.failures import UpstreamError

# A connection that is silent for so long is better replaced by another.
STALL_SECONDS = 4.0
# Where signed URLs are good for one request, asking there again is a waste.
_MOST_USELESS_PLACES = 2
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class _Span(NamedTuple):
    """The bytes that an answer brings, and how many the blob has; None while unknown."""

    start: int
    stop: int | None
    size: int | None


class _Place(NamedTuple):
    """Where the answer to a request came from in the end, a signed URL most often, and the endpoint that led there."""

    asked: tuple[Repository, str]
    url: URL
    base: str


class UpstreamBlobs:
    """The blobs of one upstream, as a source for one fill: where the blob was found, its other ranges are asked for."""

    def __init__(self, client: UpstreamClient, upstream: Upstream) -> None:
        self._client = client
        self._upstream = upstream
        self._broken: set[str] = set()
        self._place: _Place | None = None
        self._spent_place: _Place | None = None
        self._finding = asyncio.Lock()
        self._useless_places = 0

    @property
    def label(self) -> str:
        """The upstream's configured name."""
        return self._upstream.label

    @property
    def pace(self) -> Pace:
        """How many connections to it pay."""
        return self._client.pace(self._upstream)

    async def open(self, repository: Repository, digest: Digest, start: int, stop: int | None = None) -> BlobStream:
        """Return a stream of a blob from `start` up to `stop`, or all of it if the upstream answers a range with that.

        Raises:
            RegistryError: the upstream has no such blob, or failed.
            RangeRefused: the blob does not reach to `start`.
            RangeMistaken: the upstream answered with another range.
        """
        headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else {}
        ask = Ask(self._upstream, repository, "blob", "GET", f"blobs/{digest}", ErrorCode.BLOB_UNKNOWN, headers)
        while True:
            asked = ask._replace(avoided=frozenset(self._broken))
            # What goes on where a stream broke off is asked for anew: it may have been for where that came from.
            began = time.monotonic()
            answer, base = await (self._find(asked) if stop is None else self._ask(asked))
            self.pace.answered(time.monotonic() - began)
            try:
                span = self._span(answer, start, stop)
            except RegistryError:
                answer.close()
                if not base:
                    raise
                self._avoid(base)
                continue
            return UpstreamBlob(self, digest, answer, base, span)

    async def _ask(self, ask: Ask) -> Opened:
        """Return an open answer from where the one before came from, or from wherever the upstream leads now."""
        place = self._place
        if place is None or place.asked != (ask.repository, ask.path):
            return await self._find(ask)
        if place is not self._spent_place:
            try:
                answer = await self._client.open_there(ask._replace(base=place.base), place.url)
            except UpstreamError as error:
                if error.answered != 429:
                    self._spent_place = place
                if error.answered == 429 or error.answered >= 500:
                    raise
            else:
                self._useless_places = 0
                return Opened(answer, place.base)
        async with self._finding:
            if self._place is place:
                self._useless_places += 1
                return await self._find(ask)
        return await self._ask(ask)

    async def _find(self, ask: Ask) -> Opened:
        answer, base = opened = await self._client.open(ask)
        own = URL(base or self._upstream.url, encoded=True).origin()
        is_elsewhere = answer.url.origin() != own and self._useless_places < _MOST_USELESS_PLACES
        self._place = _Place((ask.repository, ask.path), answer.url, base) if is_elsewhere else None
        return opened

    def _span(self, answer: aiohttp.ClientResponse, start: int, stop: int | None) -> _Span:
        """Return which bytes an answer to a range brings."""
        if answer.status == 416:
            if start or stop is not None:
                raise RangeRefused(self.label)
            raise failures.refusal(self._upstream, 416, answer.headers, b"", ErrorCode.BLOB_UNKNOWN)
        if answer.status == 200:
            return _Span(0, answer.content_length, answer.content_length)
        span = _exact_range(answer.headers.get("Content-Range", ""), start, stop)
        if span is None:
            raise RangeMistaken(self._upstream.name)
        return span

    async def size(self, repository: Repository, digest: Digest) -> int | None:
        """Return a blob's size as the upstream tells it; None if it has the blob but not its size.

        Raises:
            RegistryError: the upstream has no such blob, or failed.
        """
        ask = Ask(self._upstream, repository, "blob", "HEAD", f"blobs/{digest}", ErrorCode.BLOB_UNKNOWN)
        try:
            answer = await self._client.ask(ask)
            answer.close()
            if answer.content_length is not None:
                return answer.content_length
        except RegistryError as error:
            if error.failure not in {Failure.CREDENTIALS, Failure.SERVER}:
                raise
        # Storage behind a registry may refuse HEAD, or tell no length, where a GET of the same blob is allowed.
        answer = await self._client.ask(ask._replace(method="GET", headers=FIRST_BYTE))
        answer.close()
        if answer.status == 206:
            match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            return int(match[3]) if match is not None else None
        return answer.content_length if answer.status == 200 else None

    def broke(self, stream: UpstreamBlob, failure: Failure) -> RegistryError:
        """Return the error for a stream that broke."""
        return failures.unreachable(self._upstream, stream.host, failure)

    async def received(self, amount: int) -> None:
        """Count bytes that arrived, and wait as long as they ought to have taken."""
        self._client.received(self._upstream, amount)
        bandwidth = self._client.bandwidth(self._upstream)
        if bandwidth is not None:
            await bandwidth.pay(amount)

    def given_up(self, stream: UpstreamBlob, *, is_wrong: bool) -> None:
        """Have an endpoint not asked to go on; `is_wrong` if what it sent is not what was asked for."""
        self._avoid(stream.base)
        if is_wrong:
            self._client.distrust(self._upstream, stream.digest, stream.base)

    def _avoid(self, base: str) -> None:
        self._broken.add(base)
        if self._place is not None and self._place.base == base:
            self._place = None

    @property
    def piece(self) -> int | None:
        """The most bytes to read at a time, None for any."""
        bandwidth = self._client.bandwidth(self._upstream)
        return None if bandwidth is None else bandwidth.piece


class UpstreamBlob:
    """One open answer, from the endpoint `base` or from the upstream itself."""

    def __init__(
        self,
        source: UpstreamBlobs,
        digest: Digest,
        answer: aiohttp.ClientResponse,
        base: str,
        span: _Span,
    ) -> None:
        self.digest = digest
        self.base = base
        self.start, self.stop, self.size = span
        self.waiting_since: float | None = None
        self._source = source
        self._answer = answer

    @property
    def host(self) -> str:
        """Where the bytes come from."""
        return self._answer.url.authority

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the answer broke off; every byte that arrived before was returned first.
        """
        most = self._source.piece
        self.waiting_since = time.monotonic()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                piece = await (self._answer.content.readany() if most is None else self._answer.content.read(most))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            piece = left_over(self._answer.content)
            if not piece:
                raise self._source.broke(self, failures.failure_of(error)) from None
        finally:
            self.waiting_since = None
        await self._source.received(len(piece))
        return piece

    async def close(self, *, is_wrong: bool = False) -> None:
        """End the answer, whole or not; `is_wrong` if it is not what was asked for."""
        if self.base and (is_wrong or not self._answer.content.at_eof()):
            self._source.given_up(self, is_wrong=is_wrong)
        self._answer.close()


def _exact_range(text: str, start: int, stop: int | None) -> _Span | None:
    """Return what a Content-Range says if it is the one that was asked for (RFC 9110 §14.4)."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last, size = map(int, match.groups())
    end = size if stop is None else min(stop, size)
    return _Span(start, end, size) if first == start < end and last == end - 1 else None
