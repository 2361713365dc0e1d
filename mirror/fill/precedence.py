"""Which fills go first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable

# Of the store's mark so much stays free for what somebody reads. With the default `low_mark` nothing that is brought in
# ahead makes anything go: eviction begins in the middle between the marks.
SPARE_ROOM = 0.05


class Precedence:
    """Fills that somebody reads go before those that are brought in ahead.

    While one of the former is under way, the latter stand still; and they give way where there is room for one alone.
    """

    def __init__(self) -> None:
        self._read: set[Hashable] = set()
        self._ahead: dict[Hashable, Callable[[], Awaitable[None]]] = {}
        self._changed = asyncio.Event()

    @property
    def is_taken(self) -> bool:
        """Whether a fill that somebody reads is under way."""
        return bool(self._read)

    def read(self, fill: Hashable) -> None:
        """Let a fill go first from now on."""
        self._ahead.pop(fill, None)
        if fill not in self._read:
            self._read.add(fill)
            self._change()

    def ahead(self, fill: Hashable, give_way: Callable[[], Awaitable[None]]) -> None:
        """Let a fill go behind all that are read; `give_way` ends it."""
        self._ahead[fill] = give_way

    def over(self, fill: Hashable) -> None:
        """Take note that a fill has ended."""
        self._ahead.pop(fill, None)
        if fill in self._read:
            self._read.discard(fill)
            self._change()

    async def changed(self) -> None:
        """Wait until another fill goes first, or no longer does."""
        await self._changed.wait()

    async def clear(self) -> None:
        """Wait until no fill that somebody reads is under way."""
        while self.is_taken:
            await self.changed()

    async def make_way(self) -> bool:
        """End a fill that nobody reads; False if there is none."""
        if not self._ahead:
            return False
        _, give_way = self._ahead.popitem()
        await give_way()
        return True

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Turn:
    """When one fill may go on: while nobody reads another, or always once somebody reads this one."""

    def __init__(self) -> None:
        self.is_read = False
        self._precedence: Precedence | None = None

    def enter(self, precedence: Precedence, give_way: Callable[[], Awaitable[None]]) -> None:
        """Begin to go before or behind others; `give_way` ends the fill."""
        self._precedence = precedence
        if self.is_read:
            precedence.read(self)
        else:
            precedence.ahead(self, give_way)

    def leave(self) -> None:
        """End."""
        if self._precedence is not None:
            self._precedence.over(self)
            self._precedence = None

    def read(self) -> None:
        """Go first from now on."""
        self.is_read = True
        if self._precedence is not None:
            self._precedence.read(self)

    @property
    def is_now(self) -> bool:
        """Whether the fill may go on."""
        return self.is_read or self._precedence is None or not self._precedence.is_taken

    async def comes(self) -> bool:
        """Wait until the fill may go on, and say whether that took any time."""
        has_waited = False
        while not self.is_now:
            assert self._precedence is not None
            has_waited = True
            await self._precedence.changed()
        return has_waited

    async def make_way(self) -> bool:
        """End another fill for this one's sake; False if none goes behind it."""
        return self.is_read and self._precedence is not None and await self._precedence.make_way()
