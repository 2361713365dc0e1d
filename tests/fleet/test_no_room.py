"""A replica without room reads through from a sibling that holds the blob: for each reader, and stored nowhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.chaos.reader import Reader, get
from tests.fleet.replicas import Member, Replicas
from tests.fleet.servers import Valkey, until
from tests.replica import NO_PREFETCH
from tests.upstream import Upstream

MIB = 2**20
_REPOSITORY = "library/large"
_SIZE = 40 * MIB
_numbers = itertools.count(1)


class Scene:
    """A replica with room, one without, their Redis and the registry."""

    def __init__(self, upstream: Upstream, valkey: Valkey, replicas: Replicas) -> None:
        self.upstream = upstream
        self.valkey = valkey
        self.replicas = replicas
        self.roomy, self.full = replicas

    def held(self) -> str:
        """Return the digest of a blob that the one with room has."""
        digest = self.upstream.push_random_blob(_REPOSITORY, _SIZE, next(_numbers))
        assert get(self.roomy.url, target(digest)).digest == digest
        until(lambda: self.holders(digest) == [self.roomy], "it is held")
        self.upstream.counters.clear()
        return digest

    def holders(self, digest: str) -> list[Member]:
        """Return who has a digest."""
        return self.replicas.holding(digest)

    def leases(self) -> list[bytes]:
        """Return what Redis knows of fills."""
        with self.valkey.client() as client:
            return list(client.scan_iter(match="*:l:*"))


def target(digest: str) -> str:
    return f"/v2/{_REPOSITORY}/blobs/{digest}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("fleet")
    settings = {**NO_PREFETCH, "LAYOVER_STORE__MIN_FREE": "0B"}
    with Upstream() as upstream, Valkey(folder / "valkey") as valkey:
        replicas = Replicas(folder, ("west", "west"), valkey.url, {"docker.io": upstream.url}, settings=settings)
        with replicas.near((512 * MIB, 8 * MIB)):
            yield Scene(upstream, valkey, replicas)


@pytest.fixture
def scene(fleet: Scene) -> Iterator[Scene]:
    yield fleet
    fleet.replicas.start()


def test_passes_on__from_a_sibling__to_each_reader(scene: Scene) -> None:
    digest = scene.held()
    before = scene.full.metric("layover_sibling_bytes_total")
    readers = [Reader(scene.full.url, target(digest)) for _ in range(3)]
    assert [each.wait().digest for each in readers] == [digest] * 3
    assert scene.upstream.counters.sent() == 0
    assert scene.full.metric("layover_sibling_bytes_total") - before >= 3 * _SIZE
    assert scene.holders(digest) == [scene.roomy]
    until(lambda: not scene.leases(), "nobody is told to wait for who stores nothing")


def test_passes_on__from_the_upstream__once_the_sibling_is_killed(scene: Scene) -> None:
    digest = scene.held()
    reader = Reader(scene.full.url, target(digest)).wait_for(MIB)
    reader.hold()
    scene.roomy.kill()
    reader.go_on()
    assert reader.wait().digest == digest, reader.error
    assert 0 < scene.upstream.counters.sent() < _SIZE, "it went on where the sibling broke off"


def test_passes_on__never_whole__what_a_sibling_lies_about(scene: Scene) -> None:
    digest = scene.held()
    name = digest.removeprefix("sha256:")
    with (scene.roomy.store / "content" / "sha256" / name[:2] / name).open("r+b") as file:
        file.seek(_SIZE // 2)
        file.write(b"something else")
    misled = Reader(scene.full.url, target(digest)).wait()
    assert not misled.is_complete
    assert misled.received <= _SIZE - 64 * 2**10
    assert scene.full.metric("layover_digest_mismatches_total", upstream="") == 1
    assert get(scene.full.url, target(digest)).digest == digest
    # Before it is known how large it is some comes in vain.
    assert _SIZE <= scene.upstream.counters.sent() < 1.5 * _SIZE
