"""What a manifest refers to comes in before anybody asks for it, and never before what somebody did ask for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.hub.prefetch import _Wanted
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.source.upstream import FetchedManifest
from mirror.store import Verdict
from tests.channel.conftest import eventually as until
from tests.chaos.scene import MIB, Scene, eventually, name_of
from tests.conformance.wire import Answer, Door
from tests.hub import policy
from tests.replica import Replica
from tests.upstream import Descriptor, Failure, Image, PlatformImage, Upstream

AMD, ARM = "linux/amd64", "linux/arm64"
PLATFORMS = (AMD, ARM, "linux/arm/v6", "linux/arm/v7", "unknown/unknown")
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# Longer than a prefetch takes that is not held back.
_MOMENT = 0.5


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def run(store: Path, upstream: Upstream, table: Mapping[str, object] = {}, **settings: str) -> Replica:
    """Return a replica in front of any number of registries, each of which is the one there is."""
    tables = {name: {"url": upstream.url, **table} for name in ("docker.io", "*.test")}
    return Replica(
        store, upstreams=tables, settings={f"LAYOVER_{key.upper()}": value for key, value in settings.items()}
    )


@pytest.fixture(scope="module")
def replica(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with run(tmp_path_factory.mktemp("prefetch") / "store", upstream) as running:
        yield running


@pytest.fixture
def here(upstream: Upstream, replica: Replica, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Return a scene with a registry's name of its own, of which no platform was pulled yet."""
    upstream.counters.clear()
    name = name_of(request)
    yield Scene(upstream, replica, name, f"{name.rpartition('/')[2]}.test")
    upstream.reset()


def is_held(replica: Replica, digest: str) -> bool:
    algorithm, _, name = digest.partition(":")
    return (replica.store / "content" / algorithm / name[:2] / name).exists()


def wait_for(replica: Replica, *wanted: Descriptor) -> None:
    eventually(lambda: all(is_held(replica, each.digest) for each in wanted), f"{wanted} are held")


def settle(here: Scene) -> None:
    """Wait until whatever may be prefetched is under way or over: until what was asked for last has come."""
    image = here.upstream.push_image(f"{here.repository}-last", "1", [AMD], [1000], here.seed + 99, raw=True)
    other = Scene(here.upstream, here.replica, image.repository, "last.test")
    assert other.manifest(image.manifests[0].digest).status == 200
    wait_for(here.replica, *image.blobs)


def asked(upstream: Upstream, wanted: PlatformImage) -> int:
    """Return how many of a platform's manifest, config and layers the upstream was asked for."""
    digests = [wanted.manifest.digest, *(blob.digest for blob in wanted.blobs)]
    return sum(upstream.counters.requests(digest=digest) > 0 for digest in digests)


def written(replica: Replica, digest: str) -> int:
    """Return how many bytes of a blob's partial file are there."""
    files = (replica.store / "partial").glob(f"{digest.replace(':', '-')}-*.data")
    return sum(file.stat().st_blocks * 512 for file in files)


def assert_once(here: Scene, image: PlatformImage) -> None:
    for blob in image.blobs:
        here.assert_fetched_once(blob.digest, blob.size)
        assert here.upstream.counters.requests(method="GET", digest=blob.digest) == 1


class TestManifest:
    def test_brings_in_config_and_layers(self, here: Scene) -> None:
        image = here.push_image(300_000, 5000, 2 * MIB).platforms[0]
        requests = here.replica.metric("layover_requests_total", kind="blob")
        assert here.manifest(image.manifest.digest).status == 200
        wait_for(here.replica, *image.blobs)
        assert_once(here, image)
        assert here.upstream.counters.requests(method="HEAD") == 0
        assert here.replica.metric("layover_requests_total", kind="blob") == requests
        found = here.get(image.layers[2].digest)
        assert (found.status, found.headers["Cache-Status"]) == (200, "layover; hit")

    def test_starts_nothing__by_head_until_it_is_pulled(self, here: Scene) -> None:
        image = here.push_image(3000).platforms[0]
        target = f"{here.base}/manifests/{image.manifest.digest}"
        assert Door(here.replica.port).head(target).status == 200
        settle(here)
        assert here.upstream.counters.requests(kind="blob", repository=here.repository) == 0
        assert here.manifest(image.manifest.digest).headers["Cache-Status"] == "layover; hit"
        wait_for(here.replica, *image.blobs)

    def test_starts_nothing__by_listings(self, here: Scene) -> None:
        image = here.push_image(3000)
        for path in ("tags/list", f"referrers/{image.index.digest}"):
            assert Door(here.replica.port).get(f"{here.base}/{path}").status == 200
        settle(here)
        assert here.upstream.counters.requests(kind="blob", repository=here.repository) == 0

    def test_starts_nothing__warm(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/warm", "1", [AMD], [3000], raw=True)
        upstream.counters.clear()
        with run(tmp_path / "store", upstream, prefetch__enabled="false") as running:
            here = Scene(upstream, running, "library/warm")
            for reference in (image.tag, image.manifests[0].digest):
                assert here.manifest(reference).status == 200
            assert running.stop() == 0
        with run(tmp_path / "store", upstream) as running:
            here = Scene(upstream, running, "library/warm")
            for reference in (image.tag, image.manifests[0].digest):
                assert here.manifest(reference).headers["Cache-Status"].startswith("layover; hit")
            settle(here)
        assert upstream.counters.requests(repository="library/warm") == 2

    def test_leaves_out__what_has_no_size_and_what_the_upstream_has_not(self, here: Scene) -> None:
        image = here.push_image(3000, 4000).platforms[0]
        missing = {**image.config.document, "digest": str(Digest.of(here.repository.encode()))}
        unsized = {key: value for key, value in image.layers[0].document.items() if key != "size"}
        layers = [missing, unsized, image.layers[1].document]
        body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}).encode()
        digest = here.upstream.push_manifest(here.repository, str(Digest.of(body)), body, MANIFEST)
        assert here.manifest(digest).status == 200
        wait_for(here.replica, image.layers[1])
        settle(here)
        assert here.upstream.counters.requests(digest=str(missing["digest"])) == 1
        assert here.upstream.counters.requests(digest=image.layers[0].digest) == 0

    def test_works__with_doors_of_their_own(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/doors", "1", [AMD], [3000], raw=True).platforms[0]
        with run(tmp_path / "store", upstream, server__workers="2") as running:
            assert Door(running.port).get(f"/v2/library/doors/manifests/{image.manifest.digest}").status == 200
            wait_for(running, *image.blobs)


class TestIndex:
    def test_brings_in__what_was_seen_being_pulled(self, here: Scene) -> None:
        image = here.push_image(1000, platforms=PLATFORMS)
        assert here.manifest(image.tag).status == 200
        settle(here)
        assert [asked(here.upstream, each) for each in image.platforms] == [0] * 5
        assert here.manifest(image.platform("linux/arm/v7").manifest.digest).status == 200
        assert here.manifest(image.platform(AMD).manifest.digest).status == 200
        for repository in (here.repository, f"{here.repository}-other"):
            later = here.upstream.push_image(repository, "2", PLATFORMS, [1000], here.seed + len(repository), raw=True)
            scene = Scene(here.upstream, here.replica, repository, here.host)
            assert scene.manifest(later.tag).status == 200
            wait_for(here.replica, *later.platform(AMD).blobs, *later.platform("linux/arm/v7").blobs)
            settle(here)
            assert [asked(here.upstream, each) for each in later.platforms] == [3, 0, 0, 3, 0]
            assert_once(here, later.platform(AMD))

    def test_brings_in__what_was_pulled_before_a_restart(self, upstream: Upstream, tmp_path: Path) -> None:
        old, new = (upstream.push_image("library/kept", tag, [AMD, ARM], [1000], int(tag), raw=True) for tag in "12")
        base = "/v2/library/kept/manifests"
        with run(tmp_path / "store", upstream) as running:
            for reference in (old.tag, old.platform(ARM).manifest.digest):
                assert Door(running.port).get(f"{base}/{reference}").status == 200
            wait_for(running, *old.platform(ARM).blobs)
            assert running.stop() == 0
            running.start()
            assert Door(running.port).get(f"{base}/{new.tag}").status == 200
            wait_for(running, *new.platform(ARM).blobs)
            assert asked(upstream, new.platform(AMD)) == 0

    def test_brings_in__what_is_configured(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/configured", "1", PLATFORMS, [1000], raw=True)
        with run(tmp_path / "store", upstream, prefetch__platforms='["linux/arm64/v8", "linux/s390x"]') as running:
            assert Door(running.port).get("/v2/library/configured/manifests/1").status == 200
            wait_for(running, *image.platform(ARM).blobs)
            here = Scene(upstream, running, "library/configured")
            settle(here)
            assert [asked(upstream, each) for each in image.platforms] == [0, 3, 0, 0, 0]


class TestReaders:
    def test_go_first(self, here: Scene) -> None:
        for reference in (here.push_image(1000, tag="0").tag, here.push_image(1000, tag="0").manifests[0].digest):
            assert here.manifest(reference).status == 200
        settle(here)
        image = here.upstream.push_image(here.repository, "1", [AMD], [3000, 4000], raw=True)
        here.upstream.counters.clear()
        read = here.upstream.push_random_blob(here.repository, MIB, here.seed + 1)
        here.upstream.dials.blob_digests, here.upstream.dials.blob_stall = {read}, 200_000
        reader = here.read(read)
        reader.wait_for(1)
        assert here.manifest(image.tag).status == 200
        time.sleep(_MOMENT)
        assert here.upstream.counters.requests() == 2
        here.upstream.release()
        reader.wait()
        assert reader.is_complete
        wait_for(here.replica, *image.blobs)

    def test_go_first__before_what_is_under_way(self, here: Scene) -> None:
        image = here.push_image(16 * MIB).platforms[0]
        layer = image.layers[0].digest
        read = here.upstream.push_random_blob(here.repository, 6 * MIB, here.seed + 1)
        here.upstream.dials.blob_rate = 8 * MIB
        assert here.manifest(image.manifest.digest).status == 200
        eventually(lambda: written(here.replica, layer) > MIB, "the layer is on its way")
        reader = here.read(read)
        reader.wait_for(1)
        before = written(here.replica, layer)
        reader.wait()
        assert written(here.replica, layer) - before < 3 * MIB
        wait_for(here.replica, *image.blobs)
        here.assert_fetched_once(layer, 16 * MIB)

    def test_join(self, here: Scene) -> None:
        image = here.push_image(MIB).platforms[0]
        layer = image.layers[0]
        here.upstream.dials.blob_digests, here.upstream.dials.blob_stall = {layer.digest}, 200_000
        assert here.manifest(image.manifest.digest).status == 200
        eventually(lambda: here.upstream.counters.sent(layer.digest) > 0, "the layer is on its way")
        readers = [here.read(layer.digest) for _ in range(3)]
        for reader in readers:
            reader.wait_for(1)
        here.upstream.release()
        for reader in readers:
            reader.wait()
            assert reader.is_complete
            assert reader.headers["Cache-Status"] == "layover; fwd=miss; collapsed"
        wait_for(here.replica, *image.blobs)
        assert_once(here, image)

    def test_join__and_go_first_from_then_on(self, here: Scene) -> None:
        image = here.push_image(6 * MIB).platforms[0]
        layer = image.layers[0].digest
        read = here.upstream.push_random_blob(here.repository, MIB, here.seed + 1)
        here.upstream.dials.blob_digests, here.upstream.dials.blob_rate = {layer}, 8 * MIB
        assert here.manifest(image.manifest.digest).status == 200
        eventually(lambda: written(here.replica, layer) > 0, "the layer is on its way")
        here.upstream.dials.blob_digests, here.upstream.dials.blob_stall = {layer, read}, 200_000
        stalled = here.read(read)
        stalled.wait_for(1)
        here.upstream.dials.blob_stall = None
        found = here.get(layer)
        assert found.is_complete
        assert not stalled.is_complete
        here.upstream.release()
        stalled.wait()
        here.assert_fetched_once(layer, 6 * MIB)


class TestLimits:
    def test_quota_is_low(self, here: Scene) -> None:
        image = here.push_image(1000).platforms[0]
        here.upstream.dials.manifest_quota = 15
        assert here.manifest(image.manifest.digest).status == 200
        here.upstream.dials.manifest_quota = None
        settle(here)
        assert here.upstream.counters.requests(kind="blob", repository=here.repository) == 0
        assert here.get(image.layers[0].digest).is_complete

    def test_rate_is_limited(self, here: Scene) -> None:
        image = here.push_image(1000).platforms[0]
        door = Door(here.replica.port)
        assert door.head(f"{here.base}/manifests/{image.manifest.digest}").status == 200
        here.upstream.dials.failures = [Failure(429, kind="manifest", reference="absent", retry_after="60")]
        assert door.get(f"{here.base}/manifests/absent").status == 429
        assert here.manifest(image.manifest.digest).status == 200
        settle(here)
        assert here.upstream.counters.requests(kind="blob", repository=here.repository) == 0

    def test_breaker_is_open(self, here: Scene) -> None:
        image = here.push_image(1000).platforms[0]
        assert Door(here.replica.port).head(f"{here.base}/manifests/{image.manifest.digest}").status == 200
        failures = [Failure(503, kind="manifest", repository=name) for name in (here.repository, "library/absent")]
        here.upstream.dials.failures = failures
        door = Door(here.replica.port)
        for repository in (here.base, f"/v2/{here.host}/library/absent"):
            for _ in range(3):
                assert door.get(f"{repository}/manifests/absent").status == 503
        assert here.replica.metric("layover_upstream_up", upstream="*.test") == 0
        assert here.manifest(image.manifest.digest).status == 200
        settle(here)
        assert here.upstream.counters.requests(kind="blob", repository=here.repository) == 0

    def test_room_is_short(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/large", "1", [AMD], [8 * MIB, 12 * MIB, 1000], raw=True).platforms[0]
        upstream.counters.clear()
        with run(tmp_path / "store", upstream, store__size="20MiB", store__min_free="0B") as running:
            here = Scene(upstream, running, "library/large")
            upstream.dials.blob_digests, upstream.dials.blob_stall = {image.layers[0].digest}, 3 * MIB
            assert here.manifest(image.manifest.digest).status == 200
            wait_for(running, image.config, image.layers[2])
            eventually(lambda: written(running, image.layers[0].digest) > 0, "the first layer is on its way")
            assert upstream.counters.requests(digest=image.layers[1].digest) == 0
            found = here.get(image.layers[1].digest)
            assert (found.is_complete, found.headers["Cache-Status"]) == (True, "layover; fwd=miss; stored")
            wait_for(running, image.layers[1])
            assert not written(running, image.layers[0].digest)
            upstream.reset()
            assert here.get(image.layers[0].digest).is_complete

    def test_connections_are_few(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/narrow", "1", [AMD], [1000], raw=True).platforms[0]
        with run(tmp_path / "store", upstream, {"max_connections": 3}) as running:
            here = Scene(upstream, running, "library/narrow")
            assert here.manifest(image.manifest.digest).status == 200
            assert here.get(image.layers[0].digest).is_complete
            assert upstream.counters.requests(digest=image.config.digest) == 0

    def test_disabled(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/disabled", "1", [AMD], [1000], raw=True).platforms[0]
        with run(tmp_path / "store", upstream, prefetch__enabled="false") as running:
            here = Scene(upstream, running, "library/disabled")
            assert here.manifest(image.manifest.digest).status == 200
            time.sleep(_MOMENT)
            assert here.get(image.layers[0].digest).is_complete
            assert upstream.counters.requests(digest=image.config.digest) == 0

    def test_the_replica_ends(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/ending", "1", [AMD], [MIB, MIB + 1, MIB + 2, MIB + 3], raw=True)
        upstream.counters.clear()
        upstream.dials.blob_stall = 200_000
        with run(tmp_path / "store", upstream) as running:
            here = Scene(upstream, running, "library/ending")
            assert here.manifest(image.manifests[0].digest).status == 200
            eventually(lambda: upstream.counters.requests(kind="blob") > 1, "layers are on their way")
            began = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() < began + 5
        upstream.reset()
        assert upstream.counters.requests(kind="blob") <= 3

    def test_the_replica_ends__once_its_clients_have_what_they_read(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/lasting", "1", [AMD], [MIB, MIB + 1, MIB + 2, MIB + 3], 3, raw=True)
        large = upstream.push_random_blob("library/lasting", 32 * MIB)
        with run(tmp_path / "store", upstream) as running:
            here = Scene(upstream, running, "library/lasting")
            assert here.get(large).is_complete
            slow = here.read(large).wait_for(1)
            slow.hold()
            upstream.counters.clear()
            upstream.dials.blob_stall = 200_000
            assert here.manifest(image.manifests[0].digest).status == 200
            eventually(lambda: upstream.counters.requests(kind="blob") > 2, "two layers are on their way")
            with ThreadPoolExecutor(1) as pool:
                ending = pool.submit(running.stop)
                eventually(lambda: '"stopping"' in running.log.read_text(), "the replica is about to end")
                upstream.reset()
                time.sleep(_MOMENT)
                slow.go_on()
                assert slow.wait().is_complete
                assert ending.result() == 0
        assert upstream.counters.requests(kind="blob") == 3


class TestPrivate:
    @pytest.fixture
    def members(self, upstream: Upstream) -> Iterator[Upstream]:
        upstream.counters.clear()
        policy.guard(upstream, {"library/private"})
        yield upstream
        upstream.reset()

    def _pull(self, running: Replica, repository: str, image: Image) -> Answer:
        return Door(running.port).get(f"/v2/{repository}/manifests/{image.manifests[0].digest}")

    def test_nothing_is_widened(self, members: Upstream, tmp_path: Path) -> None:
        names = ("library/private", "library/public")
        private, public = (members.push_image(name, "1", [AMD], [1000], 7, raw=True) for name in names)
        with policy.replica(tmp_path / "store", members) as running:
            assert self._pull(running, "library/private", private).status == 403
            assert self._pull(running, "library/public", public).status == 200
            wait_for(running, *public.blobs)
            assert members.counters.requests(method="GET", kind="blob", repository="library/private") == 0
            # The same bytes are in both repositories.
            assert private.blobs == public.blobs
            door = Door(running.port)
            assert door.get(f"/v2/library/public/blobs/{public.layers[0].digest}").status == 200
            assert door.get(f"/v2/library/private/blobs/{public.layers[0].digest}").status == 403

    def test_comes_in__where_anyone_may_pull_it(self, members: Upstream, tmp_path: Path) -> None:
        image = members.push_image("library/private", "2", [AMD], [2000], 8, raw=True)
        with policy.replica(tmp_path / "store", members, "anyone") as running:
            assert self._pull(running, "library/private", image).status == 200
            wait_for(running, *image.blobs)


class TestQueue:
    async def test_is_bounded__and_the_oldest_go(self, upstream: Upstream, tmp_path: Path) -> None:
        repository = Repository("docker.io", "library/queued")
        async with policy.hub(tmp_path / "store", {"url": upstream.url}) as hub:
            hub._blobs.precedence.read("a reader")
            digests = []
            for number in range(600):
                body = json.dumps({"schemaVersion": 2, "layers": [], "number": number}).encode()
                digest = Digest.of(body)
                hub._manifests.keep(repository, FetchedManifest(digest, MANIFEST, body))
                await hub.pulled(repository, digest)
                digests.append(digest)
            assert [digest for _, digest in hub._prefetch._queue] == digests[-500:]
            hub._blobs.precedence.over("a reader")
            await until(lambda: not hub._prefetch._queue)

    async def test_what_is_private_by_now__does_not_come(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/closing", "1", [AMD], [1000], raw=True)
        policy.guard(upstream)
        upstream.counters.clear()
        repository, digest = Repository("docker.io", "library/closing"), Digest(image.manifests[0].digest)
        table = {"url": upstream.url, "username": policy.USER, "password": policy.SECRET}
        async with policy.hub(tmp_path / "store", table) as hub:
            await hub.manifest(repository, digest)
            hub._store.judge(repository, Verdict(is_private=True, checked_at=time.time()))
            for each in image.blobs:
                hub._prefetch._put([_Wanted(hub._upstream(repository), repository, Digest(each.digest), each.size)])
            await until(lambda: not hub._prefetch._workers)
            assert upstream.counters.requests(kind="blob") == 0
        upstream.reset()

    async def test_what_failed__is_not_tried_again(self, upstream: Upstream, tmp_path: Path) -> None:
        image = upstream.push_image("library/failing", "1", [AMD], [1000], raw=True)
        upstream.counters.clear()
        layer = image.layers[0].digest
        upstream.dials.failures = [Failure(404, kind="blob", reference=layer)]
        repository, digest = Repository("docker.io", "library/failing"), Digest(image.manifests[0].digest)
        async with policy.hub(tmp_path / "store", {"url": upstream.url}) as hub:
            await hub.manifest(repository, digest)
            for _ in range(5):
                await hub.pulled(repository, digest)
                await until(lambda: not hub._prefetch._workers)
            assert hub._store.content.size(Digest(image.blobs[0].digest)) is not None
            assert upstream.counters.requests(digest=layer) == 1
        upstream.reset()
