"""One HTTP client for all upstreams: tokens, redirects followed by hand, retries before the first byte, counting."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import aiohttp
from yarl import URL

from mirror.config import Upstream
from mirror.observe.metrics import HubMetrics
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository
from mirror.source.upstream import failures
from mirror.source.upstream.challenge import bearer
from mirror.source.upstream.guard import GuardedResolver, Privacy, PrivateAddressError, is_address, is_private
from mirror.source.upstream.proxies import Proxies
from mirror.source.upstream.retry import retrying
from mirror.source.upstream.tokens import Scope, Tokens, token_url

USER_AGENT = "layover"
CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
# All attempts for anything but a blob together: whoever waits shall hear within 10 s. Storage may be slower.
BUDGET_SECONDS = 9.0
BODY_SECONDS = 30.0
_MOST_HOPS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LONGEST_ERROR = 64 * 2**10
_LONGEST_TOKEN_ANSWER = 2**20
_MOST_CONNECTIONS = 32
_READ_BUFFER = 256 * 2**10
_Result = TypeVar("_Result")


class Ask(NamedTuple):
    """One request to an upstream: a path below `/v2/<name>/` that may end in a query, and what a plain 404 means.

    `step` is called whenever the request moved forward: a redirect, a token, the answer itself.
    """

    upstream: Upstream
    repository: Repository
    kind: str
    method: str
    path: str
    unknown: ErrorCode
    headers: Mapping[str, str] = MappingProxyType({})
    step: Callable[[], None] = lambda: None

    @property
    def url(self) -> URL:
        """The URL at the upstream."""
        return URL(f"{self.upstream.url}/v2/{self.repository.name}/{self.path}", encoded=True)


class UpstreamClient:
    """Asks upstreams. Answers come back open, with a success status; every other one is a RegistryError."""

    def __init__(self, metrics: HubMetrics, contexts: Mapping[str, ssl.SSLContext], proxies: Proxies) -> None:
        """Count in `metrics`; `contexts` holds the TLS context of each `ca_file` that is configured."""
        self._metrics = metrics
        self._contexts = contexts
        self._proxies = proxies
        self._privacy = Privacy()
        self._tokens = Tokens()
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close every connection."""
        await self._tokens.close()
        for session in self._sessions.values():
            await session.close()

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

    async def ask(self, ask: Ask) -> aiohttp.ClientResponse:
        """Return the upstream's open answer, its status below 300; the caller releases it.

        Raises:
            RegistryError: every attempt failed, or the upstream said no.
        """
        if ask.kind == "blob":
            return await self._again(ask, lambda: self._authorised(ask))
        async with _time_limit(ask.upstream, ask.url):
            return await self._again(ask, lambda: self._authorised(ask))

    async def read(self, answer: aiohttp.ClientResponse, ask: Ask, longest: int) -> bytes:
        """Return an answer's whole body, and release it.

        Raises:
            RegistryError: it broke off, or is longer than `longest` bytes.
        """
        try:
            async with asyncio.timeout(BODY_SECONDS), answer:
                body = await _read_at_most(answer, longest)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise failures.unreachable(ask.upstream, _host(answer.url), failures.failure_of(error)) from None
        if body is None:
            text = f"upstream {ask.upstream.name} answered with more than {longest} bytes"
            raise RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=failures.RETRY_AFTER)
        self.received(ask.upstream, len(body))
        return body

    def received(self, upstream: Upstream, amount: int) -> None:
        """Count body bytes."""
        self._metrics.upstream_bytes.labels(upstream.label).inc(amount)

    async def _again(self, ask: Ask, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        def count(failure: Failure) -> None:
            self._metrics.upstream_retries.labels(ask.upstream.label, failure).inc()

        return await retrying(attempt, count)

    async def _authorised(self, ask: Ask) -> aiohttp.ClientResponse:
        """Ask with the token that is known, else cold, and then with the token that the challenge leads to."""
        scope = Scope(ask.upstream.url, ask.repository.name)
        token = self._tokens.get(scope)
        if token is not None:
            answer = await self._follow(ask, token)
            if answer.status != 401:
                return await self._accept(ask, answer)
            answer.release()
            self._tokens.drop(scope, token)
        # Asked cold: what a registry says to an expired token may lead nowhere.
        answer = await self._follow(ask, None)
        challenge = bearer(answer.headers.getall("WWW-Authenticate", [])) if answer.status == 401 else None
        if challenge is None:
            return await self._accept(ask, answer)
        answer.release()
        url = token_url(challenge, ask.repository.name)
        token = await self._tokens.ask(scope, lambda: self._fetch_token(ask, url))
        answer = await self._follow(ask, token)
        if answer.status == 401 and token is not None:
            # Docker Hub is known to refuse a token that is brand-new.
            answer.release()
            answer = await self._follow(ask, token)
        if answer.status == 401:
            self._tokens.drop(scope, token)
        return await self._accept(ask, answer)

    async def _accept(self, ask: Ask, answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        coding = answer.headers.get("Content-Encoding", "identity").lower()
        usable = {200, 206, 416} if "Range" in ask.headers else {200}
        if answer.status in usable and coding == "identity":
            return answer
        body = b""
        if answer.status not in {200, 206}:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                body = await _read_at_most(answer, _LONGEST_ERROR) or b""
        answer.close()
        raise failures.refusal(ask.upstream, answer.status, answer.headers, body, ask.unknown)

    async def _fetch_token(self, ask: Ask, url: str) -> bytes:
        target = _realm(ask, url)
        token_ask = ask._replace(kind="token", method="GET")
        async with _time_limit(ask.upstream, target):
            answer = await self._send(token_ask, target, {})
            if answer.status != 200:
                refused = failures.refusal(ask.upstream, answer.status, answer.headers, b"", ErrorCode.DENIED)
                answer.close()
                if refused.failure is None:
                    refused.failure = Failure.CREDENTIALS  # it speaks of the mirror, not of the image
                raise refused
            return await self.read(answer, token_ask, _LONGEST_TOKEN_ANSWER)

    async def _follow(self, ask: Ask, token: str | None) -> aiohttp.ClientResponse:
        """Send the request and follow its redirects; the token goes to the registry's own origin alone."""
        url = ask.url
        origin = url.origin()
        seen = {str(url)}
        for _ in range(_MOST_HOPS + 1):
            headers = dict(ask.headers)
            if token is not None and url.origin() == origin:
                headers["Authorization"] = f"Bearer {token}"
            answer = await self._send(ask, url, headers)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            answer.release()
            url = _target(ask.upstream, url, location)
            if str(url) in seen:
                break
            seen.add(str(url))
        raise _bad_redirect(ask.upstream, "redirects in a circle or too often")

    async def _send(self, ask: Ask, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        upstream = ask.upstream
        is_own = url.host == ask.url.host
        # Behind a proxy names need not resolve here, and what is dialled is the proxy.
        is_proxied = self._proxies.of(url) is not None
        is_free = is_own or is_proxied or await self._privacy.is_private(upstream, ask.url.host or "")
        if not is_own and (is_proxied or not is_free) and _is_private_literal(url):
            raise _bad_redirect(upstream, "leads to a private address")
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
            ask.step()
            return answer
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, PrivateAddressError):
                raise _bad_redirect(upstream, "leads to a private address") from None
            failure = failures.failure_of(error)
            status = failure
            raise failures.unreachable(upstream, _host(url), failure) from None
        finally:
            if status:
                self._metrics.upstream_requests.labels(upstream.label, ask.kind, ask.method, status).inc()


@contextlib.asynccontextmanager
async def _time_limit(upstream: Upstream, url: URL) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(BUDGET_SECONDS):
            yield
    except TimeoutError:
        raise failures.unreachable(upstream, _host(url), Failure.TIMEOUT) from None


async def _read_at_most(answer: aiohttp.ClientResponse, longest: int) -> bytes | None:
    pieces = bytearray()
    async for piece in answer.content.iter_any():
        pieces += piece
        if len(pieces) > longest:
            return None
    return bytes(pieces)


def _target(upstream: Upstream, url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location, encoded=True))
        _check_port(target)
    except (ValueError, UnicodeError):
        raise _bad_redirect(upstream, "redirects to something that is no URL") from None
    if (
        target.scheme not in {"http", "https"}
        or target.host is None
        or (url.scheme, target.scheme) == ("https", "http")
    ):
        raise _bad_redirect(upstream, "redirects to something that is not https")
    return target


def _realm(ask: Ask, url: str) -> URL:
    try:
        target = URL(url, encoded=True)
        _check_port(target)
    except (ValueError, UnicodeError):
        target = URL()
    is_web = target.scheme in {"http", "https"} and target.host is not None
    if not is_web or (ask.url.scheme, target.scheme) == ("https", "http"):
        text = f"upstream {ask.upstream.name} names a token realm that is not https"
        raise RegistryError(ErrorCode.DENIED, text, failure=Failure.CREDENTIALS)
    return target


def _check_port(url: URL) -> None:
    """Raise ValueError for a port that is none: yarl looks only when it is asked for."""
    _ = url.port


def _bad_redirect(upstream: Upstream, what: str) -> RegistryError:
    text = f"upstream {upstream.name} {what}"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=failures.RETRY_AFTER)


def _host(url: URL) -> str:
    return url.authority


def _is_private_literal(url: URL) -> bool:
    """Say whether a URL names a private address, or a number that aiohttp would dial without asking the resolver."""
    host = url.host or ""
    if is_address(host):
        return is_private(host)
    return ":" in host or host.replace(".", "").isdigit()
