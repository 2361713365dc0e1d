"""What a purge takes and what it leaves; nothing that was under way brings it back, and nobody who reads is cut off."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.config import Upstreams
from mirror.hub.purging import find
from mirror.hub.selection import select
from mirror.oci.digest import Digest
from mirror.oci.media_types import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store import TagState
from tests.chaos.reader import Client, Reader, get
from tests.chaos.scene import MIB, Scene, eventually
from tests.operator import call, files, hexes, told
from tests.replica import NO_PREFETCH, Replica
from tests.store.stock import CHECKED_AT, REPOSITORY, opened, until
from tests.store.stock import Image as StockedImage
from tests.upstream import Failure, Image, Upstream

SETTINGS = {
    **NO_PREFETCH,
    "LAYOVER_FRESHNESS__TAG_TTL": "1h",
    "LAYOVER_FRESHNESS__NEGATIVE_TTL": "1h",
}


@pytest.fixture(scope="module", params=["1", "2"], ids=["one door", "two doors"])
def replica(
    registry: Upstream, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Replica]:
    settings = {**SETTINGS, "LAYOVER_SERVER__WORKERS": request.param}
    store = tmp_path_factory.mktemp("purge") / "store"
    with Replica(store, upstreams={"docker.io": registry.url}, settings=settings) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


@pytest.fixture
def scene(registry: Upstream, replica: Replica, request: pytest.FixtureRequest) -> Iterator[Scene]:
    registry.counters.clear()
    yield Scene(registry, replica, f"library/app{zlib.crc32(request.node.nodeid.encode())}")
    registry.reset()


def pulled(scene: Scene, tag: str, *layers: int, repository: str = "", seed: int = 0) -> Image:
    """Push an image, and pull it whole."""
    name = repository or scene.repository
    image = scene.upstream.push_image(name, tag, ["linux/amd64"], layers, scene.seed + seed, raw=True)
    Client(scene.replica.url, image).wait().assert_whole()
    eventually(lambda: held(scene, image) == hexes(image), "it is kept")
    return image


def purge(scene: Scene, what: str) -> dict[str, object]:
    """Purge, and check that no door shows anything else soon."""
    return told(scene.replica, "POST", "/purge", {"what": what})


def held(scene: Scene, *images: Image) -> set[str]:
    """Return what is held of images."""
    return files(scene.replica) & {each for image in images for each in hexes(image)}


def asked(scene: Scene) -> int:
    """Return how many manifests were asked for upstream."""
    return scene.upstream.counters.requests("GET", kind="manifest")


class TestPurge:
    def test_takes__the_whole_image__and_the_next_pull_asks_the_upstream(self, scene: Scene) -> None:
        image = pulled(scene, "1", 1000, 50_000)
        done = purge(scene, f"{scene.repository.removeprefix('library/')}:1")
        assert done["what"] == f"docker.io/{scene.repository}:1"
        assert (done["tags"], done["digests"]) == (1, 5)
        assert held(scene, image) == set()
        scene.upstream.counters.clear()

        def is_asked() -> bool:
            return scene.manifest("1").status == 200 and asked(scene) > 0

        eventually(is_asked, "no door has it any more", 5.0)
        Client(scene.replica.url, image).wait().assert_whole()
        for layer in image.layers:
            assert scene.upstream.counters.sent(layer.digest) == layer.size
        eventually(lambda: held(scene, image) == hexes(image), "it is kept")

    def test_leaves__what_another_tag_or_repository_has(self, scene: Scene) -> None:
        first = pulled(scene, "1", 1000, 50_000)
        second = pulled(scene, "2", 1000, 60_000)  # its first layer is the same
        other = f"{scene.repository}-other"
        pulled(scene, "1", 1000, 50_000, repository=other)
        shared = hexes(first) & hexes(second)
        assert shared
        purge(scene, f"docker.io/{scene.repository}:1")
        assert held(scene, second) == hexes(second)
        assert held(scene, first) == hexes(first), "another repository has it"
        listed = told(scene.replica, "GET", "/images", what=f"docker.io/{scene.repository}*")["images"]
        assert [each["image"] for each in listed] == [f"docker.io/{scene.repository}:2", f"docker.io/{other}:1"]
        purge(scene, f"docker.io/{other}:1")
        assert held(scene, first) == shared

    def test_takes__what_a_glob_matches__with_all_that_was_pulled_by_digest(self, scene: Scene) -> None:
        first, second = pulled(scene, "1", 1000), pulled(scene, "2", 2000, seed=1)
        untagged = scene.push_image(3000, tag="3")
        assert scene.manifest(untagged.index.digest).status == 200
        purge(scene, f"docker.io/{scene.repository}:2")
        assert held(scene, second) == set()
        purge(scene, f"docker.io/{scene.repository}*")
        assert held(scene, first, untagged) == set()
        catalog = Scene(scene.upstream, scene.replica, scene.repository)
        assert f"docker.io/{scene.repository}" not in str(catalog.manifest("../../../_catalog"))

    def test_takes__a_digest__and_the_tags_that_point_to_it(self, scene: Scene) -> None:
        image = pulled(scene, "1", 1000)
        layer = image.layers[0].digest
        purge(scene, layer)
        assert held(scene, image) == hexes(image) - {layer.partition(":")[2]}
        purge(scene, f"docker.io/{scene.repository}@{image.index.digest}")
        assert held(scene, image) == set()
        assert told(scene.replica, "GET", "/images", what=f"docker.io/{scene.repository}*")["images"] == []

    def test_clears__what_is_remembered_as_missing(self, scene: Scene) -> None:
        scene.push_image(1000, tag="there")
        assert scene.manifest("late").status == 404
        image = scene.push_image(2000, tag="late")
        assert scene.manifest("late").status == 404
        purge(scene, f"docker.io/{scene.repository}:late")
        assert scene.manifest("late").status == 200
        eventually(lambda: bool(held(scene, image)), "it is kept")

    def test_clears__listings(self, scene: Scene) -> None:
        scene.push_image(1000, tag="1")
        tags = Scene(scene.upstream, scene.replica, scene.repository)

        def listed() -> int:
            assert get(tags.replica.url, f"{tags.base}/tags/list").status == 200
            return scene.upstream.counters.requests("GET", kind="tags")

        assert (listed(), listed()) == (1, 1)
        purge(scene, "docker.io/library/nothing:1")
        assert listed() == 1
        purge(scene, f"docker.io/{scene.repository}:*")
        assert listed() == 2


class TestUnderWay:
    def test_keeps_nothing__of_a_fill_that_somebody_reads(self, scene: Scene) -> None:
        image = scene.push_image(1000, 8 * MIB)
        layer = image.layers[1]
        scene.upstream.dials.blob_digests = {layer.digest}
        scene.upstream.dials.blob_stall = 4 * MIB
        client = Client(scene.replica.url, image)
        eventually(lambda: client.received > 2 * MIB, "it is in the middle of it")
        purge(scene, f"docker.io/{scene.repository}:1")
        scene.upstream.dials.blob_stall = None
        scene.upstream.release()
        client.wait().assert_whole()
        eventually(lambda: held(scene, image) == set(), "nothing of it is kept")
        scene.upstream.counters.clear()
        Client(scene.replica.url, image).wait().assert_whole()
        assert scene.upstream.counters.sent(layer.digest) == layer.size

    def test_keeps_nothing__of_a_manifest_that_comes_later(self, scene: Scene) -> None:
        image = scene.push_image(1000)
        scene.upstream.dials.latency = {"manifest": 1.5}
        reader = Reader(scene.replica.url, f"{scene.base}/manifests/1")
        eventually(lambda: asked(scene) > 0, "the upstream is asked")
        purge(scene, f"docker.io/{scene.repository}:1")
        assert reader.wait().status == 200
        scene.upstream.dials.latency = {}
        assert held(scene, image) == set()
        assert (
            call(scene.replica, "GET", "/images", query={"what": f"docker.io/{scene.repository}*"})[1]["images"] == []
        )
        scene.upstream.counters.clear()
        assert scene.manifest("1").status == 200
        assert asked(scene) == 1

    def test_cuts_nobody_off__who_reads_what_is_whole(self, scene: Scene) -> None:
        image = pulled(scene, "1", 16 * MIB)
        reader = scene.read(image.layers[0].digest)
        reader.wait_for(1)
        reader.hold()
        purge(scene, f"docker.io/{scene.repository}:1")
        assert held(scene, image) == set()
        reader.go_on()
        assert reader.wait().digest == image.layers[0].digest


def test_serves_on__what_it_held__where_nothing_was_purged(scene: Scene) -> None:
    image = pulled(scene, "1", 1000)
    purge(scene, "docker.io/library/somebody-else*")
    scene.upstream.dials.failures = [Failure(500)]
    Client(scene.replica.url, image).wait().assert_whole()


async def test_finds_the_rest__however_much_of_it_went_before(tmp_path: Path) -> None:
    """A replica that is killed half-way begins the purge anew as it starts."""
    async with opened(tmp_path / "store") as store:
        images = [StockedImage(number) for number in range(3)]
        for image in images:
            image.put(store)
            store.drop_tag(REPOSITORY, image.tag)
        children = [{"digest": each.digest, "size": len(each.body), "mediaType": OCI_MANIFEST} for each in images]
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()
        index, tag = Digest.of(body), Tag("all")
        store.keep_manifest(REPOSITORY, index, OCI_INDEX, body)
        store.set_tag(REPOSITORY, tag, TagState(index, OCI_INDEX, len(body), CHECKED_AT))
        await until(lambda: store.content.size(index) is not None)
        await until(lambda: all(store.content.size(each.digest) is not None for each in images))
        selection = select(f"{REPOSITORY}:{tag}", Upstreams())
        left = list(find(store.shelf, selection).content)
        assert len(left) == 10
        while left:
            store.content.remove(Digest(left.pop(0)))
            store.shelf.drop_hot(index)
            for image in images:
                store.shelf.drop_hot(image.digest)
            assert set(left) <= set(find(store.shelf, selection).content)
