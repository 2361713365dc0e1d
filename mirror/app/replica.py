"""A replica in one process."""

from __future__ import annotations

import asyncio

import structlog

from mirror.app.hub import HubApp
from mirror.app.pools import Pools
from mirror.channel import Membership
from mirror.config import Settings
from mirror.observe.metrics import DoorMetrics
from mirror.pull import Pull, Sharing
from mirror.registry import Door
from mirror.store.freshness import Freshness


class Replica:
    """A hub and one door in one process."""

    def __init__(self, settings: Settings) -> None:
        """Build everything; nothing runs yet.

        Raises:
            ConfigError: a `ca_file` cannot be read.
        """
        self._settings = settings
        self._pools = Pools()
        self._hub = HubApp(settings, self._pools)
        pull = Pull(self._hub.store.shelf, self._hub.hub, Freshness(settings.freshness), settings)
        sharing = Sharing(self._hub.store.shelf, self._hub.hub, self._membership)
        self._door = Door(settings, pull, DoorMetrics(self._hub.registry), self._pools.disk, sharing)
        self._log = structlog.get_logger("layover")

    async def _membership(self) -> Membership | None:
        return self._hub.membership()

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then let answers end within `shutdown_grace`.

        Raises:
            StoreError: the store cannot be used.
            OSError: an address cannot be had.
        """
        server = self._settings.server
        await self._hub.start()
        await self._door.start(server.listen)
        self._hub.serves()
        await stopping.wait()
        await self._hub.wind_down()
        await self._door.stop(server.shutdown_grace)
        await self._hub.stop()
        self._pools.close()
        self._log.info("stopped")
