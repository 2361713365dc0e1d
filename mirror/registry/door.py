"""The door: one HTTP server on the data port."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from types import MappingProxyType

import structlog
from aiohttp import web

from mirror.config import Settings
from mirror.config.units import Address
from mirror.fleet.signature import SIGNATURE, Refusal
from mirror.observe.cache_status import Outcome
from mirror.observe.metrics import DoorMetrics
from mirror.oci.errors import ErrorCode, RegistryError
from mirror.pull import Pull, Sharing
from mirror.registry.access import Access
from mirror.registry.connection import Connection, Connections, Request
from mirror.registry.handlers import Answer, Handlers, RangeNotSatisfiable
from mirror.registry.repeats import Repeats
from mirror.registry.responses import error_response
from mirror.registry.routing import Kind, Router, Target
from mirror.registry.siblings import RefusedSibling, SiblingHandlers

_BACKLOG = 1024
_NO_FACTS: Mapping[str, object] = MappingProxyType({})
_CUT_SECONDS = 0.5


class Door:
    """Answers clients."""

    def __init__(
        self,
        settings: Settings,
        pull: Pull,
        metrics: DoorMetrics,
        disk: Executor,
        sharing: Sharing | None = None,
    ) -> None:
        """Answer clients from `pull`, and siblings from `sharing`: without it none of them."""
        self._router = Router(settings.upstreams, Access(settings.access))
        self._handlers = Handlers(pull, disk)
        self._repeats = Repeats(pull, self._router)
        self._siblings = SiblingHandlers(sharing, self._handlers)
        self._metrics = metrics
        metrics.refuse_siblings_for(Refusal)
        self._log = structlog.get_logger("layover.request")
        self._logs_requests = settings.log.level in {"debug", "info"}
        self._servers: list[asyncio.Server] = []
        self._protocol: Connections

    async def start(self, addresses: Sequence[Address], *, shares_port: bool = False) -> None:
        """Listen, on a port shared with other doors if `shares_port`.

        Raises:
            OSError: an address cannot be had.
        """
        self._protocol = Connections(self._answer, self._answer_again)
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
        self._handlers.close()

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

    async def _answer(self, request: Request) -> web.StreamResponse:
        if SIGNATURE in request.headers:
            return await self._answer_sibling(request)
        started = time.perf_counter()
        target: Target | None = None
        try:
            if request.method not in {"GET", "HEAD"}:
                text = f"{request.method} is not supported: this mirror only serves pulls"
                raise RegistryError(ErrorCode.UNSUPPORTED, text)
            target = self._router.route(request.raw_path, request.headers.get("Host", ""))
            answer = await self._handlers.answer(request, target)
            self._repeats.learn(request.head, request, target)
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
            facts: dict[str, object] = {} if answer.cut is None else {"cut": str(answer.cut)}
            if answer.refused is not None:
                facts["error"] = answer.refused
            what = (request.remote, request.method, request.raw_path, answer.response.status, outcome)
            self._write_line(*what, answer.sent, seconds, facts)
        return answer.response

    async def _answer_sibling(self, request: Request) -> web.StreamResponse:
        """Answer what claims to be a sibling's request; it is neither counted nor logged as a client's."""
        try:
            answer = await self._siblings.answer(request)
        except RefusedSibling as refused:
            self._metrics.refused_sibling(refused.reason)
            answer = Answer(error_response(refused, None), Outcome.DENIED, 0, refused=refused.message)
        except ConnectionError as gone:
            answer = Answer(web.Response(status=499), Outcome.ERROR, 0, gone)
        self._log.debug(
            "request of a sibling",
            client=request.remote,
            method=request.method,
            target=request.raw_path,
            status=answer.response.status,
            bytes=answer.sent,
            **({} if answer.cut is None else {"cut": str(answer.cut)}),
            **({} if answer.refused is None else {"error": answer.refused}),
        )
        return answer.response

    def _answer_again(self, head: bytes, connection: Connection) -> bytes | None:
        """Return the answer to a request by the bytes of its head, None if it has to go the whole way."""
        started = time.perf_counter()
        repeat = self._repeats.answer(head)
        if repeat is None:
            return None
        asked, body = repeat.asked, repeat.body
        target = asked.target
        seconds = time.perf_counter() - started
        self._metrics.answered(target.label, target.kind, repeat.outcome, len(body), seconds)
        if self._logs_requests:
            self._write_line(connection.remote, asked.method, asked.raw_path, 200, repeat.outcome, len(body), seconds)
        return repeat.head + body

    def _write_line(
        self,
        client: str | None,
        method: str,
        target: str,
        status: int,
        outcome: Outcome,
        sent: int,
        seconds: float,
        facts: Mapping[str, object] = _NO_FACTS,
    ) -> None:
        self._log.info(
            "request",
            client=client,
            method=method,
            target=target,
            status=status,
            outcome=outcome,
            bytes=sent,
            seconds=round(seconds, 4),
            **facts,
        )


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
