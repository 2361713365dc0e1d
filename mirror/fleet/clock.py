"""Fleet time: what Redis calls the time, carried on by the replica's monotonic clock."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

_SAMPLES = 9
# What is found out later is approached at this rate: faster or slower for a while, never back and never at a leap.
_RATE = 0.5


class FleetClock:
    """Seconds since the epoch. Until Redis was first asked, those of the replica's own clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._offset = self._target = wall() - monotonic()
        self._moved_at = monotonic()
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    def __call__(self) -> float:
        """Return the time."""
        now = self._monotonic()
        return now + self._offset_at(now)

    def sample(self, began: float, told: float, ended: float) -> None:
        """Take in that Redis said `told` to a question that was asked and answered then, on the monotonic clock."""
        now = self._monotonic()
        is_first = not self._samples
        self._samples.append(told - (began + ended) / 2)
        self._offset = self._offset_at(now)
        self._moved_at = now
        self._target = median(self._samples)
        if is_first:
            self._offset = self._target

    def _offset_at(self, now: float) -> float:
        most = (now - self._moved_at) * _RATE
        return self._offset + max(-most, min(most, self._target - self._offset))
