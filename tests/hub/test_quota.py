"""A quota of manifest GETs, as Docker Hub counts them, lasts for many more pulls than it has GETs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.conformance.wire import Answer, Door, exchange
from tests.hub.pulling import wait_for
from tests.replica import Replica
from tests.upstream import Image, Upstream

HOST = "hub.test"
QUOTA = 50
IMAGES = 20
MOVING = 3
# The whole proof is 50 expiries of 200 pulls: QUOTA_EXPIRIES=50.
EXPIRIES = int(os.environ.get("QUOTA_EXPIRIES", "12"))
PULLS = 10
MOVED_EVERY = max(2, EXPIRIES // 5)
TTL = 0.5
PLATFORM = "linux/amd64"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        running.dials.manifest_quota = running.dials.manifest_quota_limit = QUOTA
        yield running


@pytest.fixture(scope="module")
def replica(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    store = tmp_path_factory.mktemp("quota") / "store"
    settings = {"LAYOVER_FRESHNESS__TAG_TTL": f"{int(TTL * 1000)}ms"}
    with Replica(store, upstreams={HOST: upstream.url}, settings=settings) as running:
        yield running


def _push(upstream: Upstream, number: int, generation: int) -> Image:
    return upstream.push_image(f"library/app{number}", "1", layers=[1000], seed=1000 * generation + number, raw=True)


class Puller:
    """A client of one platform that checks what it is given against what was pushed."""

    def __init__(self, replica: Replica, images: dict[int, Image]) -> None:
        self._connection = Door(replica.port).connect()
        self._images = images
        self._pushed = {image.index.digest: image for image in images.values()}
        self.stale = 0

    def push(self, number: int, image: Image) -> None:
        """Take note of a tag that moved."""
        self._images[number] = image
        self._pushed[image.index.digest] = image

    def pull(self, number: int) -> None:
        """Pull the index by tag and the platform's manifest by digest; each is right, or an old one marked stale."""
        index = self._get(f"/v2/{HOST}/library/app{number}/manifests/1")
        digest = index.headers["Docker-Content-Digest"]
        if digest != self._images[number].index.digest:
            assert "detail=stale-quota" in index.headers["Cache-Status"]
            self.stale += 1
        manifest = self._pushed[digest].platform(PLATFORM).manifest
        found = self._get(f"/v2/{HOST}/library/app{number}/manifests/{manifest.digest}")
        assert found.headers["Docker-Content-Digest"] == manifest.digest

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _get(self, target: str) -> Answer:
        answer = exchange(self._connection, "GET", target, ())
        assert answer.status == 200, (target, answer.status, answer.body[:300])
        return answer


@pytest.mark.timeout(600)
def test_pull__tags_expire_and_move__the_quota_is_never_used_up(upstream: Upstream, replica: Replica) -> None:
    images = {number: _push(upstream, number, 0) for number in range(IMAGES)}
    puller = Puller(replica, images)
    try:
        for number in range(IMAGES):
            puller.pull(number)
        assert replica.metric("layover_upstream_quota_remaining", upstream=HOST) == QUOTA - 2 * IMAGES
        for expiry in range(1, EXPIRIES + 1):
            wait_for(time.monotonic() + TTL + 0.02)
            if expiry % MOVED_EVERY == 0:
                for number in range(MOVING):
                    puller.push(number, _push(upstream, number, expiry))
            for _ in range(PULLS):
                for number in range(IMAGES):
                    puller.pull(number)
            remaining = replica.metric("layover_upstream_quota_remaining", upstream=HOST)
            assert remaining == upstream.dials.manifest_quota
            assert replica.metric("layover_upstream_quota_limit", upstream=HOST) == QUOTA
    finally:
        puller.close()
    assert upstream.dials.manifest_quota is not None
    assert upstream.dials.manifest_quota >= 1
    assert replica.metric("layover_upstream_requests_total", upstream=HOST, status="429") == 0
    assert puller.stale > 0, "the quota ran short"


def test_pull__missing__fetched_while_the_quota_is_critical(upstream: Upstream, replica: Replica) -> None:
    left = upstream.dials.manifest_quota
    image = _push(upstream, IMAGES + 1, 0)
    puller = Puller(replica, {IMAGES + 1: image})
    puller.pull(IMAGES + 1)
    puller.close()
    assert upstream.dials.manifest_quota == (left or 0) - 2
