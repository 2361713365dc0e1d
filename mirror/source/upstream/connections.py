"""Connections towards upstreams: one HTTP exchange at a time, its name looked up, guarded and counted."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp
from yarl import URL

from mirror.observe.metrics import HubMetrics
from mirror.source.upstream import failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.guard import GuardedResolver, Privacy, PrivateAddressError, is_address, is_private
from mirror.source.upstream.proxies import Proxies

USER_AGENT = "layover"
CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
_MOST_CONNECTIONS = 32
_READ_BUFFER = 256 * 2**10


class Connections:
    """Sends requests to wherever an upstream leads, and brings back open answers of any status."""

    def __init__(self, metrics: HubMetrics, contexts: Mapping[str, ssl.SSLContext], proxies: Proxies) -> None:
        """Count in `metrics`; `contexts` holds the TLS context of each `ca_file` that is configured."""
        self._metrics = metrics
        self._contexts = contexts
        self._proxies = proxies
        self._privacy = Privacy()
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()

    async def send(self, ask: Ask, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Return the open answer of `url`, to which `ask` led.

        Raises:
            RegistryError: there is none, or the address is one where this upstream may not lead.
        """
        upstream = ask.upstream
        is_own = url.host == ask.url.host
        # Behind a proxy names need not resolve here, and what is dialled is the proxy.
        is_proxied = self._proxies.of(url) is not None
        is_free = is_own or is_proxied or await self._privacy.is_private(upstream, ask.url.host or "")
        if not is_own and (is_proxied or not is_free) and _is_private_literal(url):
            raise failures.bad_redirect(upstream, "leads to a private address")
        status = ""
        try:
            answer = await self._session(is_free=is_free, is_blob=ask.kind == "blob").request(
                ask.method,
                url,
                headers=headers,
                allow_redirects=False,
                ssl=self._contexts.get(upstream.ca_file, True),
                proxy=self._proxies.of(url),
            )
            status = str(answer.status)
            ask.step(1)
            return answer
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, PrivateAddressError):
                raise failures.bad_redirect(upstream, "leads to a private address") from None
            failure = failures.failure_of(error)
            status = failure
            raise failures.unreachable(upstream, url.authority, failure) from None
        finally:
            if status:
                self._metrics.upstream_requests.labels(upstream.label, ask.kind, ask.method, status).inc()

    def _session(self, *, is_free: bool, is_blob: bool) -> aiohttp.ClientSession:
        """Return the connections that may lead anywhere or not, and of blobs or not: slow ones must starve nothing."""
        session = self._sessions.get((is_free, is_blob))
        if session is None:
            resolver = None if is_free else GuardedResolver()
            session = self._sessions[is_free, is_blob] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, limit_per_host=_MOST_CONNECTIONS, ttl_dns_cache=60, resolver=resolver
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
                auto_decompress=False,
                requote_redirect_url=False,
                read_bufsize=_READ_BUFFER,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            )
        return session


def _is_private_literal(url: URL) -> bool:
    """Say whether a URL names a private address, or a number that aiohttp would dial without asking the resolver."""
    host = url.host or ""
    if is_address(host):
        return is_private(host)
    return ":" in host or host.replace(".", "").isdigit()
