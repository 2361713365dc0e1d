"""One connection's spans, one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from mirror.fill.intake import Intake
from mirror.fill.lender import SourceLost
from mirror.fill.precedence import Turn
from mirror.fill.schedule import Schedule, Span
from mirror.fill.sources import Sources, WrongSize, too_short
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source import BlobStream, RangeRefused

# Over how long it is told whether a connection is slow.
_SECONDS = 2.0
_LEAST_SECONDS = 0.005


class RangesLost(RegistryError):
    """A source that gave ranges answers one with the whole."""

    def __init__(self) -> None:
        text = "the source has ceased to give ranges"
        super().__init__(ErrorCode.UNAVAILABLE, text, failure=Failure.SERVER, retry_after=10)


class Lane:
    """Brings in spans until it is given no more, or one fails that brought nothing."""

    def __init__(
        self,
        sources: Sources,
        schedule: Schedule,
        intake: Intake,
        next_span: Callable[[Lane], Span | None],
        span: Span,
        stream: BlobStream | None,
        turn: Turn,
    ) -> None:
        """Begin with `span`, of which `stream` was opened already, and go on with what `next_span` says.

        `received` bytes came, `left` are missing of the span under way; the last one came at `last_rate` bytes a
        second, 0 if it broke. Out of `turn` the connection stands still.
        """
        self._sources = sources
        self._pace = sources.pace
        self._schedule = schedule
        self._intake = intake
        self._next_span = next_span
        self._span: Span | None = span
        self._stream = stream
        self._turn = turn
        self._began_at = 0.0
        self._history: deque[tuple[float, int]] = deque()
        self.received = 0
        self.left = 0
        self.last_rate = 0.0

    async def run(self) -> None:
        """Bring in spans.

        Raises:
            RegistryError: one brought nothing.
            RangesLost: the source gives no ranges any more.
            SourceLost: it is to be asked for nothing any more.
            RangeRefused: it has fewer bytes than it said.
            WrongSize: it sent more than it was asked for.
            OSError: what came cannot be written.
        """
        while self._span is not None:
            before = self.received
            try:
                await self._bring(self._span)
            except (RangesLost, SourceLost, RangeRefused, WrongSize):
                raise
            except RegistryError as error:
                if self.received == before:
                    raise
                self._sources.retried(error)
            self._span = self._next_span(self)

    @property
    def rate(self) -> float:
        """How many bytes a second it has brought on the whole, 0 while it brought none."""
        return self.received / max(_LEAST_SECONDS, time.monotonic() - self._began_at) if self.received else 0.0

    def silence(self, now: float) -> float:
        """Return for how many seconds the connection has brought nothing that somebody waited for."""
        since = None if self._stream is None else self._stream.waiting_since
        return 0.0 if since is None else now - since

    def rate_now(self, now: float) -> float | None:
        """Return how many bytes a second it brings lately, if asked often; None while that cannot be said."""
        if self._stream is None:
            self._history.clear()
            return None
        self._history.append((now, self.received))
        while len(self._history) > 1 and self._history[1][0] <= now - _SECONDS:
            self._history.popleft()
        began, before = self._history[0]
        return (self.received - before) / (now - began) if began <= now - _SECONDS else None

    async def _bring(self, span: Span) -> None:
        position = span.start
        self.left, self.last_rate = span.stop - span.start, 0.0
        try:
            if self._stream is None:
                self._stream = await self._sources.open(span.start, span.stop)
            if (self._stream.start, self._stream.stop) != span:
                raise RangesLost
            began = time.monotonic()
            while piece := await self._stream.read():
                if position + len(piece) > span.stop:
                    raise WrongSize("the source", position + len(piece), span.stop)
                self._took(position, piece)
                position += len(piece)
                await self._intake.ready()
                if not self._turn.is_now:
                    await self._rest()
            if position < span.stop:
                raise too_short(position, span.stop)
            self.last_rate = (span.stop - span.start) / max(_LEAST_SECONDS, time.monotonic() - began)
        finally:
            self._schedule.give_back(Span(position, span.stop))
            if self._stream is not None:
                stream, self._stream = self._stream, None
                await stream.close()

    async def _rest(self) -> None:
        """Stand still until it is the fill's turn, and count for nothing meanwhile."""
        self._pace.ended(time.monotonic(), had_begun=True)
        try:
            await self._turn.comes()
        finally:
            self._pace.opened()
            self._pace.began(time.monotonic())
            self._history.clear()

    def _took(self, position: int, piece: bytes) -> None:
        now = time.monotonic()
        if not self.received:
            self._began_at = now
            self._pace.began(now)
        self.received += len(piece)
        self.left -= len(piece)
        self._pace.brought(len(piece), now)
        self._intake.add(position, piece)
