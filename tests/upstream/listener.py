"""One origin of the server: a port that stays the same through pauses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from aiohttp import web

from tests.upstream.control import Handler

ADDRESS = "127.0.0.1"
_BACKLOG = 1024
_SEND_BUFFER = 2**18
_SHUTDOWN_SECONDS = 2.0


class Listener:
    """Accepts connections on one port of loopback.

    It accepts them itself, so that closing it leaves none behind that asyncio took and has not announced yet. The send
    buffer is small: of the bytes counted as sent, few are still in a kernel when a client is killed.
    """

    def __init__(self, handler: Handler, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        # Bound, and never listening: it keeps the port ours while the listener is closed.
        self._place = _bind(port)
        self.port: int = self._place.getsockname()[1]
        self._web: web.Server | None = None
        self._listening: socket.socket | None = None
        self._arriving: set[asyncio.Task[object]] = set()

    async def open(self) -> None:
        """Begin to accept connections."""
        if self._listening is None:
            self._web = web.Server(self._handler, handler_cancellation=True, max_field_size=2**17)
            self._listening = _bind(self.port)
            self._listening.listen(_BACKLOG)
            asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept, self._listening, self._web)

    async def close(self) -> None:
        """Refuse connections from now on and end those that are open."""
        if self._listening is None or self._web is None:
            return
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()
        self._listening = None
        for task in self._arriving if self._tls is not None else ():
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        for connection in self._web.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._web.shutdown(_SHUTDOWN_SECONDS)

    def release(self) -> None:
        """Give the port back for good."""
        self._place.close()

    def _accept(self, listening: socket.socket, server: web.Server) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            connection, _ = listening.accept()
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            accepted = loop.connect_accepted_socket(server, connection, ssl=self._tls)
            task: asyncio.Task[object] = loop.create_task(accepted)
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    bound.bind((ADDRESS, port))
    bound.setblocking(False)
    return bound
