"""A real hub over the test registry, asked directly and over its Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.channel import Hub
from mirror.config import Settings, StoreSettings, Upstreams
from mirror.config.settings import Freshness, Server
from mirror.config.units import Address, Duration, Size
from mirror.hub import LocalHub
from mirror.oci.reference import Repository
from tests.channel.transports import TRANSPORTS, Origin, eventually, running, upstream
from tests.chaos.filesystem import small
from tests.chaos.scene import name_of, registry
from tests.replica import free_port
from tests.upstream import Upstream

__all__ = ["Bench", "bench", "eventually", "registry", "upstream"]

_DISK = 24 * 2**20


class Bench(Origin):
    """A hub as a door sees it, the same hub as it is, the registry behind it, and a repository of its own."""

    def __init__(self, hub: Hub, local: LocalHub, upstream: Upstream, repository: Repository, disk: Path) -> None:
        super().__init__(upstream, repository)
        self.hub = hub
        self.local = local
        self.disk = disk


@pytest.fixture(params=TRANSPORTS)
async def bench(request: pytest.FixtureRequest, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return the hub over one of the two transports, its store on a small file system."""
    with small(tmp_path / "disk", _DISK) as disk:
        settings = _settings(disk / "store", upstream)
        async with running(settings, tmp_path / "hub", request.param) as (app, hub):
            yield Bench(hub, app.hub, upstream, Repository("docker.io", name_of(request)), disk)


def _settings(store: Path, upstream: Upstream) -> Settings:
    return Settings(
        server=Server(admin_listen=Address("127.0.0.1", free_port())),
        store=StoreSettings(path=store, size=Size(1.0, is_share=True), min_free=Size(0, is_share=False)),
        freshness=Freshness(tag_ttl=Duration(300), revalidate_timeout=Duration(1)),
        upstreams=Upstreams({"docker.io": {"url": upstream.url}}),
    )
