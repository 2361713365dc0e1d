"""Connections towards upstreams: one HTTP exchange at a time, its name looked up, guarded and counted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from mirror.config import Upstream
from mirror.observe.metrics import HubMetrics
from mirror.oci.errors import Failure
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.daemons import DaemonThreads
from mirror.source.upstream.guard import GuardedResolver, Privacy, PrivateAddressError, is_address, is_private_literal
from mirror.source.upstream.names import Names
from mirror.source.upstream.proxies import Proxies
from mirror.source.upstream.slots import Slot, Slots
from mirror.source.upstream.steps import SteppingConnector, Steps

USER_AGENT = "layover"
CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
_READ_BUFFER = 256 * 2**10
_LEAST_READ_BUFFER = 16 * 2**10
_BUFFERS_A_SECOND = 8
_MOST_HEADERS = 100


class _Ways(NamedTuple):
    """The ways out of one configured upstream: to public addresses alone, or to any."""

    names: Names
    guarded: aiohttp.ClientSession
    free: aiohttp.ClientSession


class Connections:
    """Sends requests to wherever an upstream leads, and brings back open answers of any status.

    Nothing is shared between upstreams: neither connections, nor turns, nor lookups of names.
    """

    def __init__(self, metrics: HubMetrics, contexts: Mapping[str, ssl.SSLContext], proxies: Proxies) -> None:
        """Count in `metrics`; `contexts` holds the TLS context of each `ca_file` that is configured."""
        self._metrics = metrics
        self._contexts = contexts
        self._proxies = proxies
        self._privacy = Privacy()
        self._threads = DaemonThreads()
        self._ways: dict[str, _Ways] = {}
        self._slots: dict[tuple[str, str], Slots] = {}

    async def close(self) -> None:
        """Close every connection."""
        for ways in self._ways.values():
            await ways.guarded.close()
            await ways.free.close()
            await ways.names.close()

    async def turn(self, ask: Ask) -> Slot:
        """Wait for the turn of a request, and return it: whatever is sent for it takes one connection at a time.

        Raises:
            RegistryError: it does not come.
        """
        try:
            return await self.turns(ask.upstream).take(is_transfer=ask.is_transfer)
        except TimeoutError:
            raise failures.crowded(ask.upstream) from None

    def turns(self, upstream: Upstream) -> Slots:
        """Return the turns of an upstream."""
        key = (upstream.name, upstream.url)
        slots = self._slots.get(key)
        if slots is None:
            self._slots = {key: each for key, each in self._slots.items() if not each.is_idle}
            slots = self._slots[key] = Slots(upstream.max_connections)
        return slots

    def moved(self, upstream: Upstream) -> None:
        """Note that something of an upstream arrived."""
        self.turns(upstream).moved()

    async def send(
        self, ask: Ask, url: URL, headers: Mapping[str, str], data: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """Return the open answer of `url`, to which `ask` led, to a request with `data` as its body.

        Raises:
            RegistryError: there is none, or the address is one where this upstream may not lead.
        """
        answer = await self._exchange(ask, url, headers, data)
        self.moved(ask.upstream)
        ask.step(1)
        return answer

    async def _exchange(
        self, ask: Ask, url: URL, headers: Mapping[str, str], data: bytes | None
    ) -> aiohttp.ClientResponse:
        upstream, status = ask.upstream, ""
        steps = Steps(ask.step, is_tls=url.scheme == "https")
        try:
            async with asyncio.timeout(ask.seconds_left):
                session = await self._session(ask, url)
                answer = await session.request(
                    ask.method,
                    url,
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                    ssl=self._contexts.get(upstream.ca_file, True),
                    proxy=self._proxies.of(url),
                    trace_request_ctx=steps,
                )
            status = str(answer.status)
            return answer
        except aiohttp.ClientResponseError:
            status = Failure.RESET
            raise failures.garbled(upstream, url.authority, is_passing=not steps.is_new) from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, PrivateAddressError):
                raise failures.bad_redirect(upstream, "leads to a private address") from None
            status = failures.failure_of(error, is_tls=url.scheme == "https")
            self._ways[upstream.label].names.forget(url.host or "")
            raise failures.unreachable(upstream, url.authority, status) from None
        finally:
            if status:
                self._metrics.upstream_requests.labels(upstream.label, ask.kind, ask.method, status).inc()

    async def _session(self, ask: Ask, url: URL) -> aiohttp.ClientSession:
        """Return the connections on which `url` may be asked for.

        Raises:
            RegistryError: there are none: it may not lead there.
            OSError: the upstream's own name cannot be resolved.
        """
        ways = self._ways.get(ask.upstream.label)
        if ways is None:
            ways = self._ways[ask.upstream.label] = self._open(ask.upstream)
        host, own = url.host or "", ask.url.host or ""
        # Behind a proxy names need not resolve here, and what is dialled is the proxy.
        is_named_behind_proxy = self._proxies.of(ask.url) is not None and not is_address(own)
        is_inward = not is_named_behind_proxy and await self._privacy.is_private(own, ways.names)
        if host != own and not is_inward and is_private_literal(host):
            raise failures.bad_redirect(ask.upstream, "leads to a private address")
        if is_inward or self._proxies.of(url) is not None or (host == own and is_address(own)):
            return ways.free
        return ways.guarded

    def _open(self, upstream: Upstream) -> _Ways:
        names = Names(self._threads)
        return _Ways(names, _session(upstream, GuardedResolver(names)), _session(upstream, names))


def _session(upstream: Upstream, resolver: AbstractResolver) -> aiohttp.ClientSession:
    connector = SteppingConnector(resolver)
    buffer = _READ_BUFFER
    if upstream.bandwidth:
        # What is read ahead has come in too early.
        buffer = max(_LEAST_READ_BUFFER, min(buffer, upstream.bandwidth // _BUFFERS_A_SECOND))
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
        auto_decompress=False,
        requote_redirect_url=False,
        read_bufsize=buffer,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        trace_configs=[connector.tracing()],
        max_headers=_MOST_HEADERS,
    )


def release_with(answer: aiohttp.ClientResponse, slot: Slot) -> None:
    """End a turn as soon as the connection of an answer is free or closed."""
    if answer.connection is None:
        slot.release()
    else:
        answer.connection.add_callback(slot.release)
