"""How many connections one upstream may take at a time, over everything that it is asked and everywhere it leads to."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

# A manifest or a token never waits for blobs: of this share of the connections they take none.
_KEPT_FROM_TRANSFERS = 4
# Whoever waits shall hear within 10 s; where all who have a turn are stuck, waiting longer is no use.
_STUCK_SECONDS = 4.0
_STUCK_TRANSFER_SECONDS = 8.0


class Slots:
    """The turns of one upstream. Whoever asks for something small goes first; transfers of blobs take what is left.

    Where only one connection is allowed a small request still goes out beside a transfer, or it might wait for hours.
    """

    def __init__(self, most: int) -> None:
        """Allow `most` connections at a time."""
        self._most = most
        self._most_transfers = max(1, most - max(1, most // _KEPT_FROM_TRANSFERS))
        self._small = 0
        self._transfers = 0
        self._moved_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._waiting_transfers: deque[asyncio.Future[None]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nobody has a turn or waits for one."""
        return not (self._small or self._transfers or self._waiting or self._waiting_transfers)

    @property
    def most_transfers(self) -> int:
        """How many transfers there may be at a time."""
        return self._most_transfers

    @property
    def spare_transfers(self) -> int:
        """How many transfers more there may be now, 0 while one waits for its turn."""
        if self._waiting_transfers:
            return 0
        return max(0, min(self._most - self._small, self._most_transfers) - self._transfers)

    def moved(self) -> None:
        """Note that somebody who has a turn gets on with it."""
        self._moved_at = time.monotonic()

    async def take(self, *, is_transfer: bool) -> Slot:
        """Wait for a turn, for as long as those who have one get on, and return it.

        Raises:
            TimeoutError: nothing moved for some seconds.
        """
        queue = self._waiting_transfers if is_transfer else self._waiting
        if queue or not self._has_room(is_transfer=is_transfer):
            turn = asyncio.get_running_loop().create_future()
            queue.append(turn)
            try:
                await self._wait(turn, _STUCK_TRANSFER_SECONDS if is_transfer else _STUCK_SECONDS)
            except BaseException:
                if turn.done():
                    self._give_back(is_transfer=is_transfer)
                else:
                    queue.remove(turn)
                raise
        else:
            self._count(1, is_transfer=is_transfer)
        return Slot(lambda: self._give_back(is_transfer=is_transfer))

    async def _wait(self, turn: asyncio.Future[None], patience: float) -> None:
        began = time.monotonic()
        while not turn.done():
            left = max(began, self._moved_at) + patience - time.monotonic()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait({turn}, timeout=left)

    def _has_room(self, *, is_transfer: bool) -> bool:
        has_room = self._small + self._transfers < self._most
        if is_transfer:
            return has_room and self._transfers < self._most_transfers
        return has_room or not self._small

    def _count(self, change: int, *, is_transfer: bool) -> None:
        if is_transfer:
            self._transfers += change
        else:
            self._small += change

    def _give_back(self, *, is_transfer: bool) -> None:
        self._count(-1, is_transfer=is_transfer)
        self.moved()
        for queue, are_transfers in ((self._waiting, False), (self._waiting_transfers, True)):
            while queue and self._has_room(is_transfer=are_transfers):
                self._count(1, is_transfer=are_transfers)
                queue.popleft().set_result(None)


class Slot:
    """One turn."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """End the turn, if it has not ended."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()
