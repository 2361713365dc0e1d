"""Which fills go first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import NamedTuple

# Of the store's mark so much stays free for what somebody reads.
SPARE_ROOM = 0.1


class Precedence:
    """Fills that somebody reads go before those that are brought in ahead.

    While one of the former is under way, the latter stand still where they share its `line`, an upstream's name; and
    they give way where there is room for one alone.
    """

    def __init__(self) -> None:
        self._read: dict[Hashable, str] = {}
        self._ahead: dict[Hashable, Callable[[], Awaitable[None]]] = {}
        self._changed = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None

    def is_taken(self, line: str) -> bool:
        """Say whether a fill that somebody reads is under way."""
        return line in self._read.values()

    def read(self, fill: Hashable, line: str) -> None:
        """Let a fill go first from now on."""
        self._ahead.pop(fill, None)
        if fill not in self._read:
            self._read[fill] = line
            self._change()

    def ahead(self, fill: Hashable, give_way: Callable[[], Awaitable[None]]) -> None:
        """Let a fill go behind all that are read; `give_way` ends it."""
        self._ahead[fill] = give_way

    def over(self, fill: Hashable) -> None:
        """Take note that a fill has ended."""
        self._ahead.pop(fill, None)
        if self._read.pop(fill, None) is not None:
            self._change()

    async def changed(self) -> None:
        """Wait until another fill goes first, or no longer does."""
        await self._changed.wait()

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
        self.on_change()


class Demand(NamedTuple):
    """Who waits for a fill, and who goes before it.

    `waiting` tells the offsets at which readers wait, `rests` whether it stands still for other fills; `turn` waits
    until it does no longer.
    """

    waiting: Callable[[], Sequence[int]]
    rests: Callable[[], bool]
    turn: Callable[[], Awaitable[None]]
