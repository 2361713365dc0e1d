"""Blobs of an upstream, from any offset on."""

from __future__ import annotations

import re

import aiohttp

from mirror.config import Upstream
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.stream import BlobStream, RangeRefused
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.client import UpstreamClient

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class UpstreamBlobs:
    """The blobs of one upstream, as a source."""

    def __init__(self, client: UpstreamClient, upstream: Upstream) -> None:
        self._client = client
        self._upstream = upstream

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
        answer = await self._client.ask(ask)
        if answer.status == 416:
            answer.close()
            if start:
                raise RangeRefused(self.label)
            raise failures.refusal(self._upstream, 416, answer.headers, b"", ErrorCode.BLOB_UNKNOWN)
        if answer.status == 206:
            size = _exact_range(answer.headers.get("Content-Range", ""), start)
            if size is None:
                answer.close()
                text = f"upstream {self._upstream.name} answered with another range than it was asked for"
                raise RegistryError(
                    ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=failures.RETRY_AFTER
                )
            return UpstreamBlob(self._client, self._upstream, answer, start, size)
        return UpstreamBlob(self._client, self._upstream, answer, 0, answer.content_length)

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
        answer = await self._client.ask(ask._replace(method="GET", headers={"Range": "bytes=0-0"}))
        answer.close()
        if answer.status == 206:
            match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            return int(match[3]) if match is not None else None
        return answer.content_length if answer.status == 200 else None


class UpstreamBlob:
    """One open answer."""

    def __init__(
        self, client: UpstreamClient, upstream: Upstream, answer: aiohttp.ClientResponse, start: int, size: int | None
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._answer = answer
        self.start = start
        self.size = size

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the answer broke off; every byte that arrived before was returned first.
        """
        try:
            piece = await self._answer.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            piece = _left_over(self._answer.content)
            if not piece:
                failure = failures.failure_of(error)
                raise failures.unreachable(self._upstream, self._answer.url.authority, failure) from None
        self._client.received(self._upstream, len(piece))
        return piece

    async def close(self) -> None:
        """End the answer, whole or not."""
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
