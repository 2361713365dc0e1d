"""Connections of clients: aiohttp's, with errors rendered like every other, and a short way for what comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from mirror.oci.errors import ErrorCode
from mirror.registry.responses import error_page

_LONGEST_LINE = 16 * 2**10
_LONGEST_FIELD = 32 * 2**10
_KEEP_ALIVE_SECONDS = 3600.0
# How long the body of a refused push is read on so that its sender sees the answer.
_LINGER_SECONDS = 0.1
_END_OF_HEAD = b"\r\n\r\n"


class Connections(web.Server):
    """Every connection of a door."""

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[web.StreamResponse]],
        answer_again: Callable[[bytes, Connection], bytes | None],
    ) -> None:
        super().__init__(handler, handler_cancellation=False)
        self.answer_again = answer_again
        self._open: set[Connection] = set()
        self.is_finishing = False
        self.is_empty = asyncio.Event()
        self.is_empty.set()

    def finish(self) -> None:
        """End every connection as soon as it owes no answer, and those to come at once."""
        self.is_finishing = True
        for connection in self._open:
            connection.finish()

    def opened(self, connection: Connection) -> None:
        """Note a connection that was made."""
        self._open.add(connection)
        self.is_empty.clear()

    def closed(self, connection: Connection) -> None:
        """Note a connection that ended."""
        self._open.discard(connection)
        if not self._open:
            self.is_empty.set()

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_FIELD,
            auto_decompress=False,
            lingering_time=_LINGER_SECONDS,
        )

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return Request(message, payload, protocol, writer, task, self._loop)


class Request(web.BaseRequest):
    """A request whose answer says so where it is the last one of its connection."""

    @property
    def head(self) -> bytes:
        """The bytes that it came in, if they came alone and it has no body; else nothing."""
        return self.protocol.head if isinstance(self.protocol, Connection) else b""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow on this connection."""
        return super().keep_alive and not self.protocol._close  # noqa: SLF001 - aiohttp tells it nowhere else


class Connection(RequestHandler):
    """One client's connection.

    `head` holds the bytes of the request that is being answered where they came alone, else nothing. `_is_between`: so
    far each piece that came was one whole head, so that the next one begins a request.
    """

    __slots__ = ("_is_between", "_server", "head")

    def __init__(self, server: Connections, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._is_between = True
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let `drain` mean that everything is with the kernel, as sendfile goes past the transport."""
        super().connection_made(transport)
        self._server.opened(self)
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=0)
        if self._server.is_finishing:
            self.finish()

    def data_received(self, data: bytes) -> None:
        """Answer at once what was asked before in the same bytes; anything else goes the whole way."""
        is_idle = self._is_idle
        answer = self._server.answer_again(data, self) if is_idle and self._is_between else None
        if answer is not None:
            assert self.transport is not None
            self.transport.write(answer)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            return
        before = len(self._messages)
        super().data_received(data)
        self._is_between = self._is_between and self._took_one_head(data, before)
        self.head = data if is_idle and self._is_between else b""

    @property
    def remote(self) -> str | None:
        """The client's address."""
        peer = self.peername
        return str(peer[0]) if isinstance(peer, tuple) else peer

    @property
    def _is_idle(self) -> bool:
        """Whether all that was asked is answered, and every answer is with the kernel."""
        waiter, transport = self._waiter, self.transport
        return (
            waiter is not None and not waiter.done() and transport is not None and not transport.get_write_buffer_size()
        )

    def _took_one_head(self, data: bytes, before: int) -> bool:
        """Say whether `data`, which began between two requests, was the head of one without a body, and no more."""
        if (
            self._upgraded
            or len(self._messages) != before + 1
            or data.find(_END_OF_HEAD) != len(data) - len(_END_OF_HEAD)
        ):
            return False
        return self._messages[-1][1] is EMPTY_PAYLOAD

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note that it ended."""
        super().connection_lost(exc)
        self._server.closed(self)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio heeds it
        """Answer a client that closes its half once it has asked, then close."""
        super().eof_received()
        self.finish()
        return True

    def finish(self) -> None:
        """Close once what was asked is answered; at once if that is so already."""
        waits = self._waiter is not None and not self._waiter.done()
        if waits or not self._request_count:
            # Told to `close` while it waits, aiohttp only stops waiting; before it waits, it would do so for ever.
            self.force_close()
        else:
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the base class calls it so
    ) -> web.StreamResponse:
        """Return the answer to what is not HTTP, is over-long, or met a defect of ours; it closes the connection."""
        log = structlog.get_logger("layover.request")
        if request.writer.output_size > 0:
            raise ConnectionError("the head of another answer is out already")
        code = ErrorCode.UNAVAILABLE if status >= 500 else ErrorCode.NAME_INVALID
        log.info("a request was refused unread", client=request.remote, error=type(exc).__name__)
        if isinstance(exc, BadHttpMethod):
            status, code, text = (
                405,
                ErrorCode.UNSUPPORTED,
                "this method is not supported: this mirror only serves pulls",
            )
        elif isinstance(exc, LineTooLong):
            in_line = _LONGEST_LINE in exc.args
            status, text = (414, "the path is too long") if in_line else (431, "a header is too long")
        elif status < 500:
            text = "the request is not HTTP that this mirror understands"
        else:
            status, text = 500, "the mirror failed; its log says how"
            log.error("a request met a defect", target=request.raw_path, error=f"{type(exc).__name__}: {exc}")
            log.debug("traceback", exc_info=exc)
        response = error_page(code, text, status, {})
        response.force_close()
        return response
