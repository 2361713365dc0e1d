"""Which bytes of a partial file are there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Segments:
    """A set of byte offsets, kept as sorted, disjoint, half-open spans."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add the bytes from `start` up to, not including, `end`."""
        if start >= end:
            return
        first = bisect_right(self._ends, start - 1)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def end_from(self, offset: int) -> int:
        """Return the end of the run of bytes that begins at `offset`; `offset` itself if that byte is not there."""
        place = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[place]) if place >= 0 else offset

    @property
    def total(self) -> int:
        """How many bytes are there."""
        return sum(self._ends) - sum(self._starts)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The spans in ascending order."""
        return list(zip(self._starts, self._ends, strict=True))
