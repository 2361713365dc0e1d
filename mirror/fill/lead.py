"""How far a fill that siblings follow gets ahead of them. It decides, and does nothing.

What this replica alone has is fetched again if it dies.
"""

from __future__ import annotations

# Of a blob so much at most, but enough for several connections.
_SHARE = 8
_LEAST = 2 * 2**20
# Others that were asked for the same image follow within a moment.
_MEETING_SECONDS = 0.2
# Whoever has not moved on for so long is not waited for,
_STALLED_SECONDS = 2.0
# nor is anybody for more than this share of the time.
_HELD_SHARE = 0.5


def window(size: int) -> int:
    """Return how many bytes of a blob of `size` a fill may be ahead."""
    return max(_LEAST, size // _SHARE)


def portion(size: int) -> int:
    """Return how many bytes of a blob of `size` a sibling is told of at a time: it is heard of as it asks on."""
    return max(_LEAST // 2, window(size) // _SHARE)


class Lead:
    """One fill's. Times are on the monotonic clock."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._copied: int | None = None
        self._copied_at = 0.0
        self._looked_at = 0.0
        self._is_held = False
        self._held_seconds = 0.0

    def copied(self, offset: int, now: float) -> None:
        """Note that a sibling has the bytes before `offset`."""
        if self._copied is None or offset > self._copied:
            self._copied, self._copied_at = offset, now

    def reach(self, size: int, first_missing: int, now: float) -> int:
        """Return from where on nothing of a blob of `size` is to be asked for yet."""
        began_at = self._began_at = self._began_at if self._began_at is not None else now
        if self._is_held:
            self._held_seconds += now - self._looked_at
        self._looked_at, self._is_held = now, False
        ahead = window(size)
        may_hold = self._held_seconds <= _MEETING_SECONDS + _HELD_SHARE * (now - began_at)
        if not may_hold or not self._is_followed(now - began_at, now):
            return first_missing + ahead
        end = (self._copied or 0) + ahead
        self._is_held = end <= first_missing
        return min(first_missing + ahead, end)

    def _is_followed(self, age: float, now: float) -> bool:
        """Say whether somebody follows and moves on, or may be about to."""
        return age < _MEETING_SECONDS if self._copied is None else now < self._copied_at + _STALLED_SECONDS
