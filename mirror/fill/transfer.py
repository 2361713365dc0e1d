"""A blob's bytes in order over one connection at a time, resumed underneath when it breaks."""

from __future__ import annotations

import asyncio
import math
import time

from mirror.fill.lender import SourceLost
from mirror.fill.sources import Sources, WrongSize, crawling, too_short
from mirror.oci.errors import RegistryError
from mirror.source import BlobStream, RangeRefused

MOST_FRUITLESS = 6
# A connection that brings less than this is given up, and a source that does so again and again.
LEAST_BYTES = 1024
LEAST_SECONDS = 10.0
MOST_CRAWLS = 3
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 4.0


class Transfer:
    """One pass over a blob; `offset` is the next byte's."""

    def __init__(self, sources: Sources, offset: int = 0, stream: BlobStream | None = None) -> None:
        """Prepare to read from `sources` from `offset` on; `stream` is what they opened already, there or before."""
        self.offset = offset
        self._sources = sources
        self._stream: BlobStream | None = None
        self._skip = 0
        self._fruitless = 0
        self._crawls = 0
        self._measured_at = 0.0
        self._measured_from = 0
        if stream is not None:
            self._take(stream)

    async def open(self) -> None:
        """Open the first source that has the blob.

        Raises:
            RegistryError: none has it; the last source's error.
            RangeRefused: a source says that the blob ends before the offset.
        """
        await self.close()
        self._take(await self._sources.open_any(self.offset))

    async def read(self) -> bytes:
        """Return the next bytes as they arrived; nothing at the end.

        Raises:
            RegistryError: the sources failed again and again without a byte of progress, or sent more than the size.
            RangeRefused: a source says that the blob ends before the offset.
        """
        while True:
            if self._stream is None:
                await self.open()
            assert self._stream is not None
            try:
                piece = await self._stream.read()
            except RegistryError as error:
                await self._resume(error)
                continue
            if not piece:
                if self._sources.size is None:
                    self._sources.size = self.offset
                if self.offset >= self._sources.size:
                    return b""
                await self._resume(too_short(self.offset, self._sources.size))
                continue
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = piece[skipped:] if skipped else piece
            if piece and not self._crawled():
                return self._took(piece)
            if piece:
                await self._resume(crawling())

    def rested(self) -> None:
        """Hold the time since the last read against nobody."""
        self._measured_at, self._measured_from = time.monotonic(), self.offset

    async def close(self) -> None:
        """End the transfer, whole or not."""
        if self._stream is not None:
            await self._stream.close()
            self._stream = None

    def _take(self, stream: BlobStream) -> None:
        self._stream = stream
        self._skip = self.offset - stream.start
        self._measured_at, self._measured_from = time.monotonic(), self.offset

    def _took(self, piece: bytes) -> bytes:
        self._fruitless = 0
        self.offset += len(piece)
        if self._sources.size is not None and self.offset > self._sources.size:
            raise WrongSize("the source", self.offset, self._sources.size)
        return piece

    def _crawled(self) -> bool:
        """Say whether the connection brings next to nothing, so that another is worth a try.

        Raises:
            RegistryError: others did no better.
        """
        now = time.monotonic()
        if now < self._measured_at + LEAST_SECONDS:
            return False
        crawls = self.offset < self._measured_from + LEAST_BYTES and self._skip == 0
        self._measured_at, self._measured_from = now, self.offset
        self._crawls = self._crawls + 1 if crawls else 0
        if self._crawls >= MOST_CRAWLS:
            raise crawling()
        return crawls

    async def _resume(self, error: RegistryError) -> None:
        """Open a source again at the offset; only attempts that bring no byte count against the transfer."""
        await self.close()
        while True:
            if not isinstance(error, SourceLost):
                await self._hesitate(error)
            try:
                await self.open()
                return
            except RangeRefused:
                raise
            except RegistryError as again:
                if again.failure is None:
                    raise
                error = again

    async def _hesitate(self, error: RegistryError) -> None:
        """Leave the upstream alone for a moment, if it failed more than once.

        Raises:
            RegistryError: it has failed too often.
        """
        self._fruitless += 1
        if self._fruitless > MOST_FRUITLESS:
            raise error
        self._sources.retried(error)
        if self._fruitless > 1:
            await asyncio.sleep(pause(self._fruitless))


def pause(fruitless: int) -> float:
    """Return how many seconds to leave the sources alone after so many attempts that brought nothing."""
    return min(math.ldexp(_FIRST_PAUSE, fruitless), _LONGEST_PAUSE)
