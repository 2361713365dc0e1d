"""Which bytes of a blob are asked for next: those that a reader waits for, else the first that are missing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Short enough that a reader elsewhere in the blob soon has a turn, long enough that asking costs next to nothing.
_SECONDS = 1.0
_SHORTEST = 2**20
_LONGEST = 64 * 2**20
# For a connection of which nothing is known, and a blob of which not even the size is.
FIRST = 8 * 2**20
# A rate told by few bytes is believed in steps.
_GROWTH = 4
# So many connections are reckoned with where there is one yet.
_LIKELY_LANES = 4


class Span(NamedTuple):
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int


def span_length(missing: int, lanes: int, rate: float, received: int = 0, ahead: int | None = None) -> int:
    """Return how many bytes to ask a connection for, of so many that nobody was asked for yet.

    It is believed to bring `rate` bytes a second, 0 if that is unknown, and `received` bytes so far; `lanes` are there
    in all. Where there are several, the last spans are short, so that all end at about the same time. None of them is
    to bring anything more than `ahead` bytes ahead of what is missing.
    """
    length = max(_SHORTEST, min(int(rate * _SECONDS), max(FIRST, received) * _GROWTH, _LONGEST)) if rate else FIRST
    if ahead is not None:
        length = min(length, max(_SHORTEST, ahead // max(lanes, _LIKELY_LANES)))
    return length if lanes <= 1 else min(length, max(_SHORTEST, missing // (2 * lanes)))


def first_span(
    size: int | None, there: Sequence[tuple[int, int]], lanes: int, rate: float, ahead: int | None = None
) -> Span | None:
    """Return what to ask for first of a blob of which the spans `there` are there; None to ask for all of the rest.

    `size` is None where it is unknown. `lanes` and `rate` are what is known of connections, as for `span_length`.
    `ahead` bytes are to be asked for at a time, if not as many as pay.
    """
    if size is None:
        start = there[0][1] if there and not there[0][0] else 0
        return Span(start, start + FIRST)
    schedule = Schedule(size, there)
    has_holes = any(start > 0 for start, _ in there)
    if schedule.missing <= min(FIRST, ahead or FIRST) and not has_holes:
        return None
    return schedule.take(span_length(schedule.missing, lanes, rate, ahead=ahead), ())


class Schedule:
    """The bytes that are neither there nor asked for."""

    def __init__(self, size: int, there: Iterable[tuple[int, int]]) -> None:
        """Begin with a blob of `size` bytes, of which the spans `there` are: sorted and disjoint."""
        self._gaps: list[Span] = []
        end = 0
        for start, stop in [*there, (size, size)]:
            if start > end:
                self._gaps.append(Span(end, min(start, size)))
            end = max(end, stop)

    @property
    def missing(self) -> int:
        """How many bytes there are that nobody was asked for."""
        return sum(gap.stop - gap.start for gap in self._gaps)

    def take(self, length: int, waiting: Iterable[int], reach: int | None = None) -> Span | None:
        """Return what to ask for next, at most `length` bytes, and count it as asked for; None if nothing is left.

        Nothing from `reach` on is asked for, but for readers who wait further on than what comes first.

        `waiting` are the offsets at which readers wait, who waits longest first. The next is whoever has least ahead
        that was asked for, so that nobody starves another.
        """
        if not self._gaps:
            return None
        first = self._gaps[0].start
        may_go_on = reach is None or first < reach
        starts = [each for each in map(self._ahead, waiting) if each is not None and (may_go_on or each[0] != first)]
        if not starts and not may_go_on:
            return None
        start = min(starts, key=lambda each: each[1])[0] if starts else first
        place = bisect_right(self._gaps, start, key=lambda gap: gap.start) - 1
        gap = self._gaps[place]
        span = Span(start, min(start + length, gap.stop))
        rest = [Span(gap.start, span.start), Span(span.stop, gap.stop)]
        self._gaps[place : place + 1] = [each for each in rest if each.start < each.stop]
        return span

    def is_urgent(self, waiting: Iterable[int]) -> bool:
        """Say whether a reader waits for a byte that nobody was asked for."""
        return any(ahead is not None and ahead[1] == 0 for ahead in map(self._ahead, waiting))

    def give_back(self, span: Span) -> None:
        """Count bytes as not asked for, as they did not come."""
        if span.start >= span.stop:
            return
        place = bisect_left(self._gaps, span)
        before = self._gaps[place - 1] if place else None
        after = self._gaps[place] if place < len(self._gaps) else None
        first, last = place, place
        start, stop = span
        if before is not None and before.stop == start:
            first, start = place - 1, before.start
        if after is not None and after.start == stop:
            last, stop = place + 1, after.stop
        self._gaps[first:last] = [Span(start, stop)]

    def _ahead(self, offset: int) -> tuple[int, int] | None:
        """Return the first byte from `offset` on that nobody was asked for, and how far ahead it is."""
        place = bisect_right(self._gaps, offset, key=lambda gap: gap.stop)
        if place == len(self._gaps):
            return None
        start = max(offset, self._gaps[place].start)
        return start, start - offset
