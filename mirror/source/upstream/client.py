"""One HTTP client for all upstreams: authorised, retried before the first byte, within a budget of time."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping

import aiohttp

from mirror.config import Upstream
from mirror.observe.metrics import HubMetrics
from mirror.oci.errors import Failure
from mirror.source.upstream import body, failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.authorization import Authorization
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.proxies import Proxies
from mirror.source.upstream.quota import Quotas
from mirror.source.upstream.retry import retrying

# All attempts for anything but a blob together: whoever waits shall hear within 10 s. Storage may be slower.
BUDGET_SECONDS = 9.0
_LONGEST_ERROR = 64 * 2**10


class UpstreamClient:
    """Asks upstreams. Answers come back open, with a success status; every other one is a RegistryError."""

    def __init__(self, metrics: HubMetrics, contexts: Mapping[str, ssl.SSLContext], proxies: Proxies) -> None:
        """Count in `metrics`; `contexts` holds the TLS context of each `ca_file` that is configured."""
        self._metrics = metrics
        self.quotas = Quotas()
        self._connections = Connections(metrics, contexts, proxies)
        self._authorization = Authorization(self._connections)

    async def close(self) -> None:
        """Close every connection."""
        await self._authorization.close()
        await self._connections.close()

    async def identity(self, upstream: Upstream) -> str:  # noqa: ARG002 - the authorization will tell
        """Return as whom an upstream is asked now, as a text that changes with the credentials; nobody is empty."""
        return ""

    async def ask(self, ask: Ask) -> aiohttp.ClientResponse:
        """Return the upstream's open answer, its status below 300; the caller releases it.

        Raises:
            RegistryError: every attempt failed, or the upstream said no.
        """
        if ask.kind == "blob":
            return await self._again(ask)
        async with failures.time_limit(ask.upstream, ask.url, BUDGET_SECONDS):
            return await self._again(ask)

    async def read(self, answer: aiohttp.ClientResponse, ask: Ask, longest: int) -> bytes:
        """Return an answer's whole body, and release it.

        Raises:
            RegistryError: it broke off, or is longer than `longest` bytes.
        """
        content = await body.read(answer, ask, longest)
        self.received(ask.upstream, len(content))
        return content

    def received(self, upstream: Upstream, amount: int) -> None:
        """Count body bytes."""
        self._metrics.upstream_bytes.labels(upstream.label).inc(amount)

    async def _again(self, ask: Ask) -> aiohttp.ClientResponse:
        def count(failure: Failure) -> None:
            self._metrics.upstream_retries.labels(ask.upstream.label, failure).inc()

        return await retrying(lambda: self._once(ask), count)

    async def _once(self, ask: Ask) -> aiohttp.ClientResponse:
        return await _accept(ask, await self._authorization.send(ask))


async def _accept(ask: Ask, answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    coding = answer.headers.get("Content-Encoding", "identity").lower()
    usable = {200, 206, 416} if "Range" in ask.headers else {200}
    if answer.status in usable and coding == "identity":
        return answer
    text = b""
    if answer.status not in {200, 206}:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            text = await body.read_at_most(answer, _LONGEST_ERROR) or b""
    answer.close()
    raise failures.refusal(ask.upstream, answer.status, answer.headers, text, ask.unknown)
