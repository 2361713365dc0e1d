"""How far a replica gets ahead of its siblings with what it has from upstreams. It decides, and does nothing.

What this replica alone has is fetched again if it dies.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mirror.oci.digest import Digest

# Of what is on its way so much at most, but enough for several connections, and for several blobs.
_SHARE = 8
_LEAST = 2 * 2**20
_LEAST_OF_ALL = 4 * 2**20
# Others that were asked for the same image follow within a moment; who waited for them in vain, waits half as long for
# the next.
_MEETING_SECONDS = 1.0
_LEAST_MEETING_SECONDS = 0.1
# Whoever has not moved on for so long is not waited for,
_STALLED_SECONDS = 2.0
# nor is anybody for more than this share of the time, so many seconds aside.
_HELD_SHARE = 0.5
_HELD_SECONDS = 1.0
# Holding back is decided on again and again; what lies between two such decisions was held back.
_STEP_SECONDS = 0.1
_KEPT_SECONDS = 3.0


def window(size: int) -> int:
    """Return how many bytes of a blob of `size` a fill may be ahead."""
    return max(_LEAST, size // _SHARE)


def portion(size: int) -> int:
    """Return how many bytes of a blob of `size` a sibling is told of at a time: it is heard of as it asks on."""
    return max(_LEAST // 2, window(size) // _SHARE)


class Bound(NamedTuple):
    """Nothing from `reach` on is to be asked for yet, and at most `ahead` bytes ahead of what is missing."""

    reach: int
    ahead: int


class Lead:
    """One fill's. Times are on the monotonic clock; `size` is None while it is unknown.

    `copied` is how many bytes, from the first on, the sibling has that is furthest; None: none follows, as far as is
    known.
    """

    def __init__(self, digest: Digest, size: int | None, now: float) -> None:
        self.digest = digest
        self.size = size
        self.copied: int | None = None
        self.has_begun = False
        self.has_ended = False
        self._moved_at = now

    def begin(self, now: float) -> None:
        """Count as fetched from now on."""
        if not self.has_begun:
            self.has_begun, self._moved_at = True, now

    def end(self, size: int) -> None:
        """Count as held, whole."""
        self.size, self.has_ended = size, True

    def copy(self, offset: int, now: float) -> None:
        """Note that a sibling has the bytes before `offset`."""
        if self.copied is None or offset > self.copied:
            self.copied, self._moved_at = offset, now

    @property
    def ahead(self) -> int:
        """How many bytes only this replica has, or may have soon."""
        size = self.size if self.size is not None else _LEAST
        missing = max(0, size - (self.copied or 0))
        return missing if self.has_ended else min(missing, window(size))

    def is_followed(self, now: float) -> bool:
        """Say whether siblings move on, or may be about to follow."""
        return now < self._moved_at + (_MEETING_SECONDS if self.copied is None else _STALLED_SECONDS)

    def is_over(self, now: float) -> bool:
        """Say whether it is of no concern any more."""
        return self.has_ended and now > self._moved_at + _KEPT_SECONDS


class Leads:
    """Those of a replica. It waits for its siblings with all of them together."""

    def __init__(self) -> None:
        self._leads: list[Lead] = []
        self._began_at = 0.0
        self._meeting_seconds = _MEETING_SECONDS
        self._is_in_vain = False
        self._followed_at = -math.inf
        self._patience = _HELD_SECONDS
        self._looked_at = 0.0
        self._held_at = -math.inf
        self._asked_at = -math.inf

    def enter(self, digest: Digest, size: int | None, now: float) -> Lead:
        """Return the lead of a fill that may have to ask an upstream."""
        self._leads = [each for each in self._leads if not each.is_over(now)]
        if not self._leads:
            self._begin(now)
        lead = Lead(digest, size, now)
        self._leads.append(lead)
        return lead

    def leave(self, lead: Lead) -> None:
        """Forget one that leads nobody."""
        if lead in self._leads:
            self._leads.remove(lead)

    def copied(self, lead: Lead, offset: int, now: float) -> None:
        """Note that a sibling has the bytes of a blob before `offset`."""
        lead.copy(offset, now)
        self._followed_at = now
        self._meeting_seconds, self._is_in_vain = _MEETING_SECONDS, False

    def unsure(self, now: float, seconds: float) -> Sequence[Digest]:
        """Return of what siblings may have copies by now; nothing if that was asked within so many seconds."""
        if now < self._asked_at + seconds:
            return ()
        self._asked_at = now
        return [each.digest for each in self._leads if each.has_ended and each.ahead]

    def found(self, digests: Collection[Digest], now: float) -> None:
        """Note that siblings have these, whole."""
        for each in self._leads:
            if each.digest in digests and each.size is not None:
                self.copied(each, each.size, now)

    def is_far_ahead(self, lead: Lead, now: float) -> bool:
        """Say whether siblings would lack too much if one more began."""
        ahead = sum(each.ahead for each in self._leads if each.has_begun and each.is_followed(now))
        total = sum(each.size or 0 for each in self._leads)
        return ahead > 0 and ahead + lead.ahead > max(_LEAST_OF_ALL, total // _SHARE)

    def bound(self, lead: Lead, size: int, first_missing: int, now: float) -> Bound | None:
        """Return how far a fill may ask on, of a blob of which that is the first missing byte; None: to its end."""
        lead.size, ahead = size, window(size)
        if not self._is_followed(now):
            return None
        end = (lead.copied or 0) + ahead
        if lead.is_followed(now) and (end > first_missing or self.waits(now)):
            return Bound(min(end, first_missing + ahead), ahead)
        return Bound(first_missing + ahead, ahead)

    def waits(self, now: float) -> bool:
        """Say whether siblings are waited for now: asked again and again while there is a reason, it takes patience."""
        self._patience = min(_HELD_SECONDS, self._patience + _HELD_SHARE * (now - self._looked_at))
        if now < self._held_at + _STEP_SECONDS:
            self._patience -= now - self._held_at
        is_held = self._patience > 0 and self._is_followed(now)
        self._is_in_vain |= is_held and self._followed_at == -math.inf
        self._looked_at, self._held_at = now, now if is_held else -math.inf
        return is_held

    def _begin(self, now: float) -> None:
        """Begin with what is asked for at about the same time."""
        self._began_at, self._followed_at = now, -math.inf
        if self._is_in_vain:
            self._meeting_seconds = max(_LEAST_MEETING_SECONDS, self._meeting_seconds / 2)
            self._is_in_vain = False

    def _is_followed(self, now: float) -> bool:
        """Say whether siblings follow, or may be about to."""
        if self._followed_at == -math.inf:
            return now < self._began_at + self._meeting_seconds
        return now < self._followed_at + _STALLED_SECONDS
