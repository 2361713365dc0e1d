"""What the replica holds, told to a fleet that may have forgotten it."""

from __future__ import annotations

import asyncio
import time

import structlog

from mirror.fleet import Coordinator
from mirror.store import Store

_LOOK_SECONDS = 1.0
# So many at most are told a second: the fleet has other things to hear, and the disk others to serve.
_MOST_A_SECOND = 5000.0
# Redis forgets who held what if nobody tells it again.
_EVERY_SECONDS = 6 * 3600.0


class Inventory:
    """Tells all that is held: at the start, whenever Redis was away or came back empty, and from time to time."""

    def __init__(self, store: Store, coordinator: Coordinator) -> None:
        self._store = store
        self._coordinator = coordinator
        self._task: asyncio.Task[None] | None = None
        self._is_forgotten = True
        self._log = structlog.get_logger("layover.fleet")
        coordinator.on_amnesia(self._forget)

    def start(self) -> None:
        """Begin to tell; the store is open."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Tell no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _forget(self) -> None:
        self._is_forgotten = True

    async def _run(self) -> None:
        told_at = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._coordinator.is_up:
                self._is_forgotten = True
            elif self._is_forgotten or time.monotonic() > told_at + _EVERY_SECONDS:
                self._is_forgotten, told_at = False, time.monotonic()
                count = await self._tell()
                self._log.info("told the fleet what is held", objects=count, seconds=time.monotonic() - told_at)

    async def _tell(self) -> int:
        """Tell of everything, a folder at a time, and return how much that is."""
        loop = asyncio.get_running_loop()
        folders = await loop.run_in_executor(self._store.disk, self._store.content.folders)
        count = 0
        for folder in folders:
            held = await loop.run_in_executor(self._store.disk, self._store.content.held, folder)
            for digest, size in held:
                self._coordinator.holds(digest, size)
            count += len(held)
            await asyncio.sleep(len(held) / _MOST_A_SECOND)
        return count
