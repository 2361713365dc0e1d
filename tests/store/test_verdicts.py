"""Verdicts survive whatever the store survives, and decide which links of an upstream may be used."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.config import Upstreams
from mirror.oci.digest import Digest
from mirror.oci.media_types import OCI_MANIFEST
from mirror.oci.reference import Repository
from mirror.store import Link, Shelf, Verdict
from mirror.store.journal import Journal, _line
from mirror.store.records import Entry, Judged
from mirror.store.verdicts import VERDICT_SECONDS, Ruling, needs_verdict, rule
from tests.store.stock import NO_CREDENTIALS, OTHER, REPOSITORY, Image, opened

MEMBER = Upstreams({"docker.io": {"username": "robot", "password": "swordfish"}})
THIRD = Repository("docker.io", "library/third")
PUBLIC, PRIVATE = Verdict(is_private=False, checked_at=100.0), Verdict(is_private=True, checked_at=200.0)
AGAIN = Verdict(is_private=False, checked_at=300.0)
BLOB = Link(None, True, 5)


def entries(path: Path) -> list[Entry]:
    journal = Journal(path / "journal")
    try:
        return list(journal.replay(None))
    finally:
        journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


class TestVerdicts:
    async def test_survive__a_restart_and_the_loss_of_the_index(self, path: Path) -> None:
        async with opened(path, MEMBER) as store:
            store.judge(REPOSITORY, PUBLIC)
            store.judge(OTHER, PRIVATE)
        async with opened(path, MEMBER) as store:
            assert (store.shelf.verdict(REPOSITORY), store.shelf.verdict(OTHER)) == (PUBLIC, PRIVATE)
        shutil.rmtree(path / "index")
        async with opened(path, MEMBER) as store:
            assert (store.shelf.verdict(REPOSITORY), store.shelf.verdict(OTHER)) == (PUBLIC, PRIVATE)
            assert store.shelf.verdict(THIRD) is None

    async def test_are_seen__by_the_shelf_of_another_process(self, path: Path) -> None:
        async with opened(path, MEMBER) as store:
            store.judge(REPOSITORY, PUBLIC)
        shelf = Shelf(path, remembers_tags=False)
        shelf.follow(shelf.readers())
        assert shelf.verdict(REPOSITORY) == PUBLIC
        async with opened(path, MEMBER) as store:
            store.judge(REPOSITORY, PRIVATE)
        shelf.follow(shelf.readers())
        assert shelf.verdict(REPOSITORY) == PRIVATE
        assert shelf.verdicts() == {str(REPOSITORY): PRIVATE}
        shelf.close()

    async def test_change__and_the_last_one_counts(self, path: Path) -> None:
        async with opened(path, MEMBER) as store:
            for verdict in (PUBLIC, PRIVATE, AGAIN):
                store.judge(REPOSITORY, verdict)
            assert store.shelf.verdict(REPOSITORY) == AGAIN
        journal = Journal(path / "journal")
        journal.compact()
        journal.close()
        shutil.rmtree(path / "index")
        assert entries(path) == [Judged(str(REPOSITORY), AGAIN)]
        async with opened(path, MEMBER) as store:
            assert store.shelf.verdict(REPOSITORY) == AGAIN

    async def test_are_written_down__only_when_they_change(self, path: Path) -> None:
        async with opened(path, MEMBER) as store:
            for moment in range(50):
                store.judge(REPOSITORY, Verdict(is_private=False, checked_at=float(moment)))
        assert len(entries(path)) == 1
        async with opened(path, MEMBER) as store:
            assert store.shelf.verdict(REPOSITORY) == Verdict(is_private=False, checked_at=49.0)

    async def test_are_no_sign__that_something_is_held(self, path: Path) -> None:
        async with opened(path, MEMBER) as store:
            store.judge(REPOSITORY, PRIVATE)
            assert store.shelf.repositories() == []
        shutil.rmtree(path / "index")
        async with opened(path, MEMBER) as store:
            assert store.shelf.repositories() == []

    async def test_are_bounded_on_disk__where_nothing_is_held(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mirror.store.store._MOST_STRANGERS", 3)
        made_up = [Repository("docker.io", f"made/up{number}") for number in range(6)]
        async with opened(path, MEMBER) as store:
            store.link(OTHER, Digest.of(b"x"), BLOB)
            for each in (*made_up, OTHER):
                store.judge(each, PRIVATE)
            assert [store.shelf.verdict(each) for each in (*made_up, OTHER)] == [PRIVATE] * 7
        kept = [entry.repository for entry in entries(path) if isinstance(entry, Judged)]
        assert kept == [str(each) for each in (*made_up[:3], OTHER)]


class TestLinksOfAnUpstream:
    async def test_are_made_and_used__for_a_public_repository(self, path: Path) -> None:
        image = Image(1)
        async with opened(path, MEMBER) as store:
            store.judge(REPOSITORY, PUBLIC)
            image.put(store)
            for digest in (image.digest, *(digest for digest, _ in image.blobs)):
                assert store.shelf.link("docker.io", digest) is not None

    async def test_are_not_made__for_a_private_repository_nor_while_nobody_knows(self, path: Path) -> None:
        image = Image(1)
        async with opened(path, MEMBER) as store:
            store.judge(OTHER, PRIVATE)
            for repository in (REPOSITORY, OTHER):
                store.keep_manifest(repository, image.digest, OCI_MANIFEST, image.body)
            store.judge(REPOSITORY, PUBLIC)
            for digest in (image.digest, *(digest for digest, _ in image.blobs)):
                assert store.shelf.link(REPOSITORY, digest) is not None
                assert store.shelf.link("docker.io", digest) is None
        shutil.rmtree(path / "index")
        async with opened(path, MEMBER) as store:
            assert store.shelf.link("docker.io", image.digest) is None

    async def test_are_not_used__once_the_repository_is_private(self, path: Path) -> None:
        digest = Digest.of(b"x")
        async with opened(path, MEMBER) as store:
            store.judge(REPOSITORY, PUBLIC)
            store.link(REPOSITORY, digest, BLOB)
            store.judge(REPOSITORY, PRIVATE)
            assert store.shelf.link("docker.io", digest) is None
        shutil.rmtree(path / "index")
        async with opened(path, MEMBER) as store:
            assert store.shelf.link("docker.io", digest) is None
            store.judge(OTHER, PUBLIC)
            store.link(OTHER, digest, BLOB)
            assert store.shelf.link("docker.io", digest) is not None

    async def test_of_a_public_repository__outlive_a_private_one_with_the_same_content(self, path: Path) -> None:
        digest = Digest.of(b"x")
        async with opened(path, MEMBER) as store:
            store.judge(REPOSITORY, PUBLIC)
            store.link(REPOSITORY, digest, BLOB)
            store.judge(OTHER, PRIVATE)
            store.link(OTHER, digest, BLOB)
            assert store.shelf.link("docker.io", digest) is not None

    async def test_made_without_credentials__need_no_verdict(self, path: Path) -> None:
        digest = Digest.of(b"x")
        async with opened(path) as store:
            store.link(REPOSITORY, digest, BLOB)
            assert store.shelf.link("docker.io", digest) is not None
        async with opened(path, MEMBER) as store:
            assert store.shelf.link("docker.io", digest) is not None
            store.judge(REPOSITORY, PRIVATE)
            assert store.shelf.link("docker.io", digest) is None


class TestGuards:
    async def test_stay__however_the_index_is_lost(self, path: Path) -> None:
        image = Image(1)
        async with opened(path, MEMBER) as store:
            store.keep_manifest(REPOSITORY, image.digest, OCI_MANIFEST, image.body)
        for _ in range(2):
            async with opened(path) as store:
                for digest in (image.digest, *(digest for digest, _ in image.blobs)):
                    link = store.shelf.link(REPOSITORY, digest)
                    assert link is not None
                    assert link.is_guarded
            shutil.rmtree(path / "index")

    async def test_fall__where_the_same_was_had_without_credentials(self, path: Path) -> None:
        digest = Digest.of(b"x")
        for upstreams, expected in ((MEMBER, True), (NO_CREDENTIALS, False), (MEMBER, False)):
            async with opened(path, upstreams) as store:
                store.link(REPOSITORY, digest, BLOB)
                link = store.shelf.link(REPOSITORY, digest)
                assert link is not None
                assert link.is_guarded is expected


async def test_a_journal_without_guards_and_with_entries_that_nobody_knows__is_read(path: Path) -> None:
    digest = Digest.of(b"x")
    async with opened(path) as store:
        store.link(REPOSITORY, digest, BLOB)
        store.judge(REPOSITORY, PUBLIC)
    header, linked, judged = (line.partition(b" ")[2] for line in (path / "journal").read_bytes().splitlines())
    older = linked.replace(b',false,""],"is_shared":true}', b"]}")
    newer = judged.replace(b'"verdict"', b'"parole"', 1)
    assert older != linked
    assert newer != judged
    (path / "journal").write_bytes(b"".join(_line(each) for each in (header, older, newer)))
    shutil.rmtree(path / "index")
    async with opened(path, MEMBER) as store:
        assert store.shelf.link(REPOSITORY, digest) == BLOB
        assert store.shelf.link("docker.io", digest) is not None
        assert store.shelf.verdict(REPOSITORY) is None


HUB = {"username": "robot", "password": "swordfish"}
NOW = 10_000.0


@pytest.mark.parametrize(
    ("table", "is_guarded", "needed"),
    [
        (HUB, True, True),
        (HUB, False, True),
        (HUB, None, True),
        ({}, True, True),
        ({}, False, False),
        ({}, None, False),
        ({"private": "anyone"} | HUB, True, False),
        ({"private": "anyone"} | HUB, None, False),
        ({"private": "anyone"}, True, False),
    ],
)
def test_needs_verdict(table: Mapping[str, str], is_guarded: bool | None, needed: bool) -> None:
    upstream = Upstreams({"docker.io": table}).lookup("docker.io")
    assert upstream is not None
    link = None if is_guarded is None else Link(None, True, 5, is_guarded)
    assert needs_verdict(upstream, link) is needed


@pytest.mark.parametrize(
    ("is_private", "age", "ruling"),
    [
        (False, 0.0, Ruling.SERVE),
        (False, VERDICT_SECONDS * 1000, Ruling.SERVE),
        (True, 0.0, Ruling.REFUSE),
        (True, VERDICT_SECONDS - 1, Ruling.REFUSE),
        (True, VERDICT_SECONDS, Ruling.ASK),
        (True, -1.0, Ruling.ASK),
    ],
)
def test_rule(is_private: bool, age: float, ruling: Ruling) -> None:
    assert rule(Verdict(is_private, NOW - age), NOW) is ruling
    assert rule(None, NOW) is Ruling.ASK
