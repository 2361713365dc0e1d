"""Bearer tokens (Docker registry v2 token authentication): asked for once per scope, renewed early."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from mirror.oci.errors import Failure, RegistryError
from mirror.source.upstream.expiring import Expiring

_FLOOR_SECONDS = 60.0
_CEILING_SECONDS = 86400.0
_EARLY = 0.1
_REFUSAL_SECONDS = 3.0
_MOST_TOKENS = 4096
# Servers take no longer headers, and no registry is known to want them.
_LONGEST_TOKEN = 2**14


Step = Callable[[int], None]


class _Answer(msgspec.Struct):
    token: object = None
    access_token: object = None
    expires_in: object = None


class Scope(NamedTuple):
    """What a token is good for, and to whom it was given: the fingerprint of a credential, nothing for anybody."""

    endpoint: str
    repository: str
    fingerprint: str = ""
    actions: str = "pull"


class Tokens:
    """The token cache of a replica. Waiters of one scope share one request."""

    def __init__(self) -> None:
        self._tokens: Expiring[Scope, str] = Expiring(_FLOOR_SECONDS, _MOST_TOKENS)
        self._refused: Expiring[Scope, RegistryError] = Expiring(_REFUSAL_SECONDS, _MOST_TOKENS)
        self._asking: dict[Scope, asyncio.Future[str | None]] = {}
        self._steps: dict[Scope, list[Step]] = {}

    def get(self, scope: Scope) -> str | None:
        """Return a token that is still good."""
        return self._tokens.get(scope)

    def drop(self, scope: Scope, token: str) -> None:
        """Forget a token that was refused, unless another one took its place."""
        if self._tokens.get(scope) == token:
            self._tokens.drop(scope)

    async def ask(self, scope: Scope, step: Step, fetch: Callable[[Step], Awaitable[bytes]]) -> str | None:
        """Return a new token from the answer that `fetch` gets; None if the answer carries none.

        What `fetch` tells of its steps reaches the `step` of everybody who waits.

        Raises:
            RegistryError: the token endpoint failed, or refused a moment ago.
        """
        refused = self._refused.get(scope)
        if refused is not None:
            raise type(refused)(refused.code, refused.message, failure=refused.failure, is_remembered=True)
        task = self._asking.get(scope)
        if task is None:
            steps: list[Step] = []
            self._steps[scope] = steps
            task = self._asking[scope] = asyncio.ensure_future(self._fetch(scope, steps, fetch))
            task.add_done_callback(lambda done: self._asked(scope, done))
        self._steps[scope].append(step)
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
        self._steps.pop(scope, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def _fetch(self, scope: Scope, steps: list[Step], fetch: Callable[[Step], Awaitable[bytes]]) -> str | None:
        asked_at = time.monotonic()

        def step(weight: int) -> None:
            for each in steps:
                each(weight)

        try:
            body = await fetch(step)
        except RegistryError as error:
            # Of the mirror's own credentials the account keeps count.
            if error.failure is Failure.CREDENTIALS and not scope.fingerprint:
                self._refused.put(scope, error)
            raise
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        token = _text(answer.token) or _text(answer.access_token)
        if token:
            good_for = _lifetime(answer.expires_in) * (1 - _EARLY) - (time.monotonic() - asked_at)
            self._tokens.put(scope, token, good_for)
        return token or None


def _text(value: object) -> str:
    """Return a token that a header can carry."""
    is_usable = isinstance(value, str) and value.isascii() and value.isprintable() and len(value) <= _LONGEST_TOKEN
    return str(value) if is_usable else ""


def _lifetime(announced: object) -> float:
    """Return how long a token is used: the server's clock is never trusted, nor a lifetime below a minute."""
    try:
        seconds = float(announced) if isinstance(announced, int | float | str) else 0.0
    except (ValueError, OverflowError):
        seconds = 0.0
    return min(max(seconds, _FLOOR_SECONDS), _CEILING_SECONDS) if math.isfinite(seconds) else _FLOOR_SECONDS
