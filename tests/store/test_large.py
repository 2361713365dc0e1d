"""A store with thousands of objects: served whole while its index is built anew, whatever ends that on the way."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import random
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Tag
from mirror.store import Content, Shelf, TagState
from mirror.store.journal import Journal
from mirror.store.records import TagSet, link_key, tag_key
from mirror.store.recovery import Recovery
from tests.replica import Replica, free_port
from tests.store.large import Image, images, lay
from tests.store.stock import CHECKED_AT, opened

OBJECTS = 4_000
SOME = 40


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store without an index that no test may touch."""
    path = tmp_path_factory.mktemp("large") / "store"
    lay(path, OBJECTS, with_index=False)
    return path


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    """Return a store of one test's own, but for the content, which nothing changes."""
    path = tmp_path / "store"
    (path / "partial").mkdir(parents=True)
    (path / "content").symlink_to(original / "content")
    shutil.copy(original / "journal", path)
    return path


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an index built in many steps, as one with a million rows is."""
    monkeypatch.setattr("mirror.store.recovery._BATCH", 100)


def some(seed: int) -> list[Image]:
    return random.Random(seed).sample(list(images(OBJECTS)), SOME)


@contextmanager
def recovering(path: Path) -> Iterator[tuple[Recovery, Shelf]]:
    """Open a store's index, and close it as a kill would: with nothing more written."""
    shelf = Shelf(path, remembers_tags=True)
    journal = Journal(path / "journal")
    recovery = Recovery(journal, shelf, path)
    try:
        recovery.open()
        recovery.check(lambda: False)
        yield recovery, shelf
    finally:
        shelf.close()
        journal.close()


def unknown(shelf: Shelf, image: Image) -> list[str]:
    """Return what of an image the shelf does not know to be linked where it is."""
    found = [] if shelf.tag(image.repository, image.tag) is not None else ["tag"]
    digests = (image.digest, *map(Digest.of, image.blobs))
    links = ((digest, place) for digest in digests for place in (image.repository, image.repository.upstream))
    return found + [f"{digest} under {place}" for digest, place in links if shelf.link(place, digest) is None]


@pytest.mark.usefixtures("small_batches")
class TestBuilding:
    def test_finds_a_repository__before_there_is_any_index(self, store: Path) -> None:
        with recovering(store) as (recovery, _):
            assert not recovery.is_readable
            for image in some(1):
                rows = recovery.rows_under(str(image.repository))
                assert tag_key(str(image.repository), image.tag) in rows
                for digest in (image.digest, *map(Digest.of, image.blobs)):
                    for place in (str(image.repository), image.repository.upstream):
                        assert link_key(place, digest) in rows

    def test_knows_what_was_told__before_what_follows_from_it(self, store: Path) -> None:
        with recovering(store) as (recovery, shelf):
            walk = recovery.steps()
            while not recovery.is_readable:
                next(walk)
            assert not recovery.is_settled
            for image in some(1):
                assert shelf.tag(image.repository, image.tag) is not None
                assert shelf.link(image.repository, image.digest) is not None
                rows = recovery.rows_under(str(image.repository))
                assert {link_key(str(image.repository), Digest.of(blob)) for blob in image.blobs} <= set(rows)

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.99])
    def test_goes_on__where_it_was_killed(self, share: float, store: Path) -> None:
        with recovering(store) as (whole, _):
            steps = sum(1 for _ in whole.steps())
        shutil.rmtree(store / "index")
        with recovering(store) as (killed, _):
            for _ in itertools.islice(killed.steps(), int(share * steps)):
                pass
            was_readable = killed.is_readable
        with recovering(store) as (again, shelf):
            assert again.is_readable is was_readable
            left = sum(1 for _ in again.steps())
            assert left <= (steps * (1 - share) + 2 if was_readable else steps)
            assert again.is_settled
            assert [image for image in images(OBJECTS) if unknown(shelf, image)] == []

    def test_leaves_alone__what_changed_meanwhile(self, store: Path) -> None:
        *_, image = images(OBJECTS)  # its turn comes last
        moved = TagState(Digest.of(b"moved"), "text/plain", 1, time.time() + 1)
        with recovering(store) as (recovery, shelf):
            walk = recovery.steps()
            while not recovery.is_readable:
                next(walk)
            shelf.write({tag_key(str(image.repository), image.tag): moved}, {}, set())
            for _ in walk:
                pass
            assert shelf.tag(image.repository, image.tag) == moved

    async def test_takes_changes__that_come_meanwhile(self, store: Path) -> None:
        image = Image.numbered(0)
        moved = TagState(Digest.of(b"moved"), "text/plain", 1, time.time() + 1)
        async with opened(store) as held:
            shutil.rmtree(store / "index")
            held.shelf.report_damage()
            assert held.set_tag(image.repository, image.tag, moved)
            await held.settle(image.repository)
            assert held.shelf.tag(image.repository, image.tag) == moved
        async with opened(store) as held:
            assert held.shelf.tag(image.repository, image.tag) == moved
            assert [image for image in images(OBJECTS) if unknown(held.shelf, image)] == []


class TestServing:
    @pytest.mark.parametrize("workers", ["0", "2"])
    def test_answers_everything__while_its_index_is_built_and_killed(self, workers: str, store: Path) -> None:
        """Nobody listens where the upstream should be: what is right comes from the store."""
        nobody = f"http://127.0.0.1:{free_port()}"
        settings = {"LAYOVER_SERVER__WORKERS": workers}
        replica = Replica(store, upstreams={"docker.io": nobody}, settings=settings)
        try:
            for seed in range(3):
                shutil.rmtree(store / "index", ignore_errors=True)
                replica.start()
                for image in some(seed)[: SOME // (seed + 1)]:
                    get_right(replica, image, random.Random(seed))
                kill(replica)
            replica.start()
            for image in some(9):
                get_right(replica, image, random.Random(9))
        finally:
            kill(replica)


def kill(replica: Replica) -> None:
    """End the parent, and wait until the hub that ends with it has given the store up."""
    replica.kill()
    with (replica.store / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def get_right(replica: Replica, image: Image, chance: random.Random) -> None:
    """Ask for a blob or a manifest of an image, the blob as a client does that has the manifest already."""
    by_tag, by_digest = image.paths
    blob = chance.choice(image.blobs)
    asked = {by_tag: image.body, by_digest: image.body, f"/v2/{image.repository.name}/blobs/{Digest.of(blob)}": blob}
    path = chance.choice(list(asked))
    with urllib.request.urlopen(f"{replica.url}{path}", timeout=30) as answer:
        assert answer.read() == asked[path]


class TestJournal:
    async def test_stays_short__while_tags_move(self, tmp_path: Path) -> None:
        path = tmp_path / "store"
        image = Image.numbered(0)
        moves, bound = 40_000, 5 * 2**20  # of 9 MiB that are told
        async with opened(path) as store:
            for number in range(moves):
                state = TagState(Digest.of(b"%d" % (number % 7)), "text/plain", 1, CHECKED_AT + number)
                store.set_tag(image.repository, Tag(f"v{number % 50}"), state)
                if number % 1000 == 0:
                    await asyncio.sleep(0.001)
            for _ in range(1000):
                if (path / "journal").stat().st_size < bound:
                    break
                await asyncio.sleep(0.01)
            assert (path / "journal").stat().st_size < bound
        async with opened(path) as store:
            for number in range(moves - 50, moves):
                found = store.shelf.tag(image.repository, Tag(f"v{number % 50}"))
                assert found is not None
                assert found.checked_at == CHECKED_AT + number

    def test_is_not_read_again__where_it_was_shortened_last(self, store: Path) -> None:
        with recovering(store) as (recovery, _):
            for _ in recovery.steps():
                pass
        journal = Journal(store / "journal")
        journal.compact()
        state = TagState(Digest.of(b"late"), "text/plain", 1, CHECKED_AT)
        journal.append([TagSet("docker.io/team/late", "v1", state)])
        journal.close()
        with recovering(store) as (recovery, shelf):
            assert recovery.is_settled
            assert recovery.built == 0
            assert shelf.tag("docker.io/team/late", "v1") == state


class TestCounting:
    def test_leaves_out__what_was_published_since(self, tmp_path: Path) -> None:
        content = Content(tmp_path / "content")
        for data in (b"before", b"again"):
            _publish(content, tmp_path, data)
        found = content.scan()
        for data in (b"again", b"since"):
            _publish(content, tmp_path, data)
        assert {name for name, _ in found} == {Digest.of(b"before").hex}
        assert len(list(content.scan())) == 3


def _publish(content: Content, folder: Path, data: bytes) -> None:
    (folder / "fresh").write_bytes(data)
    content.publish(folder / "fresh", Digest.of(data))
