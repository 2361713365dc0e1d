"""The way to Redis: what is asked is answered within 250 ms or not at all, and at once while it is known to be away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from mirror.config import Host, RedisUrl
from mirror.fleet.locating import CONNECT_SECONDS, ROOT, Locator, NotFound, command, connect, reason_of
from mirror.fleet.scripts import Script
from mirror.fleet.waiting import done_within, seconds_left, spending

_RETRY_SECONDS = 1.0
# Longer than any caller waits: a server that writes a snapshot may stand still for a moment, and is not away for that.
_SILENCE_SECONDS = 0.75
_MOST_AT_ONCE = 64
_MOST_UNDER_WAY = 4
_REASONS: tuple[tuple[type[Exception] | str, str], ...] = (
    (OutOfMemoryError, "is out of memory"),
    (ReadOnlyError, "is a replica, not the master"),
    (BusyLoadingError, "is loading its data"),
    (AuthenticationError, "refuses the user or the password"),
    (NoPermissionError, "does not let this user do what the fleet needs"),
    (MovedError, "has handed the state to another node"),
    (AskError, "is handing the state to another node"),
    (TryAgainError, "is handing the state to another node"),
    (ClusterDownError, "is part of a Cluster that is down"),
    (MasterDownError, "is a replica without its master"),
    ("MISCONF", "cannot write to its disk, and takes nothing"),
    ("BUSY", "is busy with a script"),
    ("NOREPLICAS", "lacks the replicas that it is to write to"),
    ("OOM", "is out of memory"),
    ("READONLY", "is a replica, not the master"),
    ("LOADING", "is loading its data"),
)


class Away(Exception):
    """Redis did not answer, or is known not to."""


class _Call(NamedTuple):
    script: Script
    arguments: tuple[Any, ...]
    answer: asyncio.Future[Any]


class Link:
    """One connection at a time to the server that has the state; calls that meet go in one batch."""

    def __init__(self, url: Callable[[], RedisUrl], greet: Callable[[], Awaitable[None]]) -> None:
        """Be ready to talk to where `url` says. `greet` is awaited on each new connection before others may use it.

        It may use `run`, and raises Away if that does.
        """
        self.is_up = False
        self.reason = "was not asked yet"
        self.since = time.time()
        self.host: Host | None = None
        self.client: Redis | None = None
        self.lost = asyncio.Event()
        self.met = asyncio.Event()
        self._url = url
        self._greet = greet
        self._locator = Locator()
        self._queue: list[_Call] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("layover.fleet")
        self._told = ""

    def start(self) -> None:
        """Begin to connect, for ever."""
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the connection."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._drop("was left")

    async def run(self, script: Script, *arguments: str | bytes | float) -> Any:
        """Return what a script answers.

        Raises:
            Away: it does not within what is left to wait.
        """
        if self.client is None:
            raise Away(self.reason)
        seconds = seconds_left()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(_Call(script, arguments, answer))
        self._waiting.add(answer)
        if len(self._pumps) < _MOST_UNDER_WAY:
            pump = asyncio.create_task(self._pump())
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        try:
            with spending():
                await done_within(answer, seconds)
        finally:
            self._waiting.discard(answer)
        if not answer.done():
            raise Away("did not answer in time")
        found = answer.result()
        if isinstance(found, Away):
            raise found
        return found

    def lose(self, reason: str) -> None:
        """Count Redis as away, until it answers again."""
        if self.client is None or self.lost.is_set():
            return
        self.reason = reason
        self.is_up = False
        self.since = time.time()
        self.lost.set()
        for answer in self._waiting:
            if not answer.done():
                answer.set_result(Away(reason))
        self._waiting.clear()
        self._queue.clear()

    async def _keep(self) -> None:
        while True:
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, pulls go on and it is tried again
                await self._drop(self._explain(error))
                self._tell()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.met.set()
            self._told = ""
            self._log.info("the fleet's Redis answers", redis=str(self.host))
            await self.lost.wait()
            self._tell()
            await self._drop(self.reason)

    async def _connect(self) -> None:
        self.lost.clear()
        url = self._url()
        self.host = None
        self.host = await self._locator.find(url)
        client = connect(url, self.host, database=url.database)
        async with asyncio.timeout(2 * CONNECT_SECONDS):
            try:
                await _check_role(client)
            except BaseException:
                await client.aclose()
                raise
            self.client = client
            await self._greet()
        if self.lost.is_set():
            raise Away(self.reason)
        self.is_up = True

    async def _drop(self, reason: str) -> None:
        self.lose(reason)
        self.reason = reason
        self.is_up = False
        client, self.client = self.client, None
        for pump in tuple(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        if client is not None:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    async def _pump(self) -> None:
        while self._queue and self.client is not None:
            calls, self._queue = self._queue[:_MOST_AT_ONCE], self._queue[_MOST_AT_ONCE:]
            try:
                answers = await self._send(self.client, [call for call in calls if not call.answer.done()])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is away for all who wait
                self.lose(self._explain(error))
                return
            for call, found in answers:
                if not call.answer.done():
                    call.answer.set_result(self._judge(call, found))

    async def _send(self, client: Redis, calls: list[_Call]) -> list[tuple[_Call, Any]]:
        found = await self._exchange(client, [("EVALSHA", each.script.sha, each) for each in calls])
        unknown = [call for call, answer in zip(calls, found, strict=True) if isinstance(answer, NoScriptError)]
        if not unknown:
            return list(zip(calls, found, strict=True))
        again = await self._exchange(client, [("EVAL", each.script.source, each) for each in unknown])
        known = [(call, answer) for call, answer in zip(calls, found, strict=True) if call not in unknown]
        return known + list(zip(unknown, again, strict=True))

    async def _exchange(self, client: Redis, orders: list[tuple[str, str, _Call]]) -> list[Any]:
        if not orders:
            return []
        batch = client.pipeline(transaction=False)
        for verb, script, call in orders:
            batch.execute_command(verb, script, 1, ROOT, *call.arguments)
        sending = asyncio.ensure_future(batch.execute(raise_on_error=False))
        try:
            if not await done_within(sending, _SILENCE_SECONDS):
                raise Away(f"did not answer within {_SILENCE_SECONDS * 1000:.0f} ms")
            return sending.result()
        finally:
            sending.cancel()

    def _judge(self, call: _Call, found: Any) -> Any:
        """Tell what an answer means: an error of the server is its absence, one of a script only this call's."""
        if not isinstance(found, Exception):
            return found
        reason = _reason(found)
        if reason:
            self.lose(reason)
        else:
            self._log.error("a script of the fleet failed", script=call.script.name, error=str(found)[:500])
        return Away(reason or "did not do what was asked")

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, Away | NotFound):
            return str(error)
        if not isinstance(error, RedisError | OSError | TimeoutError):
            return f"cannot be used: {type(error).__name__}: {error}"[:300]
        return _reason(error) or reason_of(error)

    def _tell(self) -> None:
        """Say once why Redis is away."""
        if self.reason != self._told:
            self._told = self.reason
            url = self._url()
            self._log.warning(
                "the fleet's Redis is away: this replica goes on alone", redis=str(url), reason=self.reason
            )


async def _check_role(client: Redis) -> None:
    """Make sure that writes are taken, as far as this user may ask.

    Raises:
        Away: they are not.
    """
    with contextlib.suppress(NoPermissionError):
        role, *_ = await command(client, "ROLE")
        if role != b"master":
            raise Away("is a replica, not the master")


def _reason(error: BaseException) -> str:
    for kind, words in _REASONS:
        if isinstance(kind, str):
            if isinstance(error, ResponseError) and f"{kind} " in str(error):
                return words
        elif isinstance(error, kind):
            return words
    return ""
