"""The line between the registry and the mirror, made in user space: a round trip, and rates."""

from __future__ import annotations

from typing import NamedTuple

MIB = 2**20
# What a transfer that is late may catch up: an event loop wakes late, and the line would be slower than it says.
_SLACK_SECONDS = 0.25


class Line(NamedTuple):
    """A line: round trip in seconds, bytes a second of one connection and of all together (0: no limit).

    `redirects` sends blobs by way of signed URLs on a second origin.
    """

    round_trip: float = 0.0
    connection_rate: int = 0
    total_rate: int = 0
    redirects: bool = False


LAN = Line()
WAN = Line(round_trip=0.04, connection_rate=10 * MIB, total_rate=100 * MIB, redirects=True)


class Pace:
    """Says when bytes are through, one after the other, at a rate in bytes a second (0: at once)."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._transfers = 0

    def begin(self, now: float) -> None:
        """Let one more transfer begin; what an idle line could have carried is lost."""
        if not self._transfers:
            self._free_at = max(self._free_at, now)
        self._transfers += 1

    def end(self) -> None:
        """Let one transfer be over."""
        self._transfers -= 1

    def through(self, size: int, now: float) -> float:
        """Take `size` bytes on at `now` and return when the last of them is through."""
        if not self._rate:
            return now
        self._free_at = max(self._free_at, now - _SLACK_SECONDS) + size / self._rate
        return self._free_at


def answered_at(line: Line, opened: float, asked: float) -> float:
    """Return when the answer to a request may begin that came at `asked` over a connection accepted at `opened`.

    On a real line the client has its connection a round trip after it asked for it, and can ask only then.
    """
    return max(asked, opened + line.round_trip) + line.round_trip
