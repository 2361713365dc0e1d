"""A real hub over the test registry, asked directly and over its Unix socket."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.app import HubApp, Pools
from mirror.channel import Hub, HubServer, RemoteHub
from mirror.config import Settings, StoreSettings, Upstreams
from mirror.config.settings import Freshness, Server
from mirror.config.units import Address, Duration, Size
from mirror.hub import LocalHub
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from tests.chaos.filesystem import small
from tests.chaos.scene import name_of
from tests.replica import free_port
from tests.upstream import Image, Upstream

_DISK = 24 * 2**20


@dataclass(frozen=True)
class Bench:
    """A hub as a door sees it, the same hub as it is, the registry behind it, and a repository of its own."""

    hub: Hub
    local: LocalHub
    upstream: Upstream
    repository: Repository
    disk: Path

    def push(self, size: int) -> Digest:
        """Push a blob of `size` bytes."""
        name = self.repository.name
        return Digest(self.upstream.push_random_blob(name, size, zlib.crc32(name.encode())))

    def push_image(self, *layers: int) -> Image:
        """Push an image of one platform under the tag `1`."""
        name = self.repository.name
        return self.upstream.push_image(name, "1", ["linux/amd64"], layers, zlib.crc32(name.encode()), raw=True)


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def registry() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(registry: Upstream) -> Iterator[Upstream]:
    registry.counters.clear()
    yield registry
    registry.reset()
    registry.resume()


@pytest.fixture(params=["in process", "over the socket"])
async def bench(request: pytest.FixtureRequest, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return the hub over one of the two transports, its store on a small file system."""
    with small(tmp_path / "disk", _DISK) as disk:
        app = HubApp(_settings(disk / "store", upstream), Pools())
        await app.start()
        server = HubServer(app.hub, tmp_path / "hub")
        await server.start()
        remote = RemoteHub(tmp_path / "hub")
        hub: Hub = app.hub if request.param == "in process" else remote
        try:
            yield Bench(hub, app.hub, upstream, Repository("docker.io", name_of(request)), disk)
        finally:
            await remote.close()
            await server.stop()
            await app.stop()


def _settings(store: Path, upstream: Upstream) -> Settings:
    return Settings(
        server=Server(admin_listen=Address("127.0.0.1", free_port())),
        store=StoreSettings(path=store, size=Size(1.0, is_share=True), min_free=Size(0, is_share=False)),
        freshness=Freshness(tag_ttl=Duration(300), revalidate_timeout=Duration(1)),
        upstreams=Upstreams({"docker.io": {"url": upstream.url}}),
    )
