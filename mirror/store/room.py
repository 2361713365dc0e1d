"""Room: how many bytes the store may still take, counted before they are written."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from mirror.config.units import Size


class Room:
    """The store's bound: `size` in all, and `min_free` left on the file system for others. One thread uses it.

    What lies in the store already is counted while it serves. Until then all that the file system holds may be its own.
    """

    def __init__(self, path: Path, size: Size, min_free: Size, used: int) -> None:
        """Bound the store under `path`, in which `used` bytes lie already beside what is still to be counted."""
        self._path = str(path)
        self._size = size
        self._min_free = min_free
        self.used = used
        self._promised = 0
        self._is_counted = asyncio.Event()

    @property
    def capacity(self) -> int:
        """The high mark in bytes."""
        facts = os.statvfs(self._path)
        return self._size.of(facts.f_blocks * facts.f_frsize)

    def claim(self, amount: int, spare: float = 0.0) -> bool:
        """Promise `amount` bytes to a fill; False, and nothing promised, if they do not fit."""
        if not self.fits(amount, spare):
            return False
        self._promised += amount
        return True

    def fits(self, amount: int, spare: float = 0.0) -> bool:
        """Say whether there is room for `amount` bytes, and beside them for a share `spare` of the high mark."""
        facts = os.statvfs(self._path)
        whole = facts.f_blocks * facts.f_frsize
        mark = self._size.of(whole)
        free = facts.f_bavail * facts.f_frsize - self._min_free.of(whole)
        used = self.used
        if not self._is_counted.is_set():
            used = max(used, whole - facts.f_bfree * facts.f_frsize)
        promised = self._promised + amount + int(spare * mark)
        return used + promised <= mark and promised <= free

    async def ready(self, amount: int, spare: float = 0.0) -> None:
        """Wait until the store's content is counted, if `amount` bytes may fit only then; `spare` as for `fits`."""
        if not self._is_counted.is_set() and not self.fits(amount, spare):
            await self._is_counted.wait()

    def count(self, found: int) -> None:
        """Count the bytes that were found to lie in the store."""
        self.used += found
        self._is_counted.set()

    @property
    def is_counted(self) -> bool:
        """Whether `used` is all that lies in the store."""
        return self._is_counted.is_set()

    def spend(self, amount: int) -> None:
        """Turn promised bytes into written ones."""
        self._promised -= amount
        self.used += amount

    def unclaim(self, amount: int) -> None:
        """Take back a promise."""
        self._promised -= amount

    def free(self, amount: int) -> None:
        """Count written bytes as gone."""
        self.used -= amount
