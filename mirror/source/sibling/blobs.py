"""Blobs of a sibling: of a file that it has, or of one that still grows there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection

import aiohttp

from mirror.fleet import Sibling
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.pace import Pace
from mirror.source.sibling.client import SILENT_SECONDS, Reply, SiblingClient, SiblingError
from mirror.source.stream import RangeMistaken, RangeRefused
from mirror.source.upstream.body import left_over
from mirror.source.upstream.failures import failure_of

# For how long a sibling's own source may take to confirm a blob.
_COMING_SECONDS = 10.0
# What a fill withholds until its blob verified.
_TAIL = 64 * 2**10
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


class SiblingBlobs:
    """One sibling as a source of blobs."""

    def __init__(self, client: SiblingClient, sibling: Sibling, pace: Pace, followers: Collection[str]) -> None:
        """Ask `sibling` for what `followers` read from this replica."""
        self.sibling = sibling
        self._client = client
        self._pace = pace
        self._followers = followers

    @property
    def label(self) -> str:
        """Nothing: metrics know siblings by their region alone."""
        return ""

    @property
    def pace(self) -> Pace:
        """How many connections to it pay."""
        return self._pace

    async def open(self, repository: Repository, digest: Digest, start: int, stop: int | None = None) -> SiblingBlob:
        """Return a stream of a blob from `start` up to `stop`, or all of it while the sibling does not know its size.

        Raises:
            RegistryError: it has no such blob (BLOB_UNKNOWN, no failure), or failed.
            RangeRefused: the blob does not reach to `start`.
            RangeMistaken: it answered with another range.
        """
        ranges = f"bytes={start}-{'' if stop is None else stop - 1}" if start or stop is not None else ""
        reply = await self._reply(f"/v2/{repository}/blobs/{digest}", ranges)
        answer = reply.answer
        try:
            if answer.status == 404:
                self._client.lacks(self.sibling, digest)
                raise RegistryError(ErrorCode.BLOB_UNKNOWN, f"replica {self.sibling.label} does not have {digest}")
            if answer.status == 416:
                raise RangeRefused(f"replica {self.sibling.label}")
            if answer.status == 200:
                size = answer.content_length
                return SiblingBlob(self._client, self.sibling, reply, 0, size, size)
            if answer.status != 206:
                raise SiblingError(self.sibling, f"answered with status {answer.status}", Failure.SERVER)
            return self._part(reply, start, stop)
        except RegistryError:
            answer.close()
            raise

    async def _reply(self, target: str, ranges: str) -> Reply:
        """Ask, and again while the sibling's own fill has yet to find the blob."""
        deadline = time.monotonic() + _COMING_SECONDS
        while True:
            began = time.monotonic()
            reply = await self._client.ask(self.sibling, "GET", target, ranges, self._followers)
            self._pace.answered(time.monotonic() - began)
            is_coming = reply.answer.status == 503 and reply.answer.headers.get("Retry-After") == "0"
            if not is_coming or time.monotonic() > deadline:
                return reply
            reply.answer.release()

    def _part(self, reply: Reply, start: int, stop: int | None) -> SiblingBlob:
        match = _CONTENT_RANGE.fullmatch(reply.answer.headers.get("Content-Range", ""))
        first, last, size = map(int, match.groups()) if match is not None else (-1, -1, -1)
        end = size if stop is None else min(stop, size)
        if not first == start < end == last + 1:
            raise RangeMistaken(self.sibling.label)
        return SiblingBlob(self._client, self.sibling, reply, start, end, size)


class SiblingBlob:
    """An open answer; `chain` names whom its bytes come from, nearest first, and `is_growing` if the file does."""

    def __init__(
        self,
        client: SiblingClient,
        sibling: Sibling,
        reply: Reply,
        start: int,
        stop: int | None,
        size: int | None,
    ) -> None:
        self.start, self.stop, self.size = start, stop, size
        self.waiting_since: float | None = None
        self.chain, self.is_growing = reply.chain, reply.is_growing
        self._client = client
        self._sibling = sibling
        self._answer = reply.answer
        self._offset = start

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the answer broke off; every byte that arrived before was returned first.
        """
        if not self._is_withheld:
            self.waiting_since = time.monotonic()
        try:
            piece = await self._next()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            piece = left_over(self._answer.content)
            if not piece:
                self._client.failed(self._sibling.identity)
                raise SiblingError(self._sibling, "broke off", failure_of(error)) from None
        finally:
            self.waiting_since = None
        self._offset += len(piece)
        self._client.received(self._sibling, len(piece))
        if not piece:
            self._client.worked(self._sibling.identity)
        return piece

    async def close(self, *, is_wrong: bool = False) -> None:
        """End the answer, whole or not; `is_wrong` if it is not what was asked for."""
        if is_wrong:
            self._client.failed(self._sibling.identity)
        self._answer.close()

    @property
    def _is_withheld(self) -> bool:
        """Whether what comes next is what the sibling may not show yet."""
        return self.is_growing and self.size is not None and self._offset >= self.size - _TAIL

    async def _next(self) -> bytes:
        """Wait for the next bytes, for as long as the sibling lives: a file that grows may grow elsewhere."""
        content = self._answer.content
        while True:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    return await content.readany()
            except TimeoutError:
                if not await self._client.lives(self._sibling):
                    raise
