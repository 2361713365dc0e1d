"""Room: how many bytes the store may still take, counted before they are written."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from mirror.config.units import Size

# What does not fit waits so long for others to go, and then goes elsewhere.
_PATIENCE_SECONDS = 2.0
# Files take whole blocks: of the high mark this share, and at most so much, is left for what they are rounded up by.
_ROUNDING_SHARE = 1024
_MOST_ROUNDING = 2**20


class Room:
    """The store's bound: `size` in all, and `min_free` left on the file system for others. One thread uses it.

    What lies in the store already is counted while it serves. Until then all that the file system holds may be its own.
    Whoever makes room has `on_need` called when it `is_short`, or somebody waits, and lets `excess` go.
    """

    def __init__(self, path: Path, size: Size, min_free: Size, used: int, low_mark: Size | None = None) -> None:
        """Bound the store under `path`, in which `used` bytes lie already beside what is still to be counted.

        `low_mark`, a share of `size` or an amount, is where making room ends; without one nobody makes any.
        """
        self._path = str(path)
        self._size = size
        self._min_free = min_free
        self._low_mark = low_mark
        self.used = used
        self.on_need: Callable[[], None] = lambda: None
        self._promised = 0
        self._waiting: dict[asyncio.Future[bool], int] = {}
        self._is_counted = asyncio.Event()

    @property
    def capacity(self) -> int:
        """The high mark in bytes."""
        facts = os.statvfs(self._path)
        return self._size.of(facts.f_blocks * facts.f_frsize)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for room that is still to be made."""
        return bool(self._waiting)

    def claim(self, amount: int, spare: float = 0.0) -> bool:
        """Promise `amount` bytes to a fill; False, and nothing promised, if they do not fit."""
        if not self.fits(amount, spare):
            return False
        self._promised += amount
        self._tell_need()
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
        return used + promised <= mark - _rounding(mark) and promised <= free

    @property
    def is_short(self) -> bool:
        """Whether room should be made: more is wanted than the middle between low and high mark."""
        return self._above(0.5) > 0

    @property
    def excess(self) -> int:
        """How many bytes should go once room is made: all above the low mark."""
        return max(0, self._above(0.0))

    def _above(self, share: float) -> int:
        """Return how far what is wanted is above a share of the way between the marks, in bytes.

        What somebody waits for counts as if it were there.
        """
        if self._low_mark is None or not self._is_counted.is_set():
            return 0
        limit = self._limit()
        low = min(self._low_mark.of(limit), limit)
        return self.used + self._promised + self._waited_for(limit) - low - int((limit - low) * share)

    async def ready(self, amount: int, spare: float = 0.0) -> None:
        """Wait as long as `amount` bytes do not fit but may do soon; `spare` as for `fits`.

        That is until the store's content is counted, and then for a short while if others can go, which they do for
        nothing that leaves a share spare.
        """
        if not self._is_counted.is_set() and not self.fits(amount, spare):
            await self._is_counted.wait()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        can_be_made = not spare and self._low_mark is not None and amount <= self._limit()
        while can_be_made and not self.fits(amount) and (left := deadline - time.monotonic()) > 0:
            can_be_made = await self._made(amount, left)

    async def _made(self, amount: int, seconds: float) -> bool:
        """Wait until room for `amount` seems to be made; False if none can be, or not in time."""
        made: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[made] = amount
        self.on_need()
        try:
            async with asyncio.timeout(seconds):
                return await made
        except TimeoutError:
            return False
        finally:
            del self._waiting[made]

    def give_up(self) -> None:
        """Let nobody wait any longer: no more room can be made."""
        for made in self._waiting:
            if not made.done():
                made.set_result(False)

    def count(self, found: int) -> None:
        """Count the bytes that were found to lie in the store."""
        self.used += found
        self._is_counted.set()
        self._tell_need()

    async def counted(self) -> None:
        """Wait until `used` is all that lies in the store."""
        await self._is_counted.wait()

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
        self._wake()

    def free(self, amount: int) -> None:
        """Count written bytes as gone."""
        self.used -= amount
        self._wake()

    def _limit(self) -> int:
        """Return what the store may take by its own mark and by what others have left of the file system."""
        facts = os.statvfs(self._path)
        whole = facts.f_blocks * facts.f_frsize
        mark = self._size.of(whole)
        free = facts.f_bavail * facts.f_frsize - self._min_free.of(whole)
        return max(0, min(mark - _rounding(mark), self.used + free))

    def _waited_for(self, limit: int) -> int:
        """Return how many bytes are waited for by the first who wait, together at most half the limit."""
        amount = 0
        for wanted in self._waiting.values():
            if amount and amount + wanted > limit // 2:
                break
            amount += wanted
        return amount

    def _tell_need(self) -> None:
        if self.is_short:
            self.on_need()

    def _wake(self) -> None:
        """Wake those for whom there is room now, who waits longest first."""
        amount = 0
        for made, wanted in self._waiting.items():
            amount += wanted
            if not made.done() and self.fits(amount):
                made.set_result(True)


def _rounding(mark: int) -> int:
    return min(mark // _ROUNDING_SHARE, _MOST_ROUNDING)
