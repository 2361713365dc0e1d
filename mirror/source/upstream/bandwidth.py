"""How fast blobs of one upstream arrive, all of them together."""

from __future__ import annotations

import asyncio
import time

_LARGEST_PIECE = 64 * 2**10
_SMALLEST_PIECE = 2**10
_PIECES_A_SECOND = 16
# What may arrive at once after a pause, in seconds of the rate: timers that fire late lose nothing.
_BURST_SECONDS = 0.1


class Bandwidth:
    """A bucket that fills at a rate. Streams pay for each piece, in turn, and pieces are equal: so shares are, too."""

    def __init__(self, rate: int) -> None:
        """Let `rate` bytes a second pass."""
        self.piece = max(_SMALLEST_PIECE, min(_LARGEST_PIECE, rate // _PIECES_A_SECOND))
        self._rate = rate
        self._paid_until = 0.0

    async def pay(self, amount: int) -> None:
        """Wait until `amount` bytes more are allowed to have arrived."""
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now - _BURST_SECONDS) + amount / self._rate
        if self._paid_until > now:
            await asyncio.sleep(self._paid_until - now)
