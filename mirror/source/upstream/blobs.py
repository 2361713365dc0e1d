"""Blobs of an upstream, from any offset on."""

from __future__ import annotations

import asyncio
import re

import aiohttp

from mirror.config import Upstream
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.stream import BlobStream, RangeRefused
from mirror.source.upstream import failures
from mirror.source.upstream.ask import FIRST_BYTE, Ask
from mirror.source.upstream.client import UpstreamClient

# A connection that is silent for so long is better replaced by another.
STALL_SECONDS = 4.0
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class UpstreamBlobs:
    """The blobs of one upstream, as a source."""

    def __init__(self, client: UpstreamClient, upstream: Upstream) -> None:
        self._client = client
        self._upstream = upstream
        self._broken: set[str] = set()

    @property
    def label(self) -> str:
        """The upstream's configured name."""
        return self._upstream.label

    async def open(self, repository: Repository, digest: Digest, start: int) -> BlobStream:
        """Return a stream of a blob from `start` on, or from 0 if the upstream answers a range with the whole.

        Raises:
            RegistryError: the upstream has no such blob, or failed.
            RangeRefused: the blob does not reach to `start`.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        ask = Ask(self._upstream, repository, "blob", "GET", f"blobs/{digest}", ErrorCode.BLOB_UNKNOWN, headers)
        while True:
            answer, base = await self._client.open(ask._replace(avoided=frozenset(self._broken)))
            try:
                first, size = self._place(answer, start)
            except RegistryError:
                answer.close()
                if not base:
                    raise
                self._broken.add(base)
                continue
            return UpstreamBlob(self, digest, answer, base, first, size)

    def _place(self, answer: aiohttp.ClientResponse, start: int) -> tuple[int, int | None]:
        """Return the offset of an answer's first byte, and the whole blob's size."""
        if answer.status == 416:
            if start:
                raise RangeRefused(self.label)
            raise failures.refusal(self._upstream, 416, answer.headers, b"", ErrorCode.BLOB_UNKNOWN)
        if answer.status == 200:
            return 0, answer.content_length
        size = _exact_range(answer.headers.get("Content-Range", ""), start)
        if size is None:
            raise failures.unusable(self._upstream, "answered with another range than it was asked for", 206)
        return start, size

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
        """Have an endpoint not asked to go on; `is_wrong` if nobody wanted to read what is not what was asked for."""
        self._broken.add(stream.base)
        if is_wrong:
            self._client.distrust(self._upstream, stream.digest, stream.base)

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
        start: int,
        size: int | None,
    ) -> None:
        self.digest = digest
        self.base = base
        self.start = start
        self.size = size
        self._source = source
        self._answer = answer
        self._is_wanted = False

    @property
    def host(self) -> str:
        """Where the bytes come from."""
        return self._answer.url.authority

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the answer broke off; every byte that arrived before was returned first.
        """
        self._is_wanted = True
        most = self._source.piece
        try:
            async with asyncio.timeout(STALL_SECONDS):
                piece = await (self._answer.content.readany() if most is None else self._answer.content.read(most))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            piece = _left_over(self._answer.content)
            if not piece:
                raise self._source.broke(self, failures.failure_of(error)) from None
        await self._source.received(len(piece))
        return piece

    async def close(self) -> None:
        """End the answer, whole or not."""
        if self.base and not self._answer.content.at_eof():
            self._source.given_up(self, is_wrong=not self._is_wanted and self.size is not None)
        self._answer.close()


def _left_over(content: aiohttp.StreamReader) -> bytes:
    """Take what arrived before the connection broke.

    aiohttp raises the error first and would lose these bytes: they would be fetched twice.
    """
    pieces = b"".join(content._buffer)[content._buffer_offset :]  # noqa: SLF001
    content._buffer.clear()  # noqa: SLF001
    content._buffer_offset = 0  # noqa: SLF001
    return pieces


def _exact_range(text: str, start: int) -> int | None:
    """Return the whole size if a Content-Range is the one from `start` to the end (RFC 9110 §14.4)."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last, size = map(int, match.groups())
    return size if first == start and last == size - 1 else None
