"""A hub, with the admin port: in a process of its own, or beside a door."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from socket import gethostname

import structlog

from mirror.admin import Access, Admin, Api
from mirror.app.pools import Pools
from mirror.channel import HubServer, Membership
from mirror.config import Settings
from mirror.config.units import Secret
from mirror.eviction import Adviser, Consent, Janitor, Offers
from mirror.fill import Fleet, Leads
from mirror.fleet import Alone, Identity, RedisCoordinator
from mirror.fleet.secret import FleetSecret
from mirror.hub import LocalHub, Services
from mirror.hub.answers import Answers
from mirror.hub.blobs import Blobs
from mirror.hub.copies import Copies
from mirror.hub.inspection import Inspection
from mirror.hub.inventory import Inventory
from mirror.hub.listings import Listings
from mirror.hub.manifests import Manifests
from mirror.hub.orders import Orders
from mirror.hub.overview import Overview
from mirror.hub.pins import Pins
from mirror.hub.prefetch import Prefetch
from mirror.hub.purging import Purging
from mirror.hub.resolver import Resolver
from mirror.hub.supplier import Supplier
from mirror.hub.tags import Tags
from mirror.hub.visibility import Visibility
from mirror.observe.audit import Evictions
from mirror.observe.metrics import HubMetrics, Sample, new_registry, samples
from mirror.source.sibling import Siblings
from mirror.source.upstream import (
    AnonymousCaller,
    ListingCache,
    Proxies,
    QuotaNews,
    Scopes,
    UpstreamClient,
    UpstreamListings,
    UpstreamManifests,
    tls_contexts,
)
from mirror.source.upstream.credentials import Credentials, check
from mirror.source.upstream.daemons import DaemonThreads
from mirror.store import Store
from mirror.store.freshness import Freshness

_REPORT_SECONDS = 1.0
_SECRET_SECONDS = 1.0
_SLACK_SECONDS = 5.0


def coordinator_of(settings: Settings, identity: Identity, metrics: HubMetrics) -> Alone | RedisCoordinator:
    """Return the way to the fleet that is configured.

    Raises:
        ConfigError: a file that the settings of the fleet name cannot be used.
    """
    fleet = settings.fleet
    if not fleet.is_shared:
        return Alone("", fleet.region)
    label = fleet.replica or gethostname()
    return RedisCoordinator(fleet, settings.server.listen, label, version("layover"), identity, metrics)


class HubApp:
    """The deciding half of a replica, with the admin port."""

    def __init__(self, settings: Settings, pools: Pools) -> None:
        self._settings = settings
        self._pools = pools
        self.registry = new_registry()
        metrics = HubMetrics(self.registry)
        self.store = Store(settings.store, settings.upstreams, pools.disk)
        check(settings.upstreams.all)
        self._credentials = Credentials(DaemonThreads())
        proxies = Proxies.of_environment()
        self._identity = Identity(settings.store.path)
        self.coordinator = coordinator_of(settings, self._identity, metrics)
        self._secret = FleetSecret(settings.fleet.secret, settings.fleet.secret_file)
        self._siblings = Siblings(self.coordinator, self._secret, metrics, lambda: self.orders.epoch)
        if isinstance(self.coordinator, RedisCoordinator):
            self.coordinator.check = self._siblings.check
        self._inventory = Inventory(self.store, self.coordinator)
        self.store.on_manifest = self.coordinator.holds
        fleet = Fleet(self.coordinator, Leads(), self._siblings if settings.fleet.is_shared else None)
        scopes = Scopes(self._secret)
        news = QuotaNews(self.coordinator, scopes)
        self._client = UpstreamClient(metrics, tls_contexts(settings.upstreams), proxies, self._credentials, news)
        self._answers = answers = Answers(self.coordinator, scopes, self._client.identity)
        source = UpstreamManifests(self._client, metrics)
        manifests = Manifests(source, self.store, answers, Copies(fleet.coordinator, fleet.siblings))
        quotas, freshness = self._client.quotas, settings.freshness
        resolver = Resolver(source, manifests, answers, self.store, freshness, quotas, self._client.identity)
        tags = Tags(resolver, manifests, self.store, freshness)
        self._blobs = Blobs(self._client, self.store, pools.hashing, metrics, fleet)
        services = self._services(manifests, tags, answers)
        self.hub = LocalHub(settings.upstreams, self.store, services, self.membership)
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("layover")
        self._operate(services, metrics)

    def _operate(self, services: Services, metrics: HubMetrics) -> None:
        """Build what looks after the store, and what operators see of it and order."""
        settings, store = self._settings, self.store
        self.evictions = Evictions(settings.store.path / "audit", metrics)
        self._pins = Pins(store, settings.upstreams)
        purging = Purging(store, services, self.evictions, self.coordinator.lost)
        self.orders = Orders(self.coordinator, store, settings.upstreams, purging, self._pins)
        self._answers.purged_at = self.orders.purged_at
        self._offers = Offers(self.coordinator, store, self.hub.take) if settings.fleet.is_shared else None
        self.janitor = self._janitor()
        self.adviser = Adviser(store, settings.store.low_mark, self.janitor.popularity)
        self.admin = Admin(self.hub, store, self.registry, metrics, self._pools.disk, self._api())

    def _services(self, manifests: Manifests, tags: Tags, answers: Answers) -> Services:
        """Return what the hub decides by."""
        settings, client, store = self._settings, self._client, self.store
        kept = ListingCache(settings.store.path / "listings", settings.store.size)
        listings = Listings(UpstreamListings(client, kept), settings.freshness, client.identity)
        visibility = Visibility(AnonymousCaller(client), store, settings.freshness.revalidate_timeout, answers)
        prefetch = Prefetch(settings.prefetch, manifests, self._blobs, visibility, store, client)
        supplier = Supplier(store, self._blobs, self.coordinator)
        return Services(manifests, tags, self._blobs, listings, visibility, prefetch, supplier)

    def _api(self) -> Api:
        settings, disk, freshness = self._settings, self._pools.disk, Freshness(self._settings.freshness)
        inspection = Inspection(
            self.store, settings.upstreams, freshness, self.coordinator, self._pins, self.hub.pulls, self.evictions
        )
        inspection.purged_at = self.orders.purged_at
        label = settings.fleet.replica or gethostname()
        overview = Overview(self.store, self.coordinator, self._pins, label, self._counted, self.adviser.advice)
        return Api(Access(settings.server), self.hub, self.orders, self._pins, inspection, overview, disk)

    def _janitor(self) -> Janitor:
        """Return what makes room, with the consent of the fleet if there is one."""
        settings, consent = self._settings, None
        if settings.fleet.is_shared:
            consent = Consent(self.coordinator, self._siblings, settings.fleet.min_copies)
        return Janitor(self.store, settings.store, self.evictions, consent, self._offers, self._pins)

    def membership(self) -> Membership | None:
        """Return what the replica is in its fleet; None without one."""
        own = self.coordinator
        if not self._settings.fleet.is_shared or not own.identity:
            return None
        return Membership(
            own.identity, own.boot, Secret(self._secret()), own.time - time.monotonic(), self.orders.epoch
        )

    async def start(self) -> None:
        """Take the store over and listen on the admin port.

        Raises:
            StoreError: the store cannot be used.
            OSError: the admin address cannot be had.
        """
        await self.admin.start(self._settings.server.admin_listen)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pools.disk, self.store.open)
        self.store.start()
        await loop.run_in_executor(self._pools.disk, self._identity.load)
        if isinstance(self.coordinator, Alone):
            self.coordinator.identity = self._identity.uuid
        else:
            await self._join()
        # What was purged while this replica was away is gone before it serves.
        await self.orders.start()
        await self.janitor.start()
        self.adviser.start()
        self.admin.open_api()

    async def _join(self) -> None:
        """Begin to be one of the fleet."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pools.disk, self._secret.refresh)
        self._tasks.append(asyncio.create_task(self._refresh_secret()))
        await self.coordinator.start()
        self._siblings.start()
        self._inventory.start()
        self._tasks.append(asyncio.create_task(self._describe_for_ever()))

    def _counted(self) -> Iterator[Sample]:
        """Yield what all processes of this replica counted."""
        yield from samples(self.registry)
        for group in self.hub.tally.groups():
            yield from group

    async def run(self, stopping: asyncio.Event, socket: Path, doors: int) -> None:
        """Answer `doors` of other processes over `socket` until `stopping` is set.

        Raises:
            StoreError: the store cannot be used.
            OSError: an address cannot be had.
        """
        is_ready, was_ready = False, False

        def count(connected: int) -> None:
            """Be ready once every door listens, as each does before it connects, and then as long as one is there."""
            nonlocal is_ready, was_ready
            is_ready = not stopping.is_set() and connected >= (1 if is_ready else doors)
            self.admin.set_ready(is_ready=is_ready)
            if is_ready and not was_ready:
                was_ready = True
                self.serves()

        counters = socket.with_name("counters")
        self.hub.tally.load(counters)
        self.admin.on_shown = lambda: self.hub.tally.save(counters, samples(self.registry))
        await self.start()
        server = HubServer(self.hub, socket, count)
        await server.start()
        keeping = asyncio.create_task(self._keep_counters())
        await stopping.wait()
        keeping.cancel()
        await self.wind_down()
        await server.drained(self._settings.server.shutdown_grace + _SLACK_SECONDS)
        await server.stop()
        await self.stop()
        self._pools.close()

    def serves(self) -> None:
        """Say that clients are answered: to the fleet, to operators and in the log."""
        server = self._settings.server
        self.coordinator.serves()
        self.admin.set_ready(is_ready=True)
        self._log.info("serving", listen=[str(each) for each in server.listen], admin=str(server.admin_listen))

    async def wind_down(self) -> None:
        """Say that the end was asked for, and begin nothing more."""
        self._log.info("stopping", grace=float(self._settings.server.shutdown_grace))
        self.admin.set_ready(is_ready=False)
        await self.hub.wind_down()

    async def _keep_counters(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            await loop.run_in_executor(self._pools.disk, self.admin.on_shown)

    async def _describe_for_ever(self) -> None:
        """Let the fleet know how this replica does."""
        while True:
            room = self.store.room
            self.coordinator.describe(max(0, room.capacity - room.used), self._blobs.load)
            await asyncio.sleep(_REPORT_SECONDS)

    async def _refresh_secret(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SECRET_SECONDS)
            await loop.run_in_executor(self._pools.disk, self._secret.refresh)

    async def stop(self) -> None:
        """End fills so that they can be resumed, say goodbye to the fleet, and give the store up."""
        await self.orders.close()
        for task in self._tasks:
            task.cancel()
        await self._inventory.close()
        await self.adviser.close()
        await self.janitor.close()
        await self.hub.close()
        await self._answers.close()
        await self.coordinator.close()
        await self._siblings.close()
        await self._client.close()
        await self._credentials.close()
        await self.store.close()
        await self.admin.stop()
