"""A replica that is asked, whose hub is in the same process or behind its socket, and siblings that ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.app import HubApp
from mirror.channel import Filling, Hub, Membership
from mirror.config import Settings, StoreSettings, Upstreams
from mirror.config.settings import Server
from mirror.config.units import Address, Secret
from mirror.observe.metrics import DoorMetrics, HubMetrics, new_registry, samples
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.pull import Pull, Sharing
from mirror.registry import Door
from mirror.source.sibling import SiblingBlob, Siblings
from mirror.store.freshness import Freshness
from tests.channel.transports import SECONDS, TRANSPORTS, Origin, eventually, running, upstream
from tests.chaos.scene import name_of, registry
from tests.replica import free_port
from tests.source.sibling.member import CLOCK, SECRET, Member, sibling_at
from tests.upstream import Upstream

__all__ = ["SECONDS", "Bench", "bench", "eventually", "read", "read_up_to", "registry", "upstream"]


class Bench(Origin):
    """A replica by the name of `b`, the registry behind it, and `a`, which asks it."""

    def __init__(self, app: HubApp, hub: Hub, upstream: Upstream, repository: Repository) -> None:
        super().__init__(upstream, repository)
        self.app = app
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.membership: Membership | None = Membership("b", "boot-b", Secret(SECRET), CLOCK)
        self.registry = new_registry()
        shelf = app.store.shelf
        settings = Settings(upstreams=Upstreams({"docker.io": {"url": upstream.url}}))
        pull = Pull(shelf, hub, Freshness(settings.freshness), settings)

        async def membership() -> Membership | None:
            return self.membership

        sharing = Sharing(shelf, hub, membership)
        self.door = Door(settings, pull, DoorMetrics(self.registry), app.store.disk, sharing)
        self.b = sibling_at(self.url, "b", boot="boot-b")
        self.member = Member("a")
        self.asked = new_registry()
        self.siblings = Siblings(self.member, lambda: SECRET, HubMetrics(self.asked))

    async def hold(self, digest: Digest) -> None:
        """Have a blob held, whole, and its fill over."""
        await self.app.hub.blob(self.repository, digest)
        await eventually(lambda: self.holds(digest) and not self.app.hub._blobs._active)

    async def begin(self, digest: Digest) -> Filling:
        """Have a blob on its way."""
        found = await self.app.hub.blob(self.repository, digest)
        assert isinstance(found, Filling)
        return found

    def holds(self, digest: Digest) -> bool:
        """Say whether a digest is held, its name there to stay."""
        return self.app.store.content.size(digest) is not None and digest not in self.app.store.naming

    def metric(self, name: str, **labels: str) -> float:
        """Return what the door or the one that asks counted."""
        found = [each for registry in (self.registry, self.asked) for each in samples(registry)]
        return sum(each.value for each in found if each.name == name and labels.items() <= each.labels.items())


async def read(stream: SiblingBlob) -> bytes:
    """Return what is left of a stream, and close it."""
    pieces = []
    async with asyncio.timeout(SECONDS):
        while piece := await stream.read():
            pieces.append(piece)
    await stream.close()
    return b"".join(pieces)


async def read_up_to(stream: SiblingBlob, amount: int) -> bytes:
    """Return the next `amount` bytes of a stream, which brings no more just now."""
    pieces = bytearray()
    async with asyncio.timeout(SECONDS):
        while len(pieces) < amount:
            pieces += await stream.read()
    assert len(pieces) == amount
    return bytes(pieces)


@pytest.fixture(params=TRANSPORTS)
async def bench(request: pytest.FixtureRequest, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a replica whose door asks its hub over one of the two transports."""
    settings = Settings(
        server=Server(admin_listen=Address("127.0.0.1", free_port())),
        store=StoreSettings(path=tmp_path / "store"),
        upstreams=Upstreams({"docker.io": {"url": upstream.url}}),
    )
    async with running(settings, tmp_path / "hub", request.param) as (app, hub):
        bench = Bench(app, hub, upstream, Repository("docker.io", name_of(request)))
        await bench.door.start([Address("127.0.0.1", bench.port)])
        try:
            yield bench
        finally:
            upstream.release()
            await bench.siblings.close()
            await bench.door.stop(1)
