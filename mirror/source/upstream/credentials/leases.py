"""What is good for a while: had in a thread when it is needed, shared, renewed early, and not asked for in vain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from typing import Generic, NamedTuple, TypeVar

import structlog

from mirror.source.upstream.credentials.credential import CredentialError

Value = TypeVar("Value")

# How long a caller waits, at first and after a failure; the call itself goes on for those who come later.
_PATIENCE_SECONDS = 6.0
_PATIENCE_AFTER_FAILURE_SECONDS = 1.0
# After this a call that never returned makes way for another one.
_GIVE_UP_SECONDS = 60.0
_EARLY = 0.1
_LONGEST_EARLY_SECONDS = 300.0
_REFUSED_SECONDS = 60.0
_SHORTEST_SECONDS = 60.0
_LONGEST_SECONDS = 12 * 3600.0
_MOST_THREADS = 4
_MOST_LEASES = 1000


class Lease(NamedTuple, Generic[Value]):
    """A value and the seconds that it is good for."""

    value: Value
    seconds: float


class Ask(NamedTuple, Generic[Value]):
    """Where a value comes from: the configured upstream, what distinguishes it, its name in messages, the call."""

    label: str
    key: Hashable
    what: str
    call: Callable[[], Lease[Value]]


class _Entry(Generic[Value]):
    """What is known under one key; times are of `time.monotonic`."""

    def __init__(self) -> None:
        self.lease: Lease[Value] | None = None
        self.began = 0.0
        self.renew_at = 0.0
        self.ends_at = 0.0
        self.failure = ""
        self.again_at = 0.0
        self.flight: asyncio.Task[None] | None = None


class Leases(Generic[Value]):
    """Values by key. Each call runs in a thread of its own, few at a time for any one upstream."""

    def __init__(self, executor: Executor, pause: float) -> None:
        """Call in `executor`; a call that failed is made again after `pause` seconds at the earliest."""
        self._executor = executor
        self._pause = pause
        self._entries: dict[Hashable, _Entry[Value]] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._log = structlog.get_logger("layover.credentials")

    async def get(self, ask: Ask[Value]) -> Value:
        """Return the value that `ask` leads to.

        Raises:
            CredentialError: it cannot be had now.
        """
        entry = self._entry(ask.key)
        now = time.monotonic()
        if entry.lease is not None and now < entry.ends_at:
            if now >= entry.renew_at:
                self._start(entry, ask)
            return entry.lease.value
        flight = self._start(entry, ask)
        if flight is None:
            raise CredentialError(entry.failure)
        patience = _PATIENCE_AFTER_FAILURE_SECONDS if entry.failure else _PATIENCE_SECONDS
        await asyncio.wait({flight}, timeout=max(0.0, entry.began + patience - now))
        if not flight.done():
            raise CredentialError(entry.failure or f"{ask.what} does not answer")
        if entry.failure or entry.lease is None:
            raise CredentialError(entry.failure or f"{ask.what} is not asked any more")
        return entry.lease.value

    def refuse(self, value: Value) -> None:
        """Have a value that proved wrong fetched anew at its next use, but not within a minute of the last time."""
        for entry in self._entries.values():
            if entry.lease is not None and entry.lease.value == value:
                entry.ends_at = min(entry.ends_at, max(time.monotonic(), entry.began + _REFUSED_SECONDS))

    async def close(self) -> None:
        """Wait for nothing any more."""
        flights = [entry.flight for entry in self._entries.values() if entry.flight is not None]
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    def _entry(self, key: Hashable) -> _Entry[Value]:
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= _MOST_LEASES:
                idle = next((each for each, known in self._entries.items() if known.flight is None), None)
                if idle is None:
                    raise CredentialError("too many credentials are being fetched")
                del self._entries[idle]
            entry = self._entries[key] = _Entry()
        return entry

    def _start(self, entry: _Entry[Value], ask: Ask[Value]) -> asyncio.Task[None] | None:
        """Return the call under way, begun now if there is none; None while it is too early to try again."""
        if entry.flight is None:
            now = time.monotonic()
            if now < entry.again_at:
                return None
            entry.flight = asyncio.create_task(self._fly(entry, ask))
            entry.began = now
        return entry.flight

    async def _fly(self, entry: _Entry[Value], ask: Ask[Value]) -> None:
        try:
            self._land(entry, ask, await self._called(ask))
        except CredentialError as error:
            self._fail(entry, ask, str(error), error.detail)
        finally:
            entry.flight = None

    async def _called(self, ask: Ask[Value]) -> Lease[Value]:
        turns = self._turns.setdefault(ask.label, asyncio.Semaphore(_MOST_THREADS))
        await turns.acquire()
        try:
            running = asyncio.get_running_loop().run_in_executor(self._executor, ask.call)
        except RuntimeError as error:
            turns.release()
            raise CredentialError(f"{ask.what} cannot be asked", str(error)) from None

        def ended(future: asyncio.Future[Lease[Value]]) -> None:
            turns.release()
            if not future.cancelled():
                future.exception()  # of a call that was given up nobody else asks

        running.add_done_callback(ended)
        await asyncio.wait({running}, timeout=_GIVE_UP_SECONDS)
        if not running.done():
            raise CredentialError(f"{ask.what} does not answer")
        failure = running.exception()
        if failure is None or isinstance(failure, CredentialError):
            return running.result()
        # A cloud's library may raise anything, and say anything in it.
        raise CredentialError(f"{ask.what} failed", type(failure).__name__)

    def _land(self, entry: _Entry[Value], ask: Ask[Value], lease: Lease[Value]) -> None:
        entry.lease = lease
        entry.ends_at = entry.began + lease.seconds
        entry.renew_at = entry.ends_at - min(lease.seconds * _EARLY, _LONGEST_EARLY_SECONDS)
        if entry.failure:
            entry.failure = ""
            self._log.info("credentials can be had again", upstream=ask.label, source=ask.what)

    def _fail(self, entry: _Entry[Value], ask: Ask[Value], failure: str, detail: str) -> None:
        entry.again_at = time.monotonic() + self._pause
        if failure != entry.failure:
            said = {"detail": detail} if detail else {}
            self._log.warning("credentials cannot be had", upstream=ask.label, error=failure, **said)
        entry.failure = failure


def believed(seconds: float) -> float:
    """Return the lifetime that is acted on where a cloud names one: its clock may be wrong, and ours too."""
    return min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
