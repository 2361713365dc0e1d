"""A door in a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mirror.app.pools import Pools
from mirror.channel import RemoteHub
from mirror.config import Settings
from mirror.observe.metrics import DoorMetrics, new_registry, samples
from mirror.pull import Follower, Pull, Sharing
from mirror.registry import Door
from mirror.store import Shelf
from mirror.store.freshness import Freshness

_PAUSE_SECONDS = 0.05
_BEGIN_SECONDS = 15.0


class DoorApp:
    """The answering half of a replica in a process of its own, its hub behind a Unix socket."""

    def __init__(self, settings: Settings, socket: Path) -> None:
        self._settings = settings
        self._pools = Pools()
        self._socket = socket
        self._hub = RemoteHub(socket)
        self._shelf = Shelf(settings.store.path, remembers_tags=False)
        registry = new_registry()
        self._follower = Follower(self._hub, self._shelf, self._pools.disk, lambda: list(samples(registry)))
        pull = Pull(self._shelf, self._hub, Freshness(settings.freshness), settings)
        sharing = Sharing(self._shelf, self._hub, self._follower.membership)
        self._door = Door(settings, pull, DoorMetrics(registry), self._pools.disk, sharing)

    async def run(self, stopping: asyncio.Event) -> None:
        """Answer clients until `stopping` is set, then let answers end within `shutdown_grace`.

        Raises:
            OSError: an address cannot be had.
        """
        server = self._settings.server
        await self._hub_has_begun()
        await self._follower.open_index()
        await self._door.start(server.listen, shares_port=True)
        self._follower.start()
        await stopping.wait()
        self._hub.expect_no_return()
        await self._door.stop(server.shutdown_grace)
        await self._follower.close()
        await self._hub.close()
        self._shelf.close()
        self._pools.close()

    async def _hub_has_begun(self) -> None:
        """In a fleet, wait until the hub has carried out what was ordered meanwhile, but no longer than it may take."""
        for _ in range(int(_BEGIN_SECONDS / _PAUSE_SECONDS)):
            if self._socket.exists() or not self._settings.fleet.is_shared:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
