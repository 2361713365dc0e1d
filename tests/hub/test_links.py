"""Under which repositories a blob or a manifest that is held may be served."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.channel import Filling
from mirror.hub.penalties import _Penalty
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository
from tests.chaos.reader import get
from tests.chaos.scene import MIB, Scene, eventually, name_of
from tests.hub import policy
from tests.hub.policy import BLOB, BY_DIGEST, Kind
from tests.replica import NO_PREFETCH, Replica
from tests.store.stock import opened
from tests.upstream import Failure, Image, Upstream

_SIZE = MIB
# Larger than what is verified and named when a replica starts.
_LARGE = 17 * MIB


@pytest.fixture(scope="module")
def replica(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    store = tmp_path_factory.mktemp("links") / "store"
    with Replica(store, upstreams={"docker.io": registry.url}, settings=NO_PREFETCH) as running:
        yield running


@pytest.fixture
def here(registry: Upstream, replica: Replica, request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(registry, replica, name_of(request))
    yield scene
    registry.reset()
    registry.resume()
    eventually(lambda: scene.get(str(Digest.of(b"nobody has it"))).status == 404, "the upstream is asked again")


@pytest.fixture
def elsewhere(here: Scene) -> Scene:
    """Return the same scene for another repository."""
    return Scene(here.upstream, here.replica, f"{here.repository}-elsewhere")


def test_pull__held_under_another_repository_of_an_upstream_that_has_it(here: Scene, elsewhere: Scene) -> None:
    digest = here.push(_SIZE)
    assert here.get(digest).digest == digest
    here.upstream.push_blob(elsewhere.repository, here.upstream.content(digest))
    here.upstream.counters.clear()
    for _ in range(2):
        assert elsewhere.get(digest).digest == digest
    assert here.upstream.counters.requests(kind="blob") == 1
    assert here.upstream.counters.requests("HEAD", "blob", elsewhere.repository, digest) == 1


def test_pull__held_under_another_repository_of_an_upstream_that_lacks_it(here: Scene, elsewhere: Scene) -> None:
    digest = here.push(_SIZE)
    elsewhere.push_image(100)
    assert here.get(digest).digest == digest
    for _ in range(2):
        refused = elsewhere.get(digest)
        assert refused.status == 404
        assert b"BLOB_UNKNOWN" in refused.beginning


def test_pull__on_its_way_under_another_repository_of_an_upstream_that_lacks_it(here: Scene, elsewhere: Scene) -> None:
    digest = here.push(_SIZE)
    elsewhere.push_image(100)
    here.upstream.dials.blob_stall = _SIZE // 2
    reader = here.read(digest).wait_for(_SIZE // 2)
    assert elsewhere.get(digest).status == 404
    here.upstream.release()
    assert reader.wait().digest == digest


def test_pull__on_its_way_under_another_repository__no_second_transfer(here: Scene, elsewhere: Scene) -> None:
    digest = here.push(_SIZE)
    here.upstream.push_blob(elsewhere.repository, here.upstream.content(digest))
    here.upstream.dials.blob_stall = _SIZE // 2
    readers = [here.read(digest).wait_for(_SIZE // 2), elsewhere.read(digest).wait_for(_SIZE // 2)]
    here.upstream.release()
    assert {reader.wait().digest for reader in readers} == {digest}
    here.assert_fetched_once(digest, _SIZE)


def test_pull__held_under_another_repository__the_upstream_is_gone(here: Scene, elsewhere: Scene) -> None:
    image = here.push_image(_SIZE)
    assert here.manifest(image.index.digest).status == 200
    assert here.manifest(image.manifests[0].digest).status == 200
    layer = image.layers[0].digest
    assert here.get(layer).digest == layer
    here.upstream.pause()
    blob, manifest = elsewhere.get(layer), elsewhere.manifest(image.index.digest)
    assert (blob.digest, manifest.digest) == (layer, image.index.digest)
    for reader in (blob, manifest):
        assert reader.headers["Cache-Status"] == "layover; hit; ttl=-1; detail=stale-refused"


def test_pull_manifest__held_under_another_repository(here: Scene, elsewhere: Scene) -> None:
    image = here.push_image(100)
    assert here.manifest(image.index.digest).status == 200
    assert elsewhere.manifest(image.index.digest).status == 404
    elsewhere.upstream.push_manifest(
        elsewhere.repository, image.index.digest, here.upstream.content(image.index.digest), image.index.media_type
    )
    here.upstream.counters.clear()
    for _ in range(2):
        assert elsewhere.manifest(image.index.digest).digest == image.index.digest
    assert here.upstream.counters.requests() == 1
    assert here.upstream.counters.requests("HEAD", "manifest", elsewhere.repository) == 1


def test_pull_blob__a_manifest_is_no_blob(here: Scene) -> None:
    image = here.push_image(100)
    assert here.manifest(image.index.digest).status == 200
    refused = get(here.replica.url, here.target(image.index.digest))
    assert refused.status == 404
    assert b"BLOB_UNKNOWN" in refused.beginning


def test_pull__on_its_way_elsewhere_while_nobody_can_tell__for_the_moment_alone(here: Scene, elsewhere: Scene) -> None:
    digest = here.push(_SIZE)
    elsewhere.push_image(100)
    here.upstream.dials.blob_stall = _SIZE // 2
    reader = here.read(digest).wait_for(_SIZE // 2)
    here.upstream.dials.failures = [Failure(status=503, repository=elsewhere.repository)]
    stand_in = elsewhere.read(digest).wait_for(_SIZE // 2)
    assert stand_in.headers["Cache-Status"] == "layover; hit; ttl=-1; detail=stale-5xx"
    here.upstream.release()
    assert {each.wait().digest for each in (reader, stand_in)} == {digest}
    here.upstream.dials.failures = []
    # What stood in for itself was no sign that it belongs there.
    eventually(lambda: elsewhere.get(digest).status == 404, "the upstream is asked")


def test_pull__all_of_it_left_by_a_fill_of_another_repository(registry: Upstream, tmp_path: Path) -> None:
    digest = registry.push_random_blob("corp/left", _LARGE)
    registry.push_random_blob("corp/other", 100)
    store = tmp_path / "store"
    data = registry.content(digest)

    async def leave() -> None:
        async with opened(store) as open_store:
            origin = hashlib.sha256(b"docker.io").hexdigest()[:8]
            partial = open_store.partial(Digest(digest), origin)
            partial.size = _LARGE
            partial.write(0, [data])
            partial.close()

    asyncio.run(leave())
    with Replica(store, upstreams={"docker.io": registry.url}) as running:
        left, other = (Scene(registry, running, name) for name in ("corp/left", "corp/other"))
        assert other.get(digest).status == 404
        assert left.get(digest).digest == digest
        assert registry.counters.sent(digest) == 0


async def test_pull__waiting_for_another_try_when_another_repository_brings_it(
    registry: Upstream, tmp_path: Path
) -> None:
    own, other = Repository("docker.io", "corp/own"), Repository("docker.io", "corp/bystander")
    digest = Digest(registry.push_random_blob(own.name, _SIZE))
    registry.push_random_blob(other.name, 100)
    async with policy.hub(tmp_path / "store", {"url": registry.url}) as hub:
        hub._blobs._penalties._penalties[registry.url, digest] = _Penalty(time.monotonic() + 1, 1.0)
        waiting = asyncio.create_task(hub.blob(other, digest))
        await asyncio.sleep(0)
        hub._blobs._penalties._penalties.clear()
        registry.dials.blob_stall = _SIZE // 2
        assert isinstance(await hub.blob(own, digest), Filling)
        with pytest.raises(RegistryError) as refused:
            await waiting
        registry.reset()
    assert refused.value.status == 404


PRIVATE, PUBLIC = "corp/private", "corp/public"
CROSSED = (BY_DIGEST, Kind("HEAD", "digest"), BLOB, Kind("HEAD", "blob"), Kind("GET", "range"))


def crossed(running: Replica, private: Image, public: Image) -> set[int]:
    """Ask for what the private repository holds under the public one's name, and return the statuses."""
    image = Image(public.repository, public.tag, private.index, private.platforms)
    return statuses(running, image)


def statuses(running: Replica, image: Image) -> set[int]:
    """Ask for an image by digests."""
    return {kind.ask(running, image).status for kind in CROSSED}


@pytest.fixture(scope="module")
def private(registry: Upstream) -> Image:
    return policy.push(registry, PRIVATE)


@pytest.fixture(scope="module")
def public(registry: Upstream) -> Image:
    return policy.push(registry, PUBLIC)


@pytest.fixture(scope="module")
def filled(registry: Upstream, private: Image, public: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of a replica that held everything for anyone."""
    store = tmp_path_factory.mktemp("filled") / "store"
    policy.guard(registry, [PRIVATE])
    with policy.replica(store, registry, "anyone") as running:
        for image in (private, public):
            policy.pull_all(running, image)
        registry.pause()
        # Not even while anyone may have everything does it stand in elsewhere.
        assert crossed(running, private, public) == {503}
        registry.resume()
        running.stop()
    return store


@pytest.fixture
def guarded(registry: Upstream) -> Iterator[Upstream]:
    """Return the registry, with one repository that is closed to strangers."""
    policy.guard(registry, [PRIVATE])
    yield registry
    registry.resume()
    registry.reset()


class TestPrivate:
    """Content of a private repository, asked for by digest under a public one of the same upstream."""

    def test_is_not_served__warm_nor_in_an_outage_nor_after_a_restart(
        self, filled: Path, guarded: Upstream, private: Image, public: Image
    ) -> None:
        with policy.replica(filled, guarded) as running:
            assert crossed(running, private, public) == {404}
            assert statuses(running, public) == {200, 206}
            assert crossed(running, private, public) == {404}
            assert statuses(running, private) == {403}
            guarded.pause()
            assert crossed(running, private, public) == {503}
            running.stop()
        with policy.replica(filled, guarded) as running:
            assert crossed(running, private, public) == {503}
            assert statuses(running, private) == {403}
            assert statuses(running, public) == {200, 206}

    def test_is_not_served__while_it_is_on_its_way(self, guarded: Upstream, public: Image, tmp_path: Path) -> None:
        digest = guarded.push_random_blob(PRIVATE, _SIZE)
        with policy.replica(tmp_path / "store", guarded, "anyone") as running:
            guarded.dials.blob_stall = _SIZE // 2
            own, other = (Scene(guarded, running, name) for name in (PRIVATE, PUBLIC))
            reader = own.read(digest).wait_for(_SIZE // 2)
            assert other.get(digest).status == 404
            guarded.dials.failures = [Failure(status=503, repository=PUBLIC)]
            assert other.get(digest).status == 503
            guarded.release()
            assert reader.wait().digest == digest

    def test_is_not_served__from_a_store_without_room(
        self, guarded: Upstream, private: Image, public: Image, tmp_path: Path
    ) -> None:
        settings = {"LAYOVER_STORE__SIZE": "1B"}
        with policy.replica(tmp_path / "store", guarded, settings=settings) as running:
            answer = BLOB.ask(running, public)
            policy.assert_right(guarded, public, BLOB, answer)
            assert answer.headers["Cache-Status"] == "layover; fwd=miss; detail=unstored"
            assert statuses(running, private) == {403}
            assert crossed(running, private, public) == {404}

    def test_is_served__where_the_upstream_has_it_too(self, filled: Path, guarded: Upstream, private: Image) -> None:
        twin = policy.push(guarded, "corp/twin")
        guarded.push_blob(twin.repository, guarded.content(private.layers[0].digest))
        index = private.index
        guarded.push_manifest(twin.repository, index.digest, guarded.content(index.digest), index.media_type)
        with policy.replica(filled, guarded) as running:
            assert crossed(running, private, twin) == {200, 206}
