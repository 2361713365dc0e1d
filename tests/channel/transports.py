"""What tests of a hub share that is asked directly, or over its Unix socket."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.app import HubApp, Pools
from mirror.channel import Hub, HubServer, RemoteHub
from mirror.config import Settings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from tests.upstream import Image, Upstream

TRANSPORTS = ("in process", "over the socket")
SECONDS = 20.0


class Origin:
    """A registry, and a repository there that is the test's own."""

    def __init__(self, upstream: Upstream, repository: Repository) -> None:
        self.upstream = upstream
        self.repository = repository
        self._seed = zlib.crc32(repository.name.encode())

    def push(self, size: int) -> Digest:
        """Push a blob of `size` bytes."""
        return Digest(self.upstream.push_random_blob(self.repository.name, size, self._seed))

    def push_image(self, *layers: int) -> Image:
        """Push an image of one platform under the tag `1`."""
        return self.upstream.push_image(self.repository.name, "1", ["linux/amd64"], layers, self._seed, raw=True)


@asynccontextmanager
async def running(settings: Settings, socket: Path, transport: str) -> AsyncIterator[tuple[HubApp, Hub]]:
    """Run a hub, and yield it with what a door asks: the same, or its `socket`."""
    app = HubApp(settings, Pools())
    await app.start()
    server = HubServer(app.hub, socket)
    await server.start()
    remote = RemoteHub(socket)
    try:
        yield app, app.hub if transport == "in process" else remote
    finally:
        await remote.close()
        await server.stop()
        await app.stop()


async def eventually(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(0.005)


@pytest.fixture
def upstream(registry: Upstream) -> Iterator[Upstream]:
    """Return the registry with every dial at its default and nothing counted."""
    registry.counters.clear()
    yield registry
    registry.reset()
    registry.resume()
