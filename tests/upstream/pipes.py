"""The way of body bytes from a file into a connection, counted where the connection takes them."""

from __future__ import annotations

import asyncio
import os
import socket

from aiohttp.abc import AbstractStreamWriter

from tests.upstream.counters import Answer


class PlainPipe:
    """By sendfile, on a duplicate of the connection's descriptor.

    aiohttp's transport keeps the original; the event loop would not let us watch that one. Each system call's result is
    counted.
    """

    def __init__(self, connection: socket.socket, answer: Answer) -> None:
        self._connection = connection
        self._answer = answer

    async def send(self, file: int, offset: int, count: int) -> None:
        """Hand exactly `count` bytes of the file to the socket; BrokenPipeError when the client is gone."""
        while count:
            try:
                taken = self._answer.send_file(file, offset, count)
            except BlockingIOError:
                await self._writable()
                continue
            if not taken:
                raise OSError("the file ended before its size")
            offset += taken
            count -= taken

    async def write(self, data: bytes) -> None:
        """Hand bytes to the socket that are no body, and are not counted."""
        while data:
            try:
                data = data[self._connection.send(data) :]
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._connection.fileno(), lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_writer(self._connection.fileno())


class SecurePipe:
    """Through TLS: what counts is what the transport took, and it takes the next slice when the last has left."""

    def __init__(self, transport: asyncio.Transport, writer: AbstractStreamWriter, answer: Answer) -> None:
        self._transport = transport
        self._writer = writer
        self._answer = answer

    async def send(self, file: int, offset: int, count: int) -> None:
        """Hand exactly `count` bytes of the file to the transport; BrokenPipeError when the client is gone."""
        if self._transport.is_closing():
            raise BrokenPipeError
        self._transport.write(os.pread(file, count, offset))
        self._answer.add(count)
        await self._writer.drain()

    async def write(self, data: bytes) -> None:
        """Hand bytes to the transport that are no body, and are not counted."""
        self._transport.write(data)


Pipe = PlainPipe | SecurePipe
