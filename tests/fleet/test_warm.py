"""A warm pull does not know that there is a Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.crowd import pull
from tests.fleet.servers import Valkey, until
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Upstream

ASKED = ("claim", "consult", "copies", "post")


@pytest.fixture
def replica(valkey: Valkey, upstream: Upstream, tmp_path: Path) -> Iterator[Replica]:
    settings = {"LAYOVER_FLEET__REDIS_URL": valkey.url, "LAYOVER_FLEET__SECRET": "s", **NO_PREFETCH}
    with Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}, settings=settings) as running:
        until(lambda: running.metric("layover_fleet_up") == 1, "it is one of the fleet")
        yield running


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def asked(replica: Replica) -> float:
    """Return how often pulls made it ask the fleet."""
    return sum(replica.metric("layover_fleet_seconds_count", operation=each) for each in ASKED)


def test_asks_nothing__and_needs_nobody(replica: Replica, valkey: Valkey, upstream: Upstream) -> None:
    image = upstream.push_image("library/warm", "1", ["linux/amd64"], [300_000], raw=True)

    def pull_warm(times: int) -> None:
        for told in pull([replica.url] * times, image.repository, image.tag):
            assert not told.error

    pull_warm(1)
    cold = asked(replica)
    assert cold >= 2, "its blobs were claimed"
    pull_warm(20)
    assert asked(replica) == cold
    valkey.pause()
    pull_warm(20)
    until(lambda: replica.metric("layover_fleet_up") == 0, "it is known")
    pull_warm(20)
    valkey.kill()
    pull_warm(20)
