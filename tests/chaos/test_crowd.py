"""Many clients that pull one cold image at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.reader import Client
from tests.chaos.scene import MIB, eventually
from tests.replica import Replica
from tests.upstream import Image, Upstream

_CLIENTS = 50
_LONGEST_PAUSE = 1.0


@pytest.fixture(params=["1", "2"], ids=["one process", "two doors"])
def replica(request: pytest.FixtureRequest, upstream: Upstream, tmp_path: Path) -> Iterator[Replica]:
    settings = {"LAYOVER_SERVER__WORKERS": request.param}
    with Replica(tmp_path / "store", upstreams={"docker.io": upstream.url}, settings=settings) as running:
        yield running
        assert running.stop() == 0


def _assert_fetched_once(upstream: Upstream, image: Image) -> None:
    for blob in image.blobs:
        assert upstream.counters.sent(blob.digest) == blob.size, upstream.counters.spans(blob.digest)
        assert upstream.counters.overlaps(blob.digest) == 0, upstream.counters.spans(blob.digest)
    asked = [each.path.rpartition("/")[2] for each in upstream.counters.headers if "/manifests/" in each.path]
    assert sorted(asked) == sorted([image.tag, *(manifest.digest for manifest in image.manifests)])


def test_pull__50_clients_at_once(upstream: Upstream, replica: Replica) -> None:
    image = upstream.push_image("library/crowd", "1", ["linux/amd64"], [10_000, 200 * MIB, 3 * MIB], raw=True)
    clients = [Client(replica.url, image) for _ in range(_CLIENTS)]
    for client in clients:
        client.wait()
        client.assert_whole()
    _assert_fetched_once(upstream, image)


def test_pull__half_of_the_clients_are_killed__the_others_do_not_pause(upstream: Upstream, replica: Replica) -> None:
    size = 45 * MIB
    image = upstream.push_image("library/killed", "1", ["linux/amd64"], [10_000, size], raw=True)
    upstream.dials.blob_rate_total = 15 * MIB
    clients = [Client(replica.url, image) for _ in range(_CLIENTS)]
    eventually(lambda: min(client.received for client in clients) > size // 4, "every client is in the middle of it")
    began = time.monotonic()
    for client in clients[::2]:
        client.kill()
    for client in clients[1::2]:
        client.wait()
        client.assert_whole()
        assert client.readers[-1].longest_pause(began) < _LONGEST_PAUSE
    assert not any(client.wait().readers[-1].is_complete for client in clients[::2])
    _assert_fetched_once(upstream, image)
