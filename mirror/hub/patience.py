"""How long somebody who could be answered otherwise waits for an upstream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

LONGEST_SECONDS = 5.0


class Patience:
    """Ends once nothing moved forward for `seconds`, and in any case after 5 s.

    `is_of_another` while it is another replica's upstream that is waited for.
    """

    def __init__(self, seconds: float) -> None:
        now = time.monotonic()
        self._seconds = seconds
        self.is_of_another = False
        self._last = now + LONGEST_SECONDS
        self._until = min(now + seconds, self._last)

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Count what happens meanwhile as another replica's affair, and its end as a step forward."""
        self.is_of_another = True
        try:
            yield
        finally:
            self.is_of_another = False
        self.step(1)

    def step(self, weight: int) -> None:
        """Note that something moved forward; `weight` times the usual patience begins now."""
        self._until = min(max(self._until, time.monotonic() + weight * self._seconds), self._last)

    async def outlasts(self, flight: asyncio.Future[Any]) -> bool:
        """Wait for a flight to land; False once patience ends before."""
        while not flight.done():
            left = self._until - time.monotonic()
            if left <= 0:
                return False
            await asyncio.wait({flight}, timeout=left)
        return True
