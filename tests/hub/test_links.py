"""Under which repositories a blob or a manifest that is held may be served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.reader import get
from tests.chaos.scene import MIB, Scene, name_of
from tests.replica import Replica
from tests.upstream import Upstream

_SIZE = MIB


@pytest.fixture(scope="session")
def registry() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="session")
def replica(registry: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    store = tmp_path_factory.mktemp("links") / "store"
    with Replica(store, upstreams={"docker.io": registry.url}) as running:
        yield running


@pytest.fixture
def here(registry: Upstream, replica: Replica, request: pytest.FixtureRequest) -> Iterator[Scene]:
    yield Scene(registry, replica, name_of(request))
    registry.reset()
    registry.resume()


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
