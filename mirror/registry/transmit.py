"""Sending a body: files past the transport, and bytes."""

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
from mirror.registry.sender import Sender, Sending

_READ = 256 * 2**10
_STALLED_SECONDS = 300.0


class Transmission:
    """One answer whose body is sent piece by piece. A client that is gone, or takes nothing, ends it."""

    def __init__(self, request: web.BaseRequest, response: web.StreamResponse, disk: Executor, sender: Sender) -> None:
        """Prepare to send; `sender` is shared by all that send files."""
        self._request = request
        self._response = response
        self._disk = disk
        self._sender = sender
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
        if piece.start >= piece.stop:
            return
        await self._flush()
        sending = Sending(self._socket, piece)
        try:
            await self._sender.send(sending)
        finally:
            self.sent += sending.offset - piece.start

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
