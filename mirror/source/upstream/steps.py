"""How a connection comes about, told step by step to whoever waits for an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

# An answer may be announced by others before it (RFC 9110 §15.2). Whoever sends more of them sends nothing else.
_MOST_INTERIM = 8
# A host that takes this long to accept a connection is so far away that TLS may take longer than one step.
_FAR_SECONDS = 0.2


class Steps:
    """The steps of one request: its name was found, its connection was accepted, and speaks TLS if it has to.

    `is_new` says whether a connection was to be made at all, or an old one was to be used again.
    """

    def __init__(self, step: Callable[[int], None], *, is_tls: bool) -> None:
        """Call `step` with how many times the usual patience the next step may need."""
        self._step = step
        self._is_tls = is_tls
        self._began = 0.0
        self.is_new = False

    def began(self) -> None:
        """Take note that a connection is about to be made to an address or to a name."""
        self.is_new = True
        self._began = time.monotonic()
        self._step(1)

    def accepted(self) -> None:
        """Take note that the other side accepted, so that TLS can begin."""
        is_far = time.monotonic() - self._began > _FAR_SECONDS
        self._step(2 if self._is_tls and is_far else 1)

    def made(self) -> None:
        """Take note that the request can be sent."""
        self._step(1)


class _Answers(ResponseHandler):
    """The answers on one connection. A flood of interim ones ends it, before it takes the time of all others."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = 0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take in the head of an answer."""
        self._interim = self._interim + 1 if 100 <= data[0].code < 200 else 0
        if self._interim > _MOST_INTERIM:
            self.abort()
            self.set_exception(HttpProcessingError(message="too many interim answers"))
        else:
            super().feed_data(data, size)


class SteppingConnector(aiohttp.TCPConnector):
    """Makes connections, and tells each request's `Steps` how far it came."""

    def __init__(self, resolver: aiohttp.abc.AbstractResolver) -> None:
        """Dial the addresses that `resolver` finds, as many at once as are asked for."""
        super().__init__(limit=0, use_dns_cache=False, resolver=resolver)
        self._steps: ContextVar[Steps] = ContextVar("steps")
        # The library tells of a connection once it is whole. What it makes first is made when it was accepted.
        self._factory = self._accepted  # type: ignore[assignment]

    def tracing(self) -> aiohttp.TraceConfig:
        """Return what a session needs to have requests told of their steps: each brings its own as context."""
        config = aiohttp.TraceConfig()

        async def begin(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
            self._steps.set(context.trace_request_ctx)
            context.trace_request_ctx.began()

        async def found(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
            context.trace_request_ctx.began()

        async def made(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
            context.trace_request_ctx.made()

        config.on_connection_create_start.append(begin)
        config.on_dns_resolvehost_end.append(found)
        config.on_connection_create_end.append(made)
        return config

    def _accepted(self) -> ResponseHandler:
        self._steps.get().accepted()
        return _Answers(self._loop)
