"""A blob's bytes in order, from the first source that has them, resumed underneath when it breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source import BlobSource, BlobStream, RangeRefused

TAIL = 64 * 2**10
_MOST_FRUITLESS = 6
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 4.0
_RETRY_AFTER = 10
# A connection that brings less than this is given up, and a source that does so again and again.
_LEAST_BYTES = 1024
_LEAST_SECONDS = 10.0
_MOST_CRAWLS = 3


class Transfer:
    """One pass over a blob. `size` is what the sources agree on, None while unknown; `offset` is the next byte's."""

    def __init__(self, sources: Sequence[BlobSource], repository: Repository, digest: Digest, size: int | None) -> None:
        """Prepare to read from `sources`, in that order; `size` is what the descriptor says."""
        self._sources = sources
        self._repository = repository
        self._digest = digest
        self.size = size
        self.offset = 0
        self._stream: BlobStream | None = None
        self._skip = 0
        self._fruitless = 0
        self._crawls = 0
        self._measured_at = 0.0
        self._measured_from = 0

    async def open(self, start: int) -> None:
        """Open the first source that has the blob, to read from `start` on.

        Raises:
            RegistryError: none has it; the last source's error.
            RangeRefused: a source says that the blob ends before `start`.
        """
        await self.close()
        self.offset = start
        last: RegistryError | None = None
        for source in self._sources:
            try:
                stream = await source.open(self._repository, self._digest, start)
            except RangeRefused:
                raise
            except RegistryError as error:
                last = error
                continue
            if stream.size is not None and self.size is not None and stream.size != self.size:
                await stream.close()
                last = WrongSize(source.label, stream.size, self.size)
                continue
            if self.size is None:
                self.size = stream.size
            self._stream = stream
            self._skip = start - stream.start
            self._measured_at, self._measured_from = time.monotonic(), self.offset
            return
        raise last or RegistryError(ErrorCode.BLOB_UNKNOWN, "no source has the blob")

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the sources failed again and again without a byte of progress, or sent more than the size.
            RangeRefused: a source says that the blob ends before the offset.
        """
        while True:
            assert self._stream is not None, "read before open"
            try:
                piece = await self._stream.read()
            except RegistryError as error:
                await self._resume(error)
                continue
            if not piece:
                if self.size is None:
                    self.size = self.offset
                if self.offset >= self.size:
                    return b""
                await self._resume(_too_short(self.offset, self.size))
                continue
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = piece[skipped:] if skipped else piece
            if piece and not self._crawled():
                return self._took(piece)
            if piece:
                await self._resume(_crawling())

    def rested(self) -> None:
        """Hold the time since the last read against nobody."""
        self._measured_at, self._measured_from = time.monotonic(), self.offset

    async def close(self) -> None:
        """End the transfer, whole or not."""
        if self._stream is not None:
            await self._stream.close()
            self._stream = None

    def _took(self, piece: bytes) -> bytes:
        self._fruitless = 0
        self.offset += len(piece)
        if self.size is not None and self.offset > self.size:
            raise WrongSize("the source", self.offset, self.size)
        return piece

    def _crawled(self) -> bool:
        """Say whether the connection brings next to nothing, so that another is worth a try.

        Raises:
            RegistryError: others did no better.
        """
        now = time.monotonic()
        if now < self._measured_at + _LEAST_SECONDS:
            return False
        crawls = self.offset < self._measured_from + _LEAST_BYTES and self._skip == 0
        self._measured_at, self._measured_from = now, self.offset
        self._crawls = self._crawls + 1 if crawls else 0
        if self._crawls >= _MOST_CRAWLS:
            raise _crawling()
        return crawls

    async def _resume(self, error: RegistryError) -> None:
        """Open a source again at the offset; only attempts that bring no byte count against the transfer."""
        await self.close()
        while True:
            self._fruitless += 1
            if self._fruitless > _MOST_FRUITLESS:
                raise error
            if self._fruitless > 1:
                await asyncio.sleep(min(_FIRST_PAUSE * 2**self._fruitless, _LONGEST_PAUSE))
            try:
                await self.open(self.offset)
                return
            except RangeRefused:
                raise
            except RegistryError as again:
                if again.failure is None:
                    raise
                error = again


class WrongSize(RegistryError):
    """A source has more or fewer bytes than the descriptor, or what came before, says."""

    def __init__(self, label: str, found: int, expected: int) -> None:
        text = f"{label} has {found} bytes for a blob of {expected}"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=_RETRY_AFTER)


def _crawling() -> RegistryError:
    text = "the source sends next to nothing"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.TIMEOUT, retry_after=_RETRY_AFTER)


def _too_short(offset: int, size: int) -> RegistryError:
    text = f"the source ended after {offset} of {size} bytes"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.RESET, retry_after=_RETRY_AFTER)
