"""The door: one HTTP server on the data port."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import structlog
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from mirror.config import Settings
from mirror.config.units import Address
from mirror.observe.cache_status import Outcome
from mirror.observe.metrics import DoorMetrics
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.pull import Pull
from mirror.registry.access import Access
from mirror.registry.handlers import Answer, Handlers, RangeNotSatisfiable
from mirror.registry.responses import error_page, error_response
from mirror.registry.routing import Kind, Router, Target

_LONGEST_LINE = 16 * 2**10
_LONGEST_FIELD = 32 * 2**10
_KEEP_ALIVE_SECONDS = 3600.0
_BACKLOG = 1024
# How long the body of a refused push is read on so that its sender sees the answer.
_LINGER_SECONDS = 0.1
_CUT_SECONDS = 0.5


class Door:
    """Answers clients."""

    def __init__(self, settings: Settings, pull: Pull, metrics: DoorMetrics, disk: Executor) -> None:
        self._router = Router(settings.upstreams, Access(settings.access))
        self._handlers = Handlers(pull, disk)
        self._metrics = metrics
        self._log = structlog.get_logger("layover.request")
        self._logs_requests = settings.log.level in {"debug", "info"}
        self._servers: list[asyncio.Server] = []
        self._protocol: _Server

    async def start(self, addresses: Sequence[Address], *, shares_port: bool = False) -> None:
        """Listen, on a port shared with other doors if `shares_port`.

        Raises:
            OSError: an address cannot be had.
        """
        self._protocol = _Server(
            self._answer,
            access_log=None,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_FIELD,
            auto_decompress=False,
            lingering_time=_LINGER_SECONDS,
        )
        loop = asyncio.get_running_loop()
        for address in addresses:
            server = await loop.create_server(
                self._protocol, address.host, address.port, backlog=_BACKLOG, reuse_port=shares_port or None
            )
            self._servers.append(server)

    async def stop(self, grace: float) -> None:
        """Accept no more, close what waits for no answer, let answers end within `grace` seconds, then cut the rest."""
        if not self._servers:
            return
        await self._stop_listening()
        self._protocol.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(grace) else grace):
                await self._protocol.is_empty.wait()
        await self._protocol.shutdown(_CUT_SECONDS)

    async def _stop_listening(self) -> None:
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
        # What was accepted a moment ago gets its transport now. asyncio refuses that to a closed server, and would then
        # leave the socket open, unread, until the garbage is collected.
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        target: Target | None = None
        try:
            if request.method not in {"GET", "HEAD"}:
                text = f"{request.method} is not supported: this mirror only serves pulls"
                raise RegistryError(ErrorCode.UNSUPPORTED, text)
            target = self._router.route(request.raw_path, request.headers.get("Host", ""))
            answer = await self._handlers.answer(request, target)
        except RegistryError as error:
            answer = _refusal(error, target)
        except ConnectionError as gone:
            # The client left before the head of its answer; whatever is returned reaches nobody.
            answer = Answer(web.Response(status=499), Outcome.ERROR, 0, gone)
        outcome = Outcome.ERROR if isinstance(answer.cut, RegistryError) else answer.outcome
        label, kind = ("", Kind.PING) if target is None else (target.label, target.kind)
        seconds = time.perf_counter() - started
        self._metrics.answered(label, kind, outcome, answer.sent, answer.first_byte or seconds)
        if self._logs_requests:
            self._write_line(request, answer, outcome, seconds)
        return answer.response

    def _write_line(self, request: web.BaseRequest, answer: Answer, outcome: Outcome, seconds: float) -> None:
        facts: dict[str, object] = {} if answer.cut is None else {"cut": str(answer.cut)}
        if answer.refused is not None:
            facts["error"] = answer.refused
        self._log.info(
            "request",
            client=request.remote,
            method=request.method,
            target=request.raw_path,
            status=answer.response.status,
            outcome=outcome,
            bytes=answer.sent,
            seconds=round(seconds, 4),
            **facts,
        )


class _Server(web.Server):
    """Connections whose protocol errors are rendered like every other error."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **options: Any) -> None:
        super().__init__(handler, handler_cancellation=False)
        self._options = options
        self._open: set[_Connection] = set()
        self.is_finishing = False
        self.is_empty = asyncio.Event()
        self.is_empty.set()

    def finish(self) -> None:
        """End every connection as soon as it owes no answer, and those to come at once."""
        self.is_finishing = True
        for connection in self._open:
            connection.finish()

    def opened(self, connection: _Connection) -> None:
        """Note a connection that was made."""
        self._open.add(connection)
        self.is_empty.clear()

    def closed(self, connection: _Connection) -> None:
        """Note a connection that ended."""
        self._open.discard(connection)
        if not self._open:
            self.is_empty.set()

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return _Request(message, payload, protocol, writer, task, self._loop)


class _Request(web.BaseRequest):
    """A request whose answer says so where it is the last one of its connection."""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow on this connection."""
        return super().keep_alive and not self.protocol._close  # noqa: SLF001 - aiohttp tells it nowhere else


class _Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_server",)

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let `drain` mean that everything is with the kernel, as sendfile goes past the transport."""
        super().connection_made(transport)
        self._server.opened(self)
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=0)
        if self._server.is_finishing:
            self.finish()

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


def _refusal(error: RegistryError, target: Target | None) -> Answer:
    extra = {"Content-Range": f"bytes */{error.size}"} if isinstance(error, RangeNotSatisfiable) else {}
    response = error_response(error, target, extra)
    outcome = Outcome.ERROR
    if error.is_remembered:
        outcome = Outcome.NEGATIVE
    elif error.code is ErrorCode.DENIED:
        outcome = Outcome.DENIED
    elif error.status == 404:
        outcome = Outcome.MISS
    return Answer(response, outcome, 0, refused=error.message)
