"""One HTTP client for all upstreams: tokens, redirects followed by hand, retries before the first byte, counting."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
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
from mirror.source.upstream.retry import retrying
from mirror.source.upstream.tokens import Scope, Tokens, token_url

USER_AGENT = "layover"
CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
# All attempts for anything but a blob together: whoever waits shall hear within 10 s. Storage may be slower.
BUDGET_SECONDS = 9.0
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

    def __init__(self, metrics: HubMetrics, contexts: Mapping[str, ssl.SSLContext]) -> None:
        """Count in `metrics`; `contexts` holds the TLS context of each `ca_file` that is configured."""
        self._metrics = metrics
        self._contexts = contexts
        self._tokens = Tokens()
        self._session: aiohttp.ClientSession

    async def open(self) -> None:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=_MOST_CONNECTIONS, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
            auto_decompress=False,
            requote_redirect_url=False,
            trust_env=True,
            read_bufsize=_READ_BUFFER,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def ask(self, ask: Ask) -> aiohttp.ClientResponse:
        """Return the upstream's open answer, its status below 300; the caller releases it.

        Raises:
            RegistryError: every attempt failed, or the upstream said no.
        """
        if ask.kind == "blob":
            return await self._again(ask, lambda: self._authorised(ask))
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                return await self._again(ask, lambda: self._authorised(ask))
        except TimeoutError:
            raise failures.unreachable(ask.upstream, _host(ask.url), Failure.TIMEOUT) from None

    async def read(self, answer: aiohttp.ClientResponse, ask: Ask, longest: int) -> bytes:
        """Return an answer's whole body, and release it.

        Raises:
            RegistryError: it broke off, or is longer than `longest` bytes.
        """
        try:
            async with answer:
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
        """Ask with the token that is known, and once more for each of two challenges: registries refuse new tokens."""
        scope = Scope(ask.upstream.url, ask.repository.name)
        token = self._tokens.get(scope)
        for _ in range(2):
            answer = await self._follow(ask, token)
            if answer.status != 401:
                break
            challenge = bearer(answer.headers.getall("WWW-Authenticate", []))
            if challenge is None and token is None:
                break
            answer.release()
            self._tokens.drop(scope, token)
            token = None
            if challenge is not None:
                url = token_url(challenge, ask.repository.name)
                token = await self._tokens.ask(scope, lambda url=url: self._fetch_token(ask, url))  # type: ignore[misc]
        else:
            answer = await self._follow(ask, token)
        return await self._accept(ask, answer)

    async def _accept(self, ask: Ask, answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        coding = answer.headers.get("Content-Encoding", "identity").lower()
        if answer.status in {200, 206, 416} and coding == "identity":
            return answer
        body = b""
        if answer.status not in {200, 206}:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                body = await _read_at_most(answer, _LONGEST_ERROR) or b""
        answer.close()
        raise failures.refusal(ask.upstream, answer.status, answer.headers, body, ask.unknown)

    async def _fetch_token(self, ask: Ask, url: str) -> bytes:
        target = URL(url, encoded=True)
        if target.scheme not in {"http", "https"} or (ask.url.scheme == "https" and target.scheme == "http"):
            text = f"upstream {ask.upstream.name} names a token realm that is not https"
            raise RegistryError(ErrorCode.DENIED, text, failure=Failure.CREDENTIALS)
        token_ask = ask._replace(kind="token", method="GET")
        answer = await self._send(token_ask, target, {})
        if answer.status != 200:
            refused = failures.refusal(ask.upstream, answer.status, answer.headers, b"", ErrorCode.DENIED)
            answer.close()
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
        status = ""
        try:
            answer = await self._session.request(
                ask.method, url, headers=headers, allow_redirects=False, ssl=self._contexts.get(upstream.ca_file, True)
            )
            status = str(answer.status)
            ask.step()
            return answer
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            failure = failures.failure_of(error)
            status = failure
            raise failures.unreachable(upstream, _host(url), failure) from None
        finally:
            if status:
                self._metrics.upstream_requests.labels(upstream.label, ask.kind, ask.method, status).inc()


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
    except ValueError:
        raise _bad_redirect(upstream, "redirects to something that is no URL") from None
    if (
        target.scheme not in {"http", "https"}
        or target.host is None
        or (url.scheme, target.scheme) == ("https", "http")
    ):
        raise _bad_redirect(upstream, "redirects to something that is not https")
    return target


def _bad_redirect(upstream: Upstream, what: str) -> RegistryError:
    text = f"upstream {upstream.name} {what}"
    return RegistryError(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=failures.RETRY_AFTER)


def _host(url: URL) -> str:
    return url.authority
