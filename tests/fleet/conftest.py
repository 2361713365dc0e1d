"""Servers of the fleet's shared state, by the forms in which users have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fleet.members import Fleet
from tests.fleet.servers import Cluster, Sentinels, TlsRedis, Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as running:
        yield running


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path / "sentinels") as running:
        yield running


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[TlsRedis]:
    with TlsRedis(tmp_path / "redis", password="secret") as running:
        yield running


@pytest.fixture(scope="module")
def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Return a server for tests that do not harm it."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
async def fleet(shared_valkey: Valkey, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Return a fleet without replicas yet, on an empty server."""
    shared_valkey.ask("FLUSHALL")
    async with Fleet(tmp_path / "stores", shared_valkey.url) as empty:
        yield empty
