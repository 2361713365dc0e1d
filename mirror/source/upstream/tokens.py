"""Bearer tokens (Docker registry v2 token authentication): asked for once per scope, renewed early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from mirror.source.upstream.challenge import Challenge

_FLOOR_SECONDS = 60.0
_EARLY = 0.1
_MOST_TOKENS = 10_000


class _Answer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


class Scope(NamedTuple):
    """What a token is good for: one repository of one upstream's URL."""

    url: str
    repository: str


class Tokens:
    """The token cache of a replica. Waiters of one scope share one request."""

    def __init__(self) -> None:
        self._tokens: dict[Scope, tuple[str, float]] = {}
        self._asking: dict[Scope, asyncio.Future[str | None]] = {}

    def get(self, scope: Scope) -> str | None:
        """Return a token that is still good."""
        token, until = self._tokens.get(scope, ("", 0.0))
        return token if until > time.monotonic() else None

    def drop(self, scope: Scope, token: str | None) -> None:
        """Forget a token that was refused, unless another one took its place."""
        if token is not None and self._tokens.get(scope, ("", 0.0))[0] == token:
            del self._tokens[scope]

    async def ask(self, scope: Scope, fetch: Callable[[], Awaitable[bytes]]) -> str | None:
        """Return a new token from the answer that `fetch` gets; None if the answer carries none.

        Raises:
            RegistryError: the token endpoint failed.
        """
        waiting = self._asking.get(scope)
        if waiting is not None:
            return await asyncio.shield(waiting)
        task = asyncio.ensure_future(self._fetch(scope, fetch))
        self._asking[scope] = task
        task.add_done_callback(lambda done: self._asked(scope, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End every request under way."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    def _asked(self, scope: Scope, task: asyncio.Future[str | None]) -> None:
        self._asking.pop(scope, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def _fetch(self, scope: Scope, fetch: Callable[[], Awaitable[bytes]]) -> str | None:
        asked_at = time.monotonic()
        body = await fetch()
        try:
            answer = msgspec.json.decode(body, type=_Answer, strict=False)
        except (msgspec.MsgspecError, ValueError):
            return None
        token = answer.token or answer.access_token
        if not token or not token.isascii() or not token.isprintable():
            return None
        # The server's clock is never trusted, and no lifetime below a minute is believed.
        lifetime = max(answer.expires_in or 0.0, _FLOOR_SECONDS)
        while len(self._tokens) >= _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[scope] = (token, asked_at + lifetime * (1 - _EARLY))
        return token


def token_url(challenge: Challenge, repository: str) -> str:
    """Return the URL that a challenge sends to for a token to pull from `repository`."""
    realm = challenge.parameters["realm"]
    scope = challenge.parameters.get("scope") or f"repository:{repository}:pull"
    fields = [("scope", scope)]
    if challenge.parameters.get("service"):
        fields.insert(0, ("service", challenge.parameters["service"]))
    return f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}"
