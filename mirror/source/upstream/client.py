"""One HTTP client for all upstreams: authorised, retried, within a budget of time, and calm when they misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import ssl
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.observe.metrics import HubMetrics
from mirror.oci.digest import Digest
from mirror.oci.errors import Failure, RegistryError
from mirror.source.pace import Pace
from mirror.source.upstream import body, failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.authorization import Authorization
from mirror.source.upstream.bandwidth import Bandwidth
from mirror.source.upstream.breaker import Breakers
from mirror.source.upstream.connections import Connections, release_with
from mirror.source.upstream.credentials import Credentials
from mirror.source.upstream.endpoints import Endpoints
from mirror.source.upstream.proxies import Proxies
from mirror.source.upstream.quota import Quotas
from mirror.source.upstream.quota_news import QuotaNews
from mirror.source.upstream.redirects import follow
from mirror.source.upstream.retry import retrying
from mirror.source.upstream.slots import Slot

# Every attempt together, a blob's body apart: whoever waits shall hear within 10 s.
BUDGET_SECONDS = 8.5
# What is left of that at least for a request whose turn came late.
_LEAST_SECONDS = 4.0
# What an exchange that is late has to say for itself.
_GRACE_SECONDS = 0.25
_LAST_MOMENT_SECONDS = 0.5
# While somebody waits who can be answered otherwise, an endpoint at which nothing moves for this long is passed over.
_QUIET_SECONDS = 0.9
# Storage that was just asked answers soon, or is asked again over another connection.
_STORAGE_SECONDS = 4.0
# What bandwidth lets pass of what was sent is never quite all.
_ENOUGH = 0.8
_LONGEST_ERROR = 64 * 2**10
_ERROR_SECONDS = 2.0
_MOST_PACES = 1000
_Result = TypeVar("_Result")
_Finish = Callable[[Ask, aiohttp.ClientResponse], Awaitable[_Result]]
# Makes a request, once or as often as it takes.
_Attempts = Callable[[bool], Awaitable[_Result]]


class Opened(NamedTuple):
    """An open answer, and the endpoint that gave it, empty for the upstream itself."""

    answer: aiohttp.ClientResponse
    base: str


class UpstreamClient:
    """Asks upstreams. Answers come back open, with a success status; every other one is a RegistryError."""

    def __init__(
        self,
        metrics: HubMetrics,
        contexts: Mapping[str, ssl.SSLContext],
        proxies: Proxies,
        credentials: Credentials,
        news: QuotaNews | None = None,
    ) -> None:
        """Count in `metrics`; `contexts` holds the TLS context of each `ca_file` that is configured.

        By `news` replicas of a fleet share the limits of upstreams.
        """
        self._metrics = metrics
        self.quotas = Quotas(metrics, news)
        self._connections = Connections(metrics, contexts, proxies)
        self._authorization = Authorization(self._connections, credentials, self.received)
        self._breakers = Breakers(metrics)
        self._endpoints = Endpoints(self._connections, self._breakers)
        self._bandwidths: dict[str, Bandwidth] = {}
        self._paces: dict[tuple[str, str], Pace] = {}
        self._deadlines: weakref.WeakKeyDictionary[aiohttp.ClientResponse, float] = weakref.WeakKeyDictionary()

    async def close(self) -> None:
        """Close every connection."""
        await self._endpoints.close()
        await self._authorization.close()
        await self._connections.close()

    async def identity(self, upstream: Upstream) -> str:
        """Return as whom an upstream is asked now, as a text that changes with the account; nobody is empty."""
        identity = await self._authorization.identity(upstream)
        self.quotas.asked_as(upstream, identity)
        return identity

    async def ask(self, ask: Ask) -> aiohttp.ClientResponse:
        """Return an open answer, its status below 300; the caller releases it.

        Raises:
            RegistryError: every attempt failed, or the upstream said no.
        """
        return (await self.open(ask)).answer

    async def open(self, ask: Ask) -> Opened:
        """Return an open answer, its status below 300, and who gave it; the caller releases it.

        Raises:
            RegistryError: every attempt failed, or the upstream said no.
        """
        slot, ask = await self._turn(ask)
        try:
            opened = await self._in_time(ask, _open)
        except BaseException:
            slot.release()
            raise
        release_with(opened.answer, slot)
        self._deadlines[opened.answer] = ask.deadline
        return opened

    async def open_there(self, ask: Ask, url: URL) -> aiohttp.ClientResponse:
        """Return an open answer, its status below 300, from where an answer to the same request came from before.

        Nothing that authorises goes there: it is another origin than the registry's, so no breaker speaks of it either.

        Raises:
            RegistryError: it says no, or cannot be had.
        """
        slot = await self._connections.turn(ask)
        try:
            ask = ask._replace(deadline=time.monotonic() + _STORAGE_SECONDS)
            answer = await follow(self._connections, ask, url, lambda _: None)
            await _accept(ask, answer)
        except BaseException:
            slot.release()
            raise
        release_with(answer, slot)
        return answer

    async def fetch(self, ask: Ask, longest: int, use: Callable[[Mapping[str, str], bytes], _Result]) -> _Result:
        """Return what `use` makes of the headers and the whole body of an answer.

        Raises:
            RegistryError: every attempt failed, the upstream said no, or sent more than `longest` bytes; or `use` did.
        """

        async def finish(asked: Ask, answer: aiohttp.ClientResponse) -> _Result:
            content = await self.read(answer, asked, longest)
            try:
                return use(answer.headers, content)
            except RegistryError:
                if asked.base:
                    self._endpoints.exclude(asked)
                raise

        slot, ask = await self._turn(ask)
        try:
            return await self._in_time(ask, finish)
        finally:
            slot.release()

    def distrust(self, upstream: Upstream, digest: Digest, base: str = "") -> None:
        """Have no endpoint, or `base` alone, asked for a blob for a while: what came was something else."""
        for endpoint in (base,) if base else upstream.endpoints:
            self._endpoints.exclude_blob(endpoint, digest)

    def is_left_alone(self, upstream: Upstream) -> bool:
        """Say whether an upstream failed, and is only asked whether it is back."""
        return self._breakers.of(upstream, "").is_open

    def bandwidth(self, upstream: Upstream) -> Bandwidth | None:
        """Return what holds back every blob of a configured upstream, if anything does."""
        if not upstream.bandwidth:
            return None
        bandwidth = self._bandwidths.get(upstream.label)
        if bandwidth is None:
            bandwidth = self._bandwidths[upstream.label] = Bandwidth(upstream.bandwidth)
        return bandwidth

    def pace(self, upstream: Upstream) -> Pace:
        """Return how many connections to an upstream pay."""
        key = (upstream.name, upstream.url)
        pace = self._paces.get(key)
        if pace is None:
            while len(self._paces) >= _MOST_PACES:
                del self._paces[next(iter(self._paces))]
            most = self._connections.turns(upstream).most_transfers
            enough = upstream.bandwidth * _ENOUGH or math.inf
            pace = Pace(most, enough, lambda: self._connections.turns(upstream).spare_transfers)
            self._paces[key] = pace
        return pace

    async def read(self, answer: aiohttp.ClientResponse, ask: Ask, longest: int) -> bytes:
        """Return an answer's whole body within what is left of its request's time, and release it.

        Raises:
            RegistryError: it broke off, or is longer than `longest` bytes.
        """
        ask = ask._replace(deadline=self._deadlines.get(answer, ask.deadline))
        content = await body.read(answer, ask, longest)
        self.received(ask.upstream, len(content))
        return content

    def received(self, upstream: Upstream, amount: int) -> None:
        """Count body bytes."""
        self._metrics.upstream_bytes.labels(upstream.label).inc(amount)
        self._connections.moved(upstream)

    async def _turn(self, ask: Ask) -> tuple[Slot, Ask]:
        """Wait for a request's turn, and return it with the request and how long that has from now on."""
        arrived = time.monotonic()
        if not ask.upstream.endpoints:
            await self._breakers.of(ask.upstream, "").ready(ask)
        slot = await self._connections.turn(ask)
        return slot, ask._replace(deadline=max(arrived + BUDGET_SECONDS, time.monotonic() + _LEAST_SECONDS))

    async def _in_time(self, ask: Ask, finish: _Finish[_Result]) -> _Result:
        try:
            async with asyncio.timeout(ask.deadline - time.monotonic() + _GRACE_SECONDS):
                for asked in self._endpoints.before(ask):
                    with contextlib.suppress(RegistryError):
                        return await self._unless_open(asked, functools.partial(self._briefly, asked, finish))
                return await self._at_upstream(ask, finish)
        except TimeoutError:
            raise failures.late(ask.upstream, ask.url.authority) from None

    async def _at_upstream(self, ask: Ask, finish: _Finish[_Result]) -> _Result:
        identity = "" if ask.is_anonymous else await self.identity(ask.upstream)

        def count(failure: Failure) -> None:
            self._metrics.upstream_retries.labels(ask.upstream.label, failure).inc()

        async def attempts(once: bool) -> _Result:
            seconds = 0.0 if once else ask.deadline - time.monotonic() - _LAST_MOMENT_SECONDS
            return await retrying(
                functools.partial(self._once, ask, identity, finish), count, seconds=seconds, is_quick=ask.is_quick
            )

        try:
            return await self._unless_open(ask, attempts)
        except failures.UpstreamError as error:
            if error.failure is Failure.TOO_MANY:
                self.quotas.limited(ask, identity, error)
            raise

    async def _unless_open(self, ask: Ask, attempts: _Attempts[_Result]) -> _Result:
        """Make a request unless its breaker holds it back; one that finds out about an outage is made once."""
        breaker = self._breakers.of(ask.upstream, ask.base)
        was_probe = await breaker.enter(ask)
        error: BaseException | None = None
        try:
            return await attempts(was_probe)
        except BaseException as raised:
            error = raised
            raise
        finally:
            breaker.leave(ask, error, was_probe=was_probe)

    async def _briefly(self, ask: Ask, finish: _Finish[_Result], _: bool) -> _Result:
        """Ask an endpoint, for as long as something moves forward if somebody could be answered otherwise."""
        if not ask.is_quick:
            return await self._once(ask, "", finish)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_QUIET_SECONDS) as limit:

                def step(weight: int) -> None:
                    with contextlib.suppress(RuntimeError):  # nobody may wait any more
                        limit.reschedule(loop.time() + weight * _QUIET_SECONDS)
                    ask.step(weight)

                return await self._once(ask._replace(step=step), "", finish)
        except TimeoutError:
            raise failures.unreachable(ask.upstream, ask.url.authority, Failure.TIMEOUT) from None

    async def _once(self, ask: Ask, identity: str, finish: _Finish[_Result]) -> _Result:
        allowance = self.quotas.admit(ask, identity)
        try:
            answer = await self._authorization.send(ask)
            if answer.url.origin() == ask.url.origin():
                self.quotas.learn(allowance, ask, answer.headers)
            await _accept(ask, answer)
        except failures.UpstreamError as error:
            if error.failure is Failure.TOO_MANY and self.quotas.is_used_up(allowance):
                error.is_passing = False
            raise
        finally:
            self.quotas.leave(allowance)
        return await finish(ask, answer)


async def _open(ask: Ask, answer: aiohttp.ClientResponse) -> Opened:
    return Opened(answer, ask.base)


async def _accept(ask: Ask, answer: aiohttp.ClientResponse) -> None:
    """Let a usable answer pass.

    Raises:
        RegistryError: what the answer means otherwise; it is closed.
    """
    is_whole = answer.headers.get("Content-Encoding", "identity").lower() == "identity"
    # What an endpoint has not, another one may have.
    in_range = {206} if ask.base else {206, 416}
    usable = {200, *in_range} if "Range" in ask.headers else {200}
    if answer.status in usable and is_whole and not _is_useless_head(ask, answer):
        return
    try:
        meaning = ask.meaning(ask, answer)
        if meaning is not None:
            raise meaning
        if answer.status in {200, 206}:
            what = "something that was not asked for" if is_whole else "in a coding that was not asked for"
            raise failures.unusable(ask.upstream, f"answered {what}", answer.status)
        text = b""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(_ERROR_SECONDS):
                text = await body.read_at_most(answer, _LONGEST_ERROR) or b""
        host = answer.url.authority
        raise failures.refusal(ask.upstream, answer.status, answer.headers, text, ask.unknown, host)
    finally:
        answer.close()


def _is_useless_head(ask: Ask, answer: aiohttp.ClientResponse) -> bool:
    return (
        bool(ask.base)
        and (ask.kind, ask.method) == ("manifest", "HEAD")
        and "Docker-Content-Digest" not in answer.headers
    )
