"""The store as the hub uses it: what it remembers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store import Link, StoreError, TagState
from tests.store.stock import CHECKED_AT, OTHER, REPOSITORY, Image, missing, opened, put_blob

TAG = Tag("latest")


def state(seed: bytes, checked_at: float) -> TagState:
    return TagState(Digest.of(seed), OCI_MANIFEST, 1, checked_at)


class TestTags:
    async def test_never_move_back__to_an_older_check(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "store") as store:
            assert store.set_tag(REPOSITORY, TAG, state(b"new", 200))
            assert not store.set_tag(REPOSITORY, TAG, state(b"old", 100))
            assert store.shelf.tag(REPOSITORY, TAG) == state(b"new", 200)
            assert store.set_tag(REPOSITORY, TAG, state(b"newer", 200))
        async with opened(tmp_path / "store") as store:
            assert store.shelf.tag(REPOSITORY, TAG) == state(b"newer", 200)
            assert not store.set_tag(REPOSITORY, TAG, state(b"old", 100))

    async def test_keep__the_latest_check_over_a_restart(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "store") as store:
            store.set_tag(REPOSITORY, TAG, state(b"same", 100))
            store.set_tag(REPOSITORY, TAG, state(b"same", 200))
        async with opened(tmp_path / "store") as store:
            assert store.shelf.tag(REPOSITORY, TAG) == state(b"same", 200)

    async def test_stay_away__once_dropped(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "store") as store:
            store.set_tag(REPOSITORY, TAG, state(b"one", 100))
            store.set_tag(OTHER, TAG, state(b"one", 100))
            store.drop_tag(REPOSITORY, TAG)
            assert store.shelf.tag(REPOSITORY, TAG) is None
            assert store.set_tag(REPOSITORY, TAG, state(b"one", 50))
            store.drop_tag(REPOSITORY, TAG)
        async with opened(tmp_path / "store") as store:
            assert store.shelf.tag(REPOSITORY, TAG) is None
            assert store.shelf.tag(OTHER, TAG) == state(b"one", 100)


class TestLinks:
    async def test_allow_together__what_each_allows(self, tmp_path: Path) -> None:
        digest = Digest.of(b"x")
        async with opened(tmp_path / "store") as store:
            store.link(REPOSITORY, digest, Link(None, True, None))
            store.link(REPOSITORY, digest, Link(OCI_MANIFEST, False, 7))
            store.link(REPOSITORY, digest, Link(None, False, None))
        async with opened(tmp_path / "store") as store:
            assert store.shelf.link(REPOSITORY, digest) == Link(OCI_MANIFEST, True, 7)
            assert store.shelf.link("docker.io", digest) == Link(OCI_MANIFEST, True, 7, origin=str(REPOSITORY))
            assert store.shelf.link(OTHER, digest) is None
            assert store.shelf.link("ghcr.io", digest) is None

    async def test_follow__from_a_manifest(self, tmp_path: Path) -> None:
        child, config = Digest.of(b"child"), Digest.of(b"config")
        entries = [{"digest": child, "size": 9, "mediaType": DOCKER_MANIFEST}]
        body = json.dumps({"manifests": entries, "config": {"digest": config, "size": 4}}).encode()
        async with opened(tmp_path / "store") as store:
            store.keep_manifest(REPOSITORY, Digest.of(body), OCI_INDEX, body)
            assert store.shelf.link(REPOSITORY, child) == Link(DOCKER_MANIFEST, False, 9)
            assert store.shelf.link(REPOSITORY, config) == Link(None, True, 4)
            assert store.shelf.link(OTHER, child) is None

    async def test_keep_apart__repositories_of_several_upstreams(self, tmp_path: Path) -> None:
        twin = Repository("ghcr.io", REPOSITORY.name)
        async with opened(tmp_path / "store") as store:
            store.link(twin, Digest.of(b"x"), Link(None, True, 1))
            assert store.shelf.link(REPOSITORY, Digest.of(b"x")) is None
            assert store.shelf.repositories() == [str(twin)]


class TestManifests:
    async def test_are_there__at_once_and_after_a_restart(self, tmp_path: Path) -> None:
        image = Image(1)
        async with opened(tmp_path / "store") as store:
            image.put(store)
            assert missing(store, [image]) in ([], [f"{image.tag}: manifest"])
            assert store.shelf.manifest(image.digest) == image.body
            used = store.room.used
        async with opened(tmp_path / "store") as store:
            assert missing(store, [image]) == []
            assert store.objects == {"manifest": 1, "blob": 2}
            assert store.room.used >= used > 0

    async def test_keep_the_type__that_the_upstream_told(self, tmp_path: Path) -> None:
        body = b"{}"
        async with opened(tmp_path / "store") as store:
            store.keep_manifest(REPOSITORY, Digest.of(body), "application/x-of-its-own", body)
        async with opened(tmp_path / "store") as store:
            link = store.shelf.link(REPOSITORY, Digest.of(body))
            assert link is not None
            assert link.media_type == "application/x-of-its-own"


class TestRoom:
    async def test_counts_once__a_partial_file_that_is_begun_anew(self, tmp_path: Path) -> None:
        data = bytes(2**20)
        digest = Digest.of(data)
        async with opened(tmp_path / "store") as store:
            partial = store.partial(digest, "origin")
            partial.write(0, [data])
            partial.added(0, len(data))
            partial.save(partial.segments.spans)
            partial.close()
        (saved,) = (tmp_path / "store" / "partial").glob("*.map")
        saved.write_text(json.dumps(json.loads(saved.read_text()) | {"boot_id": "the boot before a power loss"}))
        async with opened(tmp_path / "store") as store:
            put_blob(store, digest, data)
            counted = store.room.used
        async with opened(tmp_path / "store") as store:
            assert counted == pytest.approx(store.room.used, abs=2**16)

    async def test_counts__what_lies_in_the_store_when_it_opens(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "store") as store:
            empty = store.room.used
            put_blob(store, Digest.of(bytes(2**20)), bytes(2**20))
            assert store.room.used == empty + 2**20
        async with opened(tmp_path / "store") as store:
            assert store.room.used == pytest.approx(2**20, abs=2**16)


class TestOpening:
    async def test_refuses__a_store_that_is_open(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "store"):
            with pytest.raises(StoreError, match="is in use by another Layover"):
                async with opened(tmp_path / "store"):
                    pass
        async with opened(tmp_path / "store"):
            pass

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b'{"version": "\xff"}'])
    async def test_takes_over__a_store_whose_format_is_damaged(self, content: bytes, tmp_path: Path) -> None:
        async with opened(tmp_path / "store") as store:
            store.set_tag(REPOSITORY, TAG, state(b"x", CHECKED_AT))
        (tmp_path / "store" / "format").write_bytes(content)
        async with opened(tmp_path / "store") as store:
            assert store.shelf.tag(REPOSITORY, TAG) == state(b"x", CHECKED_AT)

    async def test_names_the_folder__that_it_cannot_use(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("not a folder")
        with pytest.raises(StoreError, match=f"store.path {tmp_path / 'store'}: cannot be used"):
            async with opened(tmp_path / "store"):
                pass
