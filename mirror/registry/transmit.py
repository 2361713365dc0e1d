"""Sending a body: files by sendfile past the transport, a slice a turn, so that downloads starve nobody."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from types import TracebackType
from typing import Self

from aiohttp import web

from mirror.oci.errors import RegistryError
from mirror.pull import FilePiece

SLICE = 2**20
_READ = 256 * 2**10
_STALLED_SECONDS = 300.0


class Transmission:
    """One answer whose body is sent piece by piece. A client that is gone, or takes nothing, ends it."""

    def __init__(
        self, request: web.BaseRequest, response: web.StreamResponse, disk: Executor, turn: asyncio.Lock
    ) -> None:
        """Prepare to send; `turn` is shared by all that send, so that each turn of the event loop has one slice."""
        self._request = request
        self._response = response
        self._disk = disk
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._socket = -1
        self.sent = 0
        self.cut: Exception | None = None
        self.first_byte: float | None = None

    async def __aenter__(self) -> Self:
        """Send the head."""
        writer = await self._response.prepare(self._request)
        if writer is not None:
            writer.send_headers()
        self.first_byte = self._loop.time() - self._started
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End the body. One that failed is cut so that the client sees it, and `cut` says why."""
        if self._socket >= 0:
            os.close(self._socket)
        length = self._response.content_length
        if error is None and length is not None and self.sent != length:
            error = ConnectionError(f"the body ended after {self.sent} of {length} bytes")
        if error is None:
            await self._response.write_eof()
            return True
        if self._request.transport is not None:
            self._request.transport.abort()
        if not isinstance(error, RegistryError | OSError):
            return False
        self.cut = error
        return True

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        async with asyncio.timeout(_STALLED_SECONDS):
            await self._response.write(data)
        self.sent += len(data)

    async def send(self, pieces: AsyncIterator[FilePiece | bytes]) -> None:
        """Send pieces of files and bytes."""
        async for piece in pieces:
            if isinstance(piece, bytes):
                await self.write(piece)
            elif self._response.chunked:
                await self._copy(piece)
            else:
                await self._send_file(piece)

    async def _copy(self, piece: FilePiece) -> None:
        """Send a file through memory, a little at a time: chunked answers need a frame around each."""
        offset = piece.start
        while offset < piece.stop:
            length = min(_READ, piece.stop - offset)
            data = await self._loop.run_in_executor(self._disk, os.pread, piece.descriptor, length, offset)
            if not data:
                raise ConnectionError("the file is shorter than it was")
            await self.write(data)
            offset += len(data)

    async def _send_file(self, piece: FilePiece) -> None:
        offset = piece.start
        if offset < piece.stop:
            await self._flush()
        while offset < piece.stop:
            length = min(SLICE, piece.stop - offset)
            if not _is_cached(piece.descriptor, offset + length - 1):
                await self._loop.run_in_executor(self._disk, _read_ahead, piece.descriptor, offset, length)
            count = await self._send_slice(piece.descriptor, offset, length)
            offset += count
            self.sent += count
            if count < length:
                await self._writable()

    async def _send_slice(self, descriptor: int, offset: int, length: int) -> int:
        """Send what the kernel takes now of a slice, and return how much that was."""
        async with self._turn:
            try:
                count = os.sendfile(self._socket, descriptor, offset, length)
            except BlockingIOError:
                return 0
            if count == 0:
                raise ConnectionError("the file is shorter than it was")
            await asyncio.sleep(0)
            return count

    async def _flush(self) -> None:
        """Wait until the transport holds nothing back, then take its socket: bytes must not overtake one another."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        while transport.get_write_buffer_size():
            async with asyncio.timeout(_STALLED_SECONDS):
                await self._response._payload_writer.drain()  # type: ignore[union-attr]  # noqa: SLF001
        if self._socket < 0:
            self._socket = os.dup(transport.get_extra_info("socket").fileno())

    async def _writable(self) -> None:
        woken = self._loop.create_future()
        self._loop.add_writer(self._socket, _wake, woken)
        try:
            async with asyncio.timeout(_STALLED_SECONDS):
                await woken
        except TimeoutError:
            raise ConnectionError("the client takes nothing") from None
        finally:
            self._loop.remove_writer(self._socket)


def _is_cached(descriptor: int, offset: int) -> bool:
    """Say whether a byte of a file is in memory: sendfile of one that is not would hold every client up."""
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # this file system cannot tell
    return True


def _read_ahead(descriptor: int, offset: int, length: int) -> None:
    """Bring a slice of a file into memory. Blocks."""
    for start in range(offset, offset + length, _READ):
        os.pread(descriptor, min(_READ, offset + length - start), start)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
