"""How many connections to one upstream pay, learnt from what they bring. It decides, and does nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

# Long enough to tell a rate by, from the moment on at which every connection brings something.
_WINDOW_SECONDS = 0.15
# A connection that brings so much in a second leaves nothing to be gained by others; less will do where answers come so
# soon that nothing waits for the way there and back: what holds such a connection up is most often the machine.
_QUICK = 64 * 2**20
_QUICK_NEARBY = 16 * 2**20
_NEARBY_SECONDS = 0.02
# One moment may be a bad one: what pays is believed at once, and what does not after so many looks.
_MOST_WINDOWS = 3
_GROWTH = 4
# Connections that bring this share of what as many brought before are worth as many more, others at least their keep.
_PAYING_SHARE = 0.5
_LEAST_GAIN = 1.05
_HOLD_SECONDS = 15.0
_KEPT_FOR_OTHERS = 4


class _Sample(NamedTuple):
    """What so many connections brought, in bytes a second."""

    lanes: int
    rate: float


class Pace:
    """The connections of all ranged fills from one upstream: each fill has one, and they share those that pay beyond.

    More are tried while the last ones paid. What was learnt stays, so that the next blob begins with as many.
    """

    def __init__(self, most: int, enough: float, spare: Callable[[], int]) -> None:
        """Allow up to `most` connections, of which `spare` says how many are free: some stay so for the next fill.

        `enough` bytes a second are all that can be had.
        """
        self.rate = 0.0
        """Bytes a second of one connection."""
        self._kept = most // _KEPT_FOR_OTHERS
        self._most = max(1, most - self._kept)
        self._enough = enough
        self._spare = spare
        self._allowed = 1
        self._fills = 0
        self._opening = 0
        self._lanes = 0
        self._since = 0.0
        self._brought = 0
        self._trial: _Sample | None = None
        self._windows = 0
        self._hold_until = 0.0
        self._answer_seconds = math.inf

    @property
    def share(self) -> int:
        """How many of them a fill may use that has more to fetch than one brings."""
        return max(1, math.ceil(self._allowed / max(1, self._fills)))

    def may_add(self, own: int) -> bool:
        """Say whether a fill that has `own` connections may have another."""
        has_share = own < self.share and self._lanes + self._opening < self._allowed
        return has_share and self._spare() - self._opening > self._kept

    @property
    def may_hurry(self) -> bool:
        """Whether there is a connection for a reader who would wait for long otherwise."""
        return self._spare() > self._opening

    def joined(self) -> None:
        """Note that a fill has more to fetch."""
        self._fills += 1

    def left(self) -> None:
        """Note that a fill has all its bytes on their way."""
        self._fills -= 1

    def opened(self) -> None:
        """Note that a connection is about to bring something."""
        self._opening += 1

    def began(self, now: float) -> None:
        """Note that it brings something."""
        self._opening -= 1
        self._lanes += 1
        self._restart(now)

    def ended(self, now: float, *, had_begun: bool) -> None:
        """Note that a connection is given up."""
        if had_begun:
            self._lanes -= 1
            self._restart(now)
        else:
            self._opening -= 1

    def answered(self, seconds: float) -> None:
        """Note how long a request waited for its answer to begin."""
        self._answer_seconds = min(self._answer_seconds, seconds)

    def refused(self, now: float) -> None:
        """Note that the upstream was asked too much (429, 503)."""
        self._settle(max(1, (self._lanes + self._opening) // 2), now)

    def brought(self, amount: int, now: float) -> None:
        """Note that bytes arrived."""
        self._brought += amount
        if now < self._since + _WINDOW_SECONDS or not self._lanes:
            return
        rate = self._brought / (now - self._since)
        self.rate = rate / self._lanes
        if not self._opening:
            self._judge(_Sample(self._lanes, rate), now)
        self._restart(now)

    def _judge(self, found: _Sample, now: float) -> None:
        quick = _QUICK_NEARBY if self._answer_seconds < _NEARBY_SECONDS else _QUICK
        if self.rate >= quick:
            self._settle(max(1, found.lanes // 2), now)
        elif self._trial is not None and found.lanes > self._trial.lanes:
            gain = found.rate / self._trial.rate
            self._windows += 1
            if gain - 1 >= _PAYING_SHARE * (found.lanes / self._trial.lanes - 1):
                self._try(found)
            elif self._windows >= _MOST_WINDOWS:
                self._settle(found.lanes if gain >= _LEAST_GAIN else self._trial.lanes, now)
        elif self._trial is None and now >= self._hold_until and found.lanes >= self._allowed:
            self._try(found)

    def _try(self, found: _Sample) -> None:
        is_worth_it = found.lanes < self._most and 0 < found.rate < self._enough
        self._trial = found if is_worth_it else None
        self._windows = 0
        self._allowed = min(self._most, found.lanes * _GROWTH) if is_worth_it else max(self._allowed, found.lanes)

    def _settle(self, lanes: int, now: float) -> None:
        self._allowed = min(self._most, lanes)
        self._trial = None
        self._hold_until = now + _HOLD_SECONDS

    def _restart(self, now: float) -> None:
        self._since, self._brought = now, 0
