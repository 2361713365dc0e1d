"""A blob in ranges over several connections: how many, which is replaced, and when it is over."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from mirror.fill.intake import Intake
from mirror.fill.lane import Lane, RangesLost
from mirror.fill.lead import Bound
from mirror.fill.lender import SourceLost
from mirror.fill.precedence import Turn
from mirror.fill.schedule import Schedule, Span, span_length
from mirror.fill.sources import Sources, WrongSize, crawling
from mirror.fill.transfer import LEAST_BYTES, LEAST_SECONDS, MOST_CRAWLS, MOST_FRUITLESS, pause
from mirror.oci.errors import Failure, RegistryError
from mirror.source import BlobStream, RangeMistaken, RangeRefused

_TICK_SECONDS = 0.05
_HELD_SECONDS = 0.01
# Beside others that bring something, a connection that is silent for so long is better replaced,
_SILENT_SECONDS = 2.0
# and one that brings so small a share of what they bring.
_CRAWLING_SHARE = 1 / 8
_MOST_REPLACED = 8
# What connections bring these days is told by the last spans that came: those that crawl are not among them.
_USUAL_SPANS = 8
_USUAL_SECONDS = 5.0
# After one that brought nothing no other is tried for so long beside those that do.
_CALM_SECONDS = 1.0


_Key = TypeVar("_Key")


class View(NamedTuple):
    """A connection from afar: bytes a second lately, seconds of silence, and what it owes of its span."""

    rate: float | None
    silence: float
    left: int


class Lanes:
    """The connections of one fill."""

    def __init__(
        self,
        sources: Sources,
        schedule: Schedule,
        intake: Intake,
        waiting: Callable[[], Sequence[int]],
        turn: Turn,
        bound: Callable[[], Bound | None],
    ) -> None:
        """Bring what `schedule` says is missing into `intake`; `waiting` tells the offsets at which readers wait.

        Nothing beyond `bound` is asked for yet, but for readers further on; nothing is held back without one.
        Until somebody reads the blob there is one connection, which brings something whenever it is its `turn`.
        """
        self._sources = sources
        self._pace = sources.pace
        self._schedule = schedule
        self._intake = intake
        self._waiting = waiting
        self._turn = turn
        self._bound = bound
        self._has_joined = False
        self._lanes: dict[asyncio.Task[None], Lane] = {}
        self._received = 0
        self._fruitless = 0
        self._fruitless_at = 0
        self._replaced = 0
        self._rates: deque[float] = deque(maxlen=_USUAL_SPANS)
        self._rated_at = 0.0
        self._calm_until = 0.0
        self._measured_at = time.monotonic()
        self._measured_from = 0
        self._crawls = 0

    async def run(self, span: Span, stream: BlobStream) -> None:
        """Bring in all that is missing, beginning with `span`, of which `stream` was opened already.

        Raises:
            RegistryError: the sources failed again and again without a byte of progress.
            RangesLost: a source gives no ranges any more.
            SourceLost: it is to be asked for nothing any more.
            RangeRefused: it has fewer bytes than it said.
            WrongSize: it sent more than it was asked for.
            OSError: what came cannot be written.
        """
        try:
            self._start(span, stream)
            self._join()
            self._add()
            while self._lanes or self._schedule.missing:
                self._join()
                await self._reap(await self._ended())
                self._look_after(time.monotonic())
                if not self._lanes:
                    await self._turn.comes()
                self._add()
        finally:
            if self._has_joined:
                self._pace.left()
            await self._end()

    @property
    def received(self) -> int:
        """How many bytes came."""
        return self._received + sum(lane.received for lane in self._lanes.values())

    async def _ended(self) -> set[asyncio.Task[None]]:
        """Wait a little for connections to end; there are none while nothing may be asked for yet."""
        if not self._lanes:
            await asyncio.sleep(_HELD_SECONDS)
            return set()
        done, _ = await asyncio.wait(self._lanes, timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return done

    def _join(self) -> None:
        """Have a share of the connections, once somebody reads the blob."""
        if self._turn.is_read and not self._has_joined:
            self._has_joined = True
            self._pace.joined()

    def _start(self, span: Span, stream: BlobStream | None = None) -> None:
        lane = Lane(self._sources, self._schedule, self._intake, self._next_span, span, stream, self._turn)
        self._pace.opened()
        self._lanes[asyncio.create_task(lane.run())] = lane

    def _forget(self, task: asyncio.Task[None]) -> None:
        received = self._lanes.pop(task).received
        self._received += received
        self._pace.ended(time.monotonic(), had_begun=received > 0)

    def _next_span(self, lane: Lane) -> Span | None:
        """Return what a connection that has brought its span asks for next; None if it is one too many.

        Any is while it is not the fill's turn.
        """
        if lane.last_rate:
            self._rates.append(lane.last_rate)
            self._rated_at = time.monotonic()
        if not self._turn.is_now:
            return None
        if len(self._lanes) > self._pace.share and not self._schedule.is_urgent(self._waiting()):
            return None
        return self._take(max(lane.rate, self._pace.rate), lane.received)

    def _take(self, rate: float, received: int = 0) -> Span | None:
        lanes = max(len(self._lanes), self._pace.share)
        bound = self._bound()
        length = span_length(self._schedule.missing, lanes, rate, received, None if bound is None else bound.ahead)
        return self._schedule.take(length, self._waiting(), None if bound is None else bound.reach)

    def _add(self) -> None:
        """Begin to use more connections, as long as they pay or a reader needs one."""
        while self._has_use() and (span := self._take(self._pace.rate)) is not None:
            self._start(span)

    def _has_use(self) -> bool:
        if not self._lanes:
            return True
        if not self._turn.is_read or time.monotonic() < self._calm_until:
            return False
        return self._pace.may_add(len(self._lanes)) or self._must_hurry()

    def _must_hurry(self) -> bool:
        return self._pace.may_hurry and self._schedule.is_urgent(self._waiting())

    async def _reap(self, done: set[asyncio.Task[None]]) -> None:
        """Take note of connections that ended."""
        last: RegistryError | None = None
        for task in done:
            self._forget(task)
            error = None if task.cancelled() else task.exception()
            if error is None:
                continue
            if isinstance(error, RangesLost | SourceLost | RangeRefused | WrongSize) or not isinstance(
                error, RegistryError
            ):
                raise error
            if error.failure in {Failure.TOO_MANY, Failure.SERVER} and not isinstance(error, RangeMistaken):
                self._pace.refused(time.monotonic())
            self._sources.retried(error)
            self._calm_until = time.monotonic() + _CALM_SECONDS
            last = error
        if last is not None and not self._lanes:
            await self._pause(last)

    async def _pause(self, error: RegistryError) -> None:
        """Leave the sources alone for a moment after the last connection failed.

        Raises:
            RegistryError: they said no, or have failed too often without a byte of progress.
        """
        self._fruitless = self._fruitless + 1 if self.received == self._fruitless_at else 1
        self._fruitless_at = self.received
        if error.failure is None or self._fruitless > MOST_FRUITLESS:
            raise error
        if self._fruitless > 1:
            await asyncio.sleep(pause(self._fruitless))

    def _look_after(self, now: float) -> None:
        """Give up connections that are too slow: what they owe is asked for again.

        Raises:
            RegistryError: all of them are, again and again.
        """
        views = {task: View(lane.rate_now(now), lane.silence(now), lane.left) for task, lane in self._lanes.items()}
        is_known = self._rates and now < self._rated_at + _USUAL_SECONDS
        slow = laggard(views, statistics.median(self._rates) if is_known else 0.0)
        if slow is not None and self._replaced < _MOST_REPLACED:
            self._replaced += 1
            self._give_up(slow)
        if now < self._measured_at + LEAST_SECONDS:
            return
        silent = [task for task, view in views.items() if view.silence]
        crawls = bool(silent) and self.received < self._measured_from + LEAST_BYTES
        self._measured_at, self._measured_from = now, self.received
        self._crawls = self._crawls + 1 if crawls else 0
        if self._crawls >= MOST_CRAWLS:
            raise crawling()
        for task in silent if crawls else ():
            self._give_up(task)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        self._sources.retried(crawling())
        task.cancel()

    async def _end(self) -> None:
        for task in self._lanes:
            task.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        for task in list(self._lanes):
            self._forget(task)


def laggard(lanes: Mapping[_Key, View], usual: float) -> _Key | None:
    """Return a connection that had better be replaced: it is silent while others are not, or crawls.

    `usual` is how many bytes a second a connection brings these days, 0 if that is unknown.
    """
    for key, view in lanes.items():
        is_beside = any(other.silence < _SILENT_SECONDS / 2 for each, other in lanes.items() if each != key)
        if view.silence >= _SILENT_SECONDS and is_beside:
            return key
        if view.rate is not None and view.silence:
            is_crawling = view.rate < _CRAWLING_SHARE * usual
            if is_crawling and view.left > view.rate * _SILENT_SECONDS:
                return key
    return None
