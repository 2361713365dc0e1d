"""As whom an upstream is asked: nobody, or the bearer of a token for one repository."""

from __future__ import annotations

import aiohttp
from yarl import URL

from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream import body, failures
from mirror.source.upstream.ask import Ask
from mirror.source.upstream.challenge import bearer
from mirror.source.upstream.connections import Connections
from mirror.source.upstream.redirects import follow
from mirror.source.upstream.tokens import Scope, Tokens, token_url

_TOKEN_SECONDS = 9.0
_LONGEST_TOKEN_ANSWER = 2**20


class Authorization:
    """Answers challenges."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._tokens = Tokens()

    async def close(self) -> None:
        """End every request under way."""
        await self._tokens.close()

    async def send(self, ask: Ask) -> aiohttp.ClientResponse:
        """Return the open answer, of any status, with the token that is known, else cold, else with a new one.

        Raises:
            RegistryError: an exchange failed, or no token was to be had.
        """
        scope = Scope(ask.upstream.url, ask.repository.name)
        token = self._tokens.get(scope)
        if token is not None:
            answer = await follow(self._connections, ask, _bearer(token))
            if answer.status != 401:
                return answer
            answer.release()
            self._tokens.drop(scope, token)
        # Asked cold: what a registry says to an expired token may lead nowhere.
        answer = await follow(self._connections, ask, None)
        challenge = bearer(answer.headers.getall("WWW-Authenticate", [])) if answer.status == 401 else None
        if challenge is None:
            return answer
        answer.release()
        url = token_url(challenge, ask.repository.name)
        token = await self._tokens.ask(scope, lambda: self._fetch_token(ask, url))
        answer = await follow(self._connections, ask, _bearer(token))
        if answer.status == 401 and token is not None:
            # Docker Hub is known to refuse a token that is brand-new.
            answer.release()
            answer = await follow(self._connections, ask, _bearer(token))
        if answer.status == 401:
            self._tokens.drop(scope, token)
        return answer

    async def _fetch_token(self, ask: Ask, url: str) -> bytes:
        target = _realm(ask, url)
        token_ask = ask._replace(kind="token", method="GET")
        async with failures.time_limit(ask.upstream, target, _TOKEN_SECONDS):
            answer = await self._connections.send(token_ask, target, {})
            if answer.status != 200:
                refused = failures.refusal(ask.upstream, answer.status, answer.headers, b"", ErrorCode.DENIED)
                answer.close()
                if refused.failure is None:
                    refused.failure = Failure.CREDENTIALS  # it speaks of the mirror, not of the image
                raise refused
            return await body.read(answer, token_ask, _LONGEST_TOKEN_ANSWER)


def _bearer(token: str | None) -> str | None:
    return None if token is None else f"Bearer {token}"


def _realm(ask: Ask, url: str) -> URL:
    try:
        target = URL(url, encoded=True)
        _ = target.port  # yarl looks only when it is asked
    except (ValueError, UnicodeError):
        target = URL()
    is_web = target.scheme in {"http", "https"} and target.host is not None
    if not is_web or (ask.url.scheme, target.scheme) == ("https", "http"):
        text = f"upstream {ask.upstream.name} names a token realm that is not https"
        raise RegistryError(ErrorCode.DENIED, text, failure=Failure.CREDENTIALS)
    return target
