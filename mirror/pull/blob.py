"""A blob on its way to one client: a file that is whole, a file that grows, or bytes through the channel."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from mirror.channel import Body, Filling, Progress, Stream, Unstored, Whole
from mirror.observe.cache_status import CacheStatus
from mirror.oci.digest import Digest
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.store import Content

_MOST_LOST_FILLS = 10
_SMALL = 64 * 2**10


class FilePiece(NamedTuple):
    """Bytes of an open file that may be sent as they are."""

    descriptor: int
    start: int
    stop: int


class Ways(Protocol):
    """The ways to a blob that is not held: the hub's for a client, fewer for a sibling."""

    async def blob(self, repository: Repository, digest: Digest) -> Body:
        """See `channel.Hub`."""

    async def progress(self, fill: int, offset: int) -> Progress:
        """See `channel.Hub`."""

    async def stream(self, repository: Repository, digest: Digest, start: int) -> Stream:
        """See `channel.Hub`."""


class BlobBody:
    """Yields a blob's bytes, switching to another way when the one it reads from ends. Close it."""

    def __init__(
        self, hub: Ways, content: Content, repository: Repository, digest: Digest, status: CacheStatus
    ) -> None:
        """Prepare to read `digest`; one of `hold`, `follow` and `pass_through` says from where."""
        self.size: int | None = None
        self.status = status
        self._hub = hub
        self._content = content
        self._repository = repository
        self._digest = digest
        self._descriptor = -1
        self._fill: int | None = None
        self._stream: Stream | None = None
        self._stream_at = 0
        self._witness = -1

    @property
    def is_stored(self) -> bool:
        """Whether any range can be had at no further cost."""
        return self._descriptor >= 0

    @property
    def is_growing(self) -> bool:
        """Whether it is read from a file that grows."""
        return self._fill is not None

    def read_small(self) -> bytes | None:
        """Return all of it if it is whole and small; None to say that `pieces` is the way."""
        if self._descriptor < 0 or self._fill is not None or self.size is None or self.size > _SMALL:
            return None
        return os.pread(self._descriptor, self.size, 0)

    def hold(self, descriptor: int, size: int) -> None:
        """Read from a whole file."""
        self._release()
        self._descriptor, self._fill, self.size = descriptor, None, size

    def follow(self, filling: Filling) -> bool:
        """Read from a growing file; False if it has gone meanwhile."""
        self._release()
        try:
            self._descriptor = os.open(filling.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # It may just have got its final name.
            descriptor = self._content.open(self._digest)
            if descriptor is None:
                return False
            self.hold(descriptor, os.fstat(descriptor).st_size)
            return True
        self._fill, self.size = filling.fill, filling.size
        return True

    def pass_through(self, size: int | None) -> None:
        """Read through the channel."""
        self._release()
        self._fill, self.size = None, size

    async def confirm(self, start: int) -> None:
        """Make sure that bytes from `start` on can be had, before the head of an answer is sent.

        Raises:
            RegistryError: they cannot.
        """
        if self._descriptor < 0:
            await self._open_stream(start)

    async def pieces(self, start: int, stop: int | None) -> AsyncIterator[FilePiece | bytes]:
        """Yield the bytes from `start` up to `stop`, or to the end if it is None.

        Raises:
            RegistryError: the fill or the stream failed, or the rest would be of something else than what was sent.
        """
        offset, lost = start, 0
        while lost < _MOST_LOST_FILLS:
            if self._descriptor < 0:
                async for piece in self._through(start, offset, stop):
                    yield piece
                return
            if self._fill is None:
                yield FilePiece(self._descriptor, offset, self._end(stop))
                return
            lost += 1
            async for part in self._followed(offset, stop):
                yield part
                offset, lost = part.stop, 0
            if stop is not None and offset >= stop:
                return
            if self._fill is not None:
                await self._locate_again(has_sent=offset > start)
        raise RegistryError(ErrorCode.UNAVAILABLE, "the fill was lost again and again", failure=Failure.RESET)

    async def close(self) -> None:
        """Give up whatever is open."""
        self._release()
        if self._witness >= 0:
            os.close(self._witness)
            self._witness = -1
        await self._close_stream()

    async def _followed(self, offset: int, stop: int | None) -> AsyncIterator[FilePiece]:
        """Yield what a fill shows from `offset` on; end early, with `_fill` still set, when the fill is lost."""
        assert self._fill is not None
        while stop is None or offset < stop:
            progress = await self._hub.progress(self._fill, offset)
            if progress.size is not None:
                self.size = progress.size
            if progress.is_forgotten:
                return
            if progress.is_verified:
                self._fill = None
                return
            if progress.lost_room:
                self._lose_file()
                return
            end = progress.end if stop is None else min(progress.end, stop)
            yield FilePiece(self._descriptor, offset, end)
            offset = end

    async def _through(self, start: int, offset: int, stop: int | None) -> AsyncIterator[bytes]:
        """Yield bytes from the channel; what was sent before, from a file, must be what comes again."""
        position = offset if self._witness < 0 else start
        await self._open_stream(position)
        assert self._stream is not None
        while stop is None or position < stop:
            piece = await self._stream.read()
            self._stream_at += len(piece)
            if not piece:
                return
            known = min(max(0, offset - position), len(piece))
            if known and os.pread(self._witness, known, position) != piece[:known]:
                raise _other_content(self._digest)
            rest = piece[known:] if stop is None else piece[known : stop - position]
            position += len(piece)
            if rest:
                yield rest

    async def _locate_again(self, *, has_sent: bool) -> None:
        """Find the blob anew: the fill began anew, or the hub has restarted, or has long forgotten the fill.

        Raises:
            RegistryError: bytes were sent, and what is there now is another file.
        """
        before = os.fstat(self._descriptor)
        found = await self._hub.blob(self._repository, self._digest)
        if isinstance(found, Unstored):
            self._lose_file()
            return
        if isinstance(found, Whole):
            descriptor = self._content.open(self._digest)
            if descriptor is not None:
                self.hold(descriptor, found.size)
        else:
            kept = os.dup(self._descriptor)
            if self.follow(found):
                os.close(kept)
            else:
                self._descriptor = kept
                self._lose_file()
        if has_sent and self._descriptor >= 0 and not os.path.samestat(before, os.fstat(self._descriptor)):
            raise _other_content(self._digest)

    async def _open_stream(self, start: int) -> None:
        if self._stream is not None and self._stream_at == start:
            return
        await self._close_stream()
        self._stream = await self._hub.stream(self._repository, self._digest, start)
        self._stream_at = start
        self.size = self._stream.size

    async def _close_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.close()

    def _lose_file(self) -> None:
        """Go on through the channel, with the file kept to compare what was sent with what comes again."""
        if self._witness < 0:
            self._witness, self._descriptor = self._descriptor, -1
        self._release()
        self._fill = None

    def _end(self, stop: int | None) -> int:
        size = self.size if self.size is not None else os.fstat(self._descriptor).st_size
        return size if stop is None else min(stop, size)

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _other_content(digest: Digest) -> RegistryError:
    text = f"what was sent of {digest} is not what is there now"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.RESET, retry_after=1)
