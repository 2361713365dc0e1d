"""Hashing a growing file in order, behind whatever has been written, in a thread."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import Executor

from mirror.fill.threads import finished
from mirror.store import Partial

_STEP = 4 * 2**20
_READ = 2**20


class Verifier:
    """Hashes a partial file up to the end of what is there without a gap."""

    def __init__(self, partial: Partial, pool: Executor) -> None:
        self._partial = partial
        self._pool = pool
        self._hasher = partial.digest.hasher()
        self._hashed = 0
        self._more = asyncio.Event()
        self._is_complete = False

    def advance(self) -> None:
        """Tell that more bytes are there."""
        self._more.set()

    def complete(self) -> None:
        """Tell that every byte is there."""
        self._is_complete = True
        self._more.set()

    async def run(self) -> bool:
        """Hash until every byte is there, and say whether the digest is right."""
        while True:
            end = self._partial.segments.end_from(0)
            if self._hashed < end:
                step = min(end, self._hashed + _STEP)
                await finished(self._pool, functools.partial(self._hash, self._hashed, step))
                self._hashed = step
            elif self._is_complete:
                return self._partial.digest.matches(self._hasher)
            else:
                self._more.clear()
                await self._more.wait()

    def _hash(self, start: int, end: int) -> None:
        for offset in range(start, end, _READ):
            self._hasher.update(self._partial.read(offset, min(end, offset + _READ)))
