"""Purges and pins in the store: what goes stays gone, and what was ordered stays known, whatever happens."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.media_types import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store import Link, Store, StoreError, TagState
from mirror.store.journal import Journal
from mirror.store.purges import Fallen, Purge, Purges
from mirror.store.records import Carried, Linked, Ordered, TagDropped, TagSet, Unlinked
from tests.store.conftest import Stocked
from tests.store.stock import OTHER, REPOSITORY, Image, missing, opened, until

PIN = Carried("pin", "docker.io/library/app:v1", 7, 1_700_000_000.0)
UNPIN = Carried("unpin", "docker.io/library/app:v1", 8, 1_700_000_001.0)
PURGE = Carried("purge", "docker.io/library/app:v2", 9, 1_700_000_002.0)


def fallen(*images: Image) -> Fallen:
    """Return what a purge of whole images takes, of which no other repository has anything."""
    digests = {digest for image in images for digest in (image.digest, *(each for each, _ in image.blobs))}
    return Fallen(
        {str(REPOSITORY): {image.tag for image in images}},
        {str(REPOSITORY): digests, REPOSITORY.upstream: digests},
        digests,
    )


def traces(store: Store, image: Image) -> list[str]:
    """Return what is left of an image."""
    shelf, found = store.shelf, []
    if shelf.tag(REPOSITORY, image.tag) is not None:
        found.append("tag")
    for digest in (image.digest, *(each for each, _ in image.blobs)):
        if shelf.link(REPOSITORY, digest) is not None or shelf.link(REPOSITORY.upstream, digest) is not None:
            found.append(f"link of {digest}")
        if shelf.content.size(digest) is not None or shelf.hot(digest) is not None:
            found.append(f"content of {digest}")
    return found


def lose_index(store: Path) -> None:
    shutil.rmtree(store / "index")


def keep_index(store: Path) -> None:
    """Lose nothing."""


class TestPurge:
    @pytest.mark.parametrize("lose", [lose_index, keep_index])
    async def test_takes__what_falls_and_no_more(self, stock: Stocked, lose: Callable[[Path], None]) -> None:
        gone, kept = stock.images[:3], stock.images[3:]
        async with opened(stock.path) as store:
            used = store.room.used
            for image in gone:
                assert store.shelf.manifest(image.digest) is not None  # it is hot from now on
            freed = await store.purge(fallen(*gone))
            assert set(freed) == set(fallen(*gone).content)
            assert store.room.used == used - sum(freed.values())
            assert [trace for image in gone for trace in traces(store, image)] == []
            assert missing(store, kept) == []
        lose(stock.path)
        async with opened(stock.path) as store:
            assert [trace for image in gone for trace in traces(store, image)] == []
            assert missing(store, kept) == []

    async def test_brings_nothing_back__while_others_hold_the_content(self, tmp_path: Path) -> None:
        image, path = Image(1), tmp_path / "store"
        async with opened(path) as store:
            image.put(store)
            store.keep_manifest(OTHER, image.digest, OCI_MANIFEST, image.body)
            linked = {str(REPOSITORY): {image.digest, *(each for each, _ in image.blobs)}}
            await store.purge(Fallen({str(REPOSITORY): {image.tag}}, linked, ()))
            assert store.shelf.repositories() == [str(OTHER)]
        lose_index(path)
        async with opened(path) as store:
            assert store.shelf.repositories() == [str(OTHER)]
            for digest in linked[str(REPOSITORY)]:
                assert store.shelf.link(REPOSITORY, digest) is None
                assert store.shelf.link(OTHER, digest) is not None

    async def test_keeps__what_is_pulled_again(self, stock: Stocked) -> None:
        image = stock.images[0]
        async with opened(stock.path) as store:
            await store.purge(fallen(image))
            image.put(store)
        lose_index(stock.path)
        async with opened(stock.path) as store:
            assert missing(store, stock.images) == []

    async def test_takes__what_a_fill_left_half_way(self, stock: Stocked) -> None:
        image, other = stock.images[:2]
        async with opened(stock.path) as store:
            for each in (image, other):
                digest = Digest.of(f"half of {each.tag}".encode())
                assert store.room.claim(5)
                partial = store.partial(digest, "origin")
                partial.size = 10
                partial.write(0, [b"begun"])
                partial.added(0, 5)
                store.room.spend(5)
                partial.close()
            used = store.room.used
            await store.purge(Fallen({}, {}, {Digest.of(f"half of {image.tag}".encode())}))
            left = {path.name.split("-")[1] for path in (stock.path / "partial").iterdir()}
            assert left == {Digest.of(f"half of {other.tag}".encode()).hex}
            assert store.room.used == used - 5

    async def test_counts_right__what_goes_before_the_store_is_counted(
        self, stock: Stocked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counting = threading.Event()
        count = Store._counted

        def later(store: Store) -> object:
            assert counting.wait(30)
            return count(store)

        monkeypatch.setattr("tests.store.stock._LOOKS", 0)
        monkeypatch.setattr(Store, "_counted", later)
        async with opened(stock.path) as store:
            await store.purge(fallen(*stock.images[:5]))
            counting.set()
            await store._surveys[1]
            assert store.objects == {"manifest": 35, "blob": 70}
            assert store.room.used == sum(store.content.taken(each.digest) or 0 for each in stock.images) + sum(
                store.content.taken(digest) or 0 for each in stock.images for digest, _ in each.blobs
            )

    async def test_finds_all_of_it_again__after_a_kill_half_way(self, stock: Stocked, tmp_path: Path) -> None:
        gone, kept = stock.images[0], stock.images[1:]
        left, over = tmp_path / "left", threading.Event()
        async with opened(stock.path) as store:
            await store.remember_order(PIN.key, PIN)
            busy = [store.disk.submit(over.wait, 30) for _ in range(2)]
            purging = asyncio.create_task(store.purge(fallen(gone)))
            try:
                await until(lambda: store.shelf.tag(REPOSITORY, gone.tag) is None)
                # What is written is written in order: all that a purge says before this is in the journal then.
                store.set_tag(OTHER, Tag("later"), gone.state)
                await until(lambda: b"later" in (stock.path / "journal").read_bytes())
                shutil.copytree(stock.path, left)
            finally:
                over.set()
            await purging
            assert all(each.result() for each in busy)
            assert traces(store, gone) == []
        async with opened(left) as store:
            assert missing(store, stock.images) == []
            await store.purge(fallen(gone))
        async with opened(left) as store:
            assert traces(store, gone) == []
            assert missing(store, kept) == []

    async def test_keeps__what_is_pulled_while_it_goes_on(self, stock: Stocked) -> None:
        image, over = stock.images[0], threading.Event()
        async with opened(stock.path) as store:
            await store.remember_order(PIN.key, PIN)
            for _ in range(2):
                store.disk.submit(over.wait, 30)
            purging = asyncio.create_task(store.purge(fallen(image)))
            try:
                await until(lambda: store.shelf.tag(REPOSITORY, image.tag) is None)
                store.set_tag(REPOSITORY, image.tag, image.state)
                store.link(REPOSITORY, image.digest, Link(OCI_MANIFEST, False, len(image.body)))
            finally:
                over.set()
            await purging
        async with opened(stock.path) as store:
            assert store.shelf.tag(REPOSITORY, image.tag) == image.state
            assert store.shelf.link(REPOSITORY, image.digest) is not None
            assert all(store.shelf.link(REPOSITORY, digest) is None for digest, _ in image.blobs)

    async def test_refuses__a_tag_that_was_checked_before(self, stock: Stocked) -> None:
        image = stock.images[0]
        async with opened(stock.path) as store:
            store.purges.add(Purge(lambda name: name == f"{REPOSITORY}:{image.tag}", 100.0, lambda *_: False))
            await store.purge(fallen(image))
            before = TagState(image.digest, OCI_MANIFEST, 1, 99.0)
            assert not store.set_tag(REPOSITORY, image.tag, before)
            assert store.shelf.tag(REPOSITORY, image.tag) is None
            assert store.set_tag(REPOSITORY, Tag("other"), before)
            assert store.set_tag(REPOSITORY, image.tag, TagState(image.digest, OCI_MANIFEST, 1, 101.0))


class TestPurges:
    def test_says__what_was_taken_since(self) -> None:
        purges, digest = Purges(), Digest.of(b"x")
        repository = Repository("docker.io", "library/app")
        before = purges.count
        purges.add(Purge(lambda name: name.endswith(":1"), 5.0, lambda _, each: each == digest))
        assert purges.took(repository, Tag("1"), before)
        assert purges.took(repository, digest, before)
        assert not purges.took(repository, Tag("2"), before)
        assert not purges.took(repository, digest, purges.count)
        assert purges.last(repository, Tag("1")) == 5.0
        assert purges.last(repository, Tag("2")) == 0.0

    def test_says_yes__to_what_it_remembers_no_longer(self) -> None:
        purges = Purges()
        for _ in range(1000):
            purges.add(Purge(lambda _: False, 0.0, lambda *_: False))
        assert purges.took(Repository("docker.io", "x"), Tag("1"), 0)


class TestOrders:
    @pytest.mark.parametrize("lose", [lose_index, keep_index])
    async def test_remembers__the_last_of_each(self, tmp_path: Path, lose: Callable[[Path], None]) -> None:
        path = tmp_path / "store"
        async with opened(path) as store:
            Image(1).put(store)
            for order in (PIN, UNPIN, PURGE):
                await store.remember_order(order.key, order)
            assert store.orders == {UNPIN.key: UNPIN, PURGE.key: PURGE}
        lose(path)
        async with opened(path) as store:
            assert store.orders == {UNPIN.key: UNPIN, PURGE.key: PURGE}
            await store.remember_order(PURGE.key, None)
        async with opened(path) as store:
            assert store.orders == {UNPIN.key: UNPIN}

    async def test_keeps__the_format_of_older_releases_until_the_first(self, tmp_path: Path) -> None:
        path = tmp_path / "store"
        async with opened(path) as store:
            Image(1).put(store)
            assert json.loads((path / "format").read_text()) == {"version": 1}
            await store.remember_order(PIN.key, PIN)
            assert json.loads((path / "format").read_text()) == {"version": 2}
        async with opened(path) as store:
            assert store.orders == {PIN.key: PIN}
        (path / "format").write_text('{"version": 3}')
        with pytest.raises(StoreError, match="has format 3, this release knows 2; run the newer release"):
            async with opened(path):
                pass


def test_compacts__to_what_still_holds(tmp_path: Path) -> None:
    path, image = tmp_path / "journal", Image(1)
    journal = Journal(path)
    tag = TagSet(str(REPOSITORY), image.tag, image.state)
    linked = [Linked(str(REPOSITORY), digest, Link(None, True, None)) for digest, _ in image.blobs]
    once = Linked(str(REPOSITORY), image.digest, Link(OCI_MANIFEST, False, len(image.body)))
    digests = tuple(each.digest for each in (*linked, once))
    journal.append([tag, once, *linked, *linked, Ordered(PIN.key, PIN)])
    journal.append([TagDropped(str(REPOSITORY), image.tag), Unlinked(str(REPOSITORY), digests)])
    journal.append([linked[0], Ordered(UNPIN.key, UNPIN), Ordered(PURGE.key, PURGE)])
    journal.compact()
    assert list(journal.replay(None)) == [linked[0], Ordered(UNPIN.key, UNPIN), Ordered(PURGE.key, PURGE)]
    assert journal.orders() == {UNPIN.key: UNPIN, PURGE.key: PURGE}
    journal.append([Ordered(PURGE.key, None)])
    journal.compact()
    assert journal.orders() == {UNPIN.key: UNPIN}
    journal.close()
