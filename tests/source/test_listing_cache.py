"""What is kept of listings: whole, for the same question alone, within bounds, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from mirror.config.units import Size
from mirror.oci.digest import Digest
from mirror.source.upstream import Listed, ListingCache, Page, UpstreamListings
from mirror.source.upstream.listing_cache import LONGEST_ENTRY, cached_response
from tests.source.conftest import APP, Source
from tests.upstream import Upstream


@pytest.fixture
def tagged(upstream: Upstream) -> Upstream:
    for number in range(5):
        upstream.push_manifest(APP.name, f"v{number}", b"{}", "text/plain")
    return upstream


def tags(query: str = "") -> Listed:
    return Listed(APP, None, query)


def referrers(query: str = "") -> Listed:
    return Listed(APP, Digest.of(b"subject"), query)


class TestKept:
    async def test_is_what_was_fetched__whole(self, tagged: Upstream, source: Source) -> None:
        fetched = await source.listings.fetch(source.upstream, tags("n=2"))
        assert fetched.is_kept
        assert await source.listings.kept(source.upstream, tags("n=2")) == fetched._replace(is_new=False)

    async def test_is_another__for_another_query(self, tagged: Upstream, source: Source) -> None:
        await source.listings.fetch(source.upstream, tags("n=2"))
        for query in ("", "n=2&", "n=%32", "N=2"):
            assert await source.listings.kept(source.upstream, tags(query)) is None
        assert await source.listings.kept(source.upstream, referrers("n=2")) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"username": "other"},
            {"docker_config": "/config.json"},
            {"provider": "ecr"},
            {"url": "http://127.0.0.1:1"},
        ],
        ids=lambda change: next(iter(change)),
    )
    async def test_is_another__for_other_credentials_or_another_url(
        self, change: Mapping[str, str], tagged: Upstream, source: Source
    ) -> None:
        await source.listings.fetch(source.upstream, tags())
        other = source.upstream._replace(**change)  # type: ignore[arg-type]
        assert await source.listings.kept(other, tags()) is None
        assert await source.listings.kept(source.upstream._replace(max_connections=1), tags()) is not None

    async def test_is_gone__once_forgotten(self, tagged: Upstream, source: Source) -> None:
        await source.listings.fetch(source.upstream, tags())
        await source.listings.forget(source.upstream, tags())
        assert await source.listings.kept(source.upstream, tags()) is None

    async def test_outlives_the_process(self, tagged: Upstream, source: Source, tmp_path: Path) -> None:
        folder = tmp_path / "listings"
        fetched = await fetched_into(folder, source)
        assert await kept_in(folder, source) == fetched._replace(is_new=False)
        for file in folder.iterdir():
            assert isinstance(json.loads(file.read_bytes()), dict)

    @pytest.mark.parametrize("damage", [b"", b"{}", b"\x80\x04.", b'{"url":1}', b"[" * 100_000])
    async def test_is_gone__where_its_file_is_damaged(
        self, damage: bytes, tagged: Upstream, source: Source, tmp_path: Path
    ) -> None:
        folder = tmp_path / "listings"
        await fetched_into(folder, source)
        (file,) = folder.iterdir()
        file.write_bytes(damage)
        assert await kept_in(folder, source) is None
        assert list(folder.iterdir()) == []

    async def test_is_told_of__where_the_folder_cannot_be_used(
        self, tagged: Upstream, source: Source, tmp_path: Path
    ) -> None:
        folder = tmp_path / "listings"
        folder.write_text("in the way")
        fetched = await fetched_into(folder, source)
        assert not fetched.is_kept
        assert json.loads(fetched.body)["tags"] == ["v0", "v1", "v2", "v3", "v4"]
        folder.unlink()
        assert (await fetched_into(folder, source)).is_kept


def cache_of(folder: Path, size: int = 2**40) -> ListingCache:
    return ListingCache(folder, Size(size, is_share=False))


async def fetched_into(folder: Path, source: Source) -> Page:
    listings = UpstreamListings(source.client, cache_of(folder))
    try:
        return await listings.fetch(source.upstream, tags())
    finally:
        await listings.close()


async def kept_in(folder: Path, source: Source) -> Page | None:
    listings = UpstreamListings(source.client, cache_of(folder))
    try:
        return await listings.kept(source.upstream, tags())
    finally:
        await listings.close()


async def kept_keys(cache: ListingCache) -> set[str]:
    keys: AsyncIterator[str] = cache.responses.keys()
    return {key async for key in keys}


class TestBounds:
    def used(self, folder: Path) -> int:
        """Return what the files take on disk, in bytes."""
        return sum(file.stat().st_blocks * 512 for file in folder.iterdir())

    async def test_hold__what_was_not_used_for_longest_goes(self, tmp_path: Path) -> None:
        cache = cache_of(tmp_path, 64 * 5 * 4096)
        for number in range(5):
            assert await cache.keep(f"{number}", cached_response("http://x/", [], bytes(10), number))
        assert await cache.get_response("0") is not None
        assert await cache.keep("5", cached_response("http://x/", [], bytes(10), 5))
        assert await kept_keys(cache) == {"0", "2", "3", "4", "5"}
        assert await cache.keep("6", cached_response("http://x/", [], bytes(9000), 6))
        assert await kept_keys(cache) == {"0", "5", "6"}
        await cache.close()

    async def test_hold__over_a_restart(self, tmp_path: Path) -> None:
        cache = cache_of(tmp_path)
        for number in range(20):
            await cache.keep(f"{number}", cached_response("http://x/", [], bytes(10), number))
        await cache.close()
        for age, number in enumerate((7, 3, 12)):
            os.utime(tmp_path / f"{number}.json", (age, age))
        cache = cache_of(tmp_path, 64 * 18 * 4096)
        assert await cache.keep("20", cached_response("http://x/", [], bytes(10), 20))
        assert await kept_keys(cache) == {str(number) for number in range(21)} - {"7", "3", "12"}
        assert self.used(tmp_path) <= 18 * 4096
        await cache.close()

    async def test_hold__once_the_folder_was_removed(self, tmp_path: Path) -> None:
        cache = cache_of(tmp_path / "listings")
        assert await cache.keep("1", cached_response("http://x/", [], bytes(10), 1))
        shutil.rmtree(tmp_path / "listings")
        assert not await cache.keep("2", cached_response("http://x/", [], bytes(10), 2))
        assert await cache.keep("3", cached_response("http://x/", [], bytes(10), 3))
        assert await kept_keys(cache) == {"3"}
        await cache.close()

    async def test_hold__for_one_answer(self, tmp_path: Path) -> None:
        cache = cache_of(tmp_path)
        assert await cache.keep("x", cached_response("http://x/", [], bytes(100), 0))
        assert not await cache.keep("x", cached_response("http://x/", [], bytes(LONGEST_ENTRY), 1))
        assert await cache.get_response("x") is None
        assert self.used(tmp_path) == 0
        await cache.close()

    async def test_keep_the_newer_answer(self, tmp_path: Path) -> None:
        cache = cache_of(tmp_path)
        await cache.keep("x", cached_response("http://x/", [], b"new", 2))
        assert await cache.keep("x", cached_response("http://x/", [], b"old", 1))
        found = await cache.get_response("x")
        assert found is not None
        assert await found.read() == b"new"
        await cache.close()


def test_key__any_spelling_of_one_accept(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)

    def key(accept: str) -> str:
        return cache.create_key("GET", "http://x/", headers={"Accept": accept})

    assert key("a/b, c/d") == key("c/d,A/B")
    assert key("a/b") != key("c/d")
