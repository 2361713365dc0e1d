"""An upstream client, and the registry that it asks."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mirror import config
from mirror.config.units import Size
from mirror.observe.metrics import HubMetrics, new_registry
from mirror.oci.reference import Repository
from mirror.source.upstream import (
    ListingCache,
    Proxies,
    UpstreamBlobs,
    UpstreamClient,
    UpstreamListings,
    UpstreamManifests,
)
from mirror.source.upstream.credentials import Credentials
from mirror.source.upstream.daemons import DaemonThreads
from tests.upstream import Upstream

HOST = "registry.example"
APP = Repository(HOST, "library/app")


@dataclass(frozen=True)
class Source:
    """Everything that asks one upstream, and what it counts."""

    client: UpstreamClient
    upstream: config.Upstream
    manifests: UpstreamManifests
    blobs: UpstreamBlobs
    listings: UpstreamListings
    registry: CollectorRegistry

    def counted(self, name: str, **labels: str) -> float:
        """Return the value of one series, 0 if it is not there."""
        return self.registry.get_sample_value(name, {"upstream": HOST, **labels}) or 0.0


@asynccontextmanager
async def asking(
    url: str,
    ca_file: str = "",
    proxies: Mapping[str, str] | None = None,
    others: Mapping[str, str] | None = None,
    login: Mapping[str, object] | None = None,
    credentials: Credentials | None = None,
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[Source]:
    """Open a client for the upstream at `url`, beside `others`, with proxies as the environment would name them.

    `login` are the settings of the upstream's credentials, `credentials` stand in for whatever they lead to; `settings`
    are all its others.
    """
    tables = {name: {"url": other} for name, other in (others or {}).items()}
    upstreams = config.Upstreams(
        {HOST: {"url": url, "ca_file": ca_file, **(login or {}), **(settings or {})}, **tables}
    )
    upstream = upstreams.lookup(HOST)
    assert upstream is not None
    registry = new_registry()
    metrics = HubMetrics(registry)
    contexts = {ca_file: ssl.create_default_context(cafile=ca_file)} if ca_file else {}
    credentials = credentials or Credentials(DaemonThreads())
    client = UpstreamClient(metrics, contexts, Proxies(proxies or {}), credentials)
    with tempfile.TemporaryDirectory() as folder:
        manifests, blobs = UpstreamManifests(client, metrics), UpstreamBlobs(client, upstream)
        listings = UpstreamListings(client, ListingCache(Path(folder, "listings"), Size(1.0, is_share=True)))
        try:
            yield Source(client, upstream, manifests, blobs, listings, registry)
        finally:
            await listings.close()
            await client.close()
            await credentials.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
async def source(upstream: Upstream) -> AsyncIterator[Source]:
    async with asking(upstream.url) as found:
        yield found
