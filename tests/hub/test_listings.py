"""What a listing costs the upstream, and what is answered when the upstream does not."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mirror import config
from mirror.channel import Listing
from mirror.config.units import Duration, Size
from mirror.hub.listings import Listings
from mirror.observe.cache_status import Outcome
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.source.upstream import Listed, ListingCache, UpstreamListings
from mirror.source.upstream.listings import _ask
from tests.source.conftest import APP, Source, asking
from tests.upstream import Failure as Answer
from tests.upstream import Upstream

TAGS = Listed(APP, None, "")
_CLIENTS = 50
_PATIENCE = 1.0
_FRESH = 3600.0


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        running.push_manifest(APP.name, "one", b"{}", "text/plain")
        yield running


@pytest.fixture
async def source(upstream: Upstream) -> AsyncIterator[Source]:
    async with asking(upstream.url) as found:
        yield found


@asynccontextmanager
async def hub(
    source: Source, ttl: float, stale_if_error: float = math.inf, negative_ttl: float = 300.0
) -> AsyncIterator[Listings]:
    """Open a hub's listings in which a page is fresh for `ttl` seconds; what was kept before is still kept."""
    settings = config.FreshnessSettings(
        tag_ttl=Duration(ttl),
        revalidate_timeout=Duration(_PATIENCE),
        stale_if_error=Duration(stale_if_error),
        negative_ttl=Duration(negative_ttl),
    )
    listings = Listings(source.listings, settings, source.client.identity)
    try:
        yield listings
    finally:
        await listings._lookout.close()


@pytest.fixture
async def expired(source: Source, upstream: Upstream) -> AsyncIterator[Listings]:
    """Return listings in which the page is kept, and has expired, as every page does at once."""
    await source.listings.fetch(source.upstream, TAGS)
    upstream.counters.clear()
    async with hub(source, 0.0) as listings:
        yield listings


def tags_of(page: Listing) -> list[str]:
    tags: list[str] = json.loads(page.body)["tags"]
    return tags


def requests(upstream: Upstream) -> int:
    return upstream.counters.requests(kind="tags")


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(0.02)


async def test_list__cold__one_get_for_all(source: Source, upstream: Upstream) -> None:
    upstream.dials.latency = {"tags": 0.2}
    async with hub(source, _FRESH) as listings:
        pages = await asyncio.gather(*(listings.find(source.upstream, TAGS) for _ in range(_CLIENTS)))
    assert {tuple(tags_of(page)) for page in pages} == {("one",)}
    assert {page.status.outcome for page in pages} == {Outcome.MISS, Outcome.JOINED}
    assert requests(upstream) == 1


async def test_list__fresh__the_upstream_is_not_asked(source: Source, upstream: Upstream) -> None:
    async with hub(source, _FRESH) as listings:
        assert (await listings.find(source.upstream, TAGS)).status.header() == "layover; fwd=miss; stored"
        upstream.push_manifest(APP.name, "two", b"{}", "text/plain")
        page = await listings.find(source.upstream, TAGS)
    assert tags_of(page) == ["one"]
    assert page.status.outcome is Outcome.HIT
    assert page.status.ttl is not None
    assert _FRESH - 60 < page.status.ttl <= _FRESH
    assert page.status.age is not None
    assert 0 <= page.status.age < 60
    assert requests(upstream) == 1


async def test_list__expired__one_get_for_all(source: Source, upstream: Upstream, expired: Listings) -> None:
    upstream.push_manifest(APP.name, "two", b"{}", "text/plain")
    upstream.dials.latency = {"tags": 0.2}
    pages = await asyncio.gather(*(expired.find(source.upstream, TAGS) for _ in range(_CLIENTS)))
    assert {tuple(tags_of(page)) for page in pages} == {("one", "two")}
    assert requests(upstream) == 1


async def test_list__no_room_to_keep_it__unstored(source: Source, upstream: Upstream, tmp_path: Path) -> None:
    nowhere = UpstreamListings(source.client, ListingCache(tmp_path / "listings", Size(1, is_share=False)))
    async with hub(replace(source, listings=nowhere), _FRESH) as listings:
        for _ in range(2):
            page = await listings.find(source.upstream, TAGS)
            assert page.status.header() == "layover; fwd=miss; detail=unstored"
    await nowhere.close()
    assert requests(upstream) == 2


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (429, Failure.TOO_MANY),
        (500, Failure.SERVER),
        (502, Failure.SERVER),
        (503, Failure.SERVER),
        (401, Failure.CREDENTIALS),
    ],
)
async def test_list__the_upstream_answers_an_error__stale(
    status: int, failure: Failure, source: Source, upstream: Upstream, expired: Listings
) -> None:
    upstream.dials.failures = [Answer(status, kind="tags", retry_after="60")]
    page = await expired.find(source.upstream, TAGS)
    assert tags_of(page) == ["one"]
    assert page.status.header() == f"layover; hit; ttl=-1; detail=stale-{failure}"
    assert page.status.age is not None
    asked = requests(upstream)
    again = await expired.find(source.upstream, TAGS)
    assert again.status.failure is failure
    assert requests(upstream) == asked, "while an outage is known, no client's request asks the upstream"


async def test_list__the_upstream_refuses_connections__stale(
    source: Source, upstream: Upstream, expired: Listings
) -> None:
    upstream.pause()
    page = await expired.find(source.upstream, TAGS)
    assert (page.status.outcome, page.status.failure) == (Outcome.STALE, Failure.REFUSED)
    upstream.resume()

    async def is_fresh() -> bool:
        return (await expired.find(source.upstream, TAGS)).status.outcome is not Outcome.STALE

    await eventually(is_fresh)


@pytest.mark.parametrize(
    ("url", "failure"), [("http://nowhere.invalid", Failure.DNS), ("https://{address}", Failure.TLS)]
)
async def test_list__the_upstream_cannot_be_found_or_trusted__stale(
    url: str, failure: Failure, source: Source, upstream: Upstream, expired: Listings
) -> None:
    other = source.upstream._replace(url=url.format(address=upstream.address))
    await _move(source, other)
    page = await expired.find(other, TAGS)
    assert (page.status.outcome, page.status.failure) == (Outcome.STALE, failure)


async def test_list__the_upstream_never_answers__stale_soon_and_then_at_once(
    source: Source, upstream: Upstream, expired: Listings
) -> None:
    upstream.dials.black_hole = {"tags"}
    began = time.monotonic()
    pages = await asyncio.gather(*(expired.find(source.upstream, TAGS) for _ in range(_CLIENTS)))
    assert _PATIENCE * 0.9 < time.monotonic() - began < _PATIENCE + 1.5
    assert {(page.status.outcome, page.status.failure) for page in pages} == {(Outcome.STALE, Failure.TIMEOUT)}
    assert requests(upstream) == 1
    began = time.monotonic()
    page = await expired.find(source.upstream, TAGS)
    assert time.monotonic() - began < _PATIENCE * 0.9
    assert page.status.failure is Failure.TIMEOUT


async def test_list__the_upstream_is_back__fresh_though_nobody_asked(
    source: Source, upstream: Upstream, expired: Listings
) -> None:
    upstream.dials.black_hole = {"tags"}
    await expired.find(source.upstream, TAGS)
    upstream.push_manifest(APP.name, "two", b"{}", "text/plain")
    upstream.dials.black_hole = set()

    async def is_kept() -> bool:
        page = await source.listings.kept(source.upstream, TAGS)
        return page is not None and json.loads(page.body)["tags"] == ["one", "two"]

    await eventually(is_kept)
    page = await expired.find(source.upstream, TAGS)
    assert page.status.outcome is Outcome.MISS


async def test_list__out_of_time_to_stand_in__the_error(source: Source, upstream: Upstream, expired: Listings) -> None:
    upstream.dials.failures = [Answer(503, kind="tags")]
    async with hub(source, 0.0, stale_if_error=0.0) as listings:
        with pytest.raises(RegistryError) as refused:
            await listings.find(source.upstream, TAGS)
    assert refused.value.failure is Failure.SERVER


async def test_list__gone__obeyed_and_remembered(source: Source, upstream: Upstream, expired: Listings) -> None:
    upstream.dials.failures = [Answer(404, kind="tags")]
    for is_remembered in (False, True, True):
        with pytest.raises(RegistryError) as refused:
            await expired.find(source.upstream, TAGS)
        assert (refused.value.code, refused.value.failure) == (ErrorCode.NAME_UNKNOWN, None)
        assert refused.value.is_remembered == is_remembered
    assert requests(upstream) == 1
    assert await source.listings.kept(source.upstream, TAGS) is None


@pytest.mark.parametrize("status", [404, 403])
async def test_list__never_kept_and_refused__remembered_for_a_moment(
    status: int, source: Source, upstream: Upstream
) -> None:
    upstream.dials.failures = [Answer(status, kind="tags")]
    for negative_ttl, expected in ((300.0, 1), (0.0, 2)):
        upstream.counters.clear()
        async with hub(source, _FRESH, negative_ttl=negative_ttl) as listings:
            for _ in range(2):
                with pytest.raises(RegistryError) as refused:
                    await listings.find(source.upstream, TAGS)
                assert refused.value.status == status
        assert requests(upstream) == expected


@pytest.mark.parametrize("status", [429, 503])
async def test_list__never_kept_and_the_upstream_fails__its_error(
    status: int, source: Source, upstream: Upstream
) -> None:
    upstream.dials.failures = [Answer(status, kind="tags", retry_after="60")]
    async with hub(source, _FRESH) as listings:
        with pytest.raises(RegistryError) as refused:
            await listings.find(source.upstream, TAGS)
    assert (refused.value.status, refused.value.retry_after) == (status, 60)
    assert not refused.value.is_remembered


async def test_list__never_kept_and_the_upstream_failed_once__asked_again(source: Source, upstream: Upstream) -> None:
    upstream.dials.hang_up = {"tags"}
    async with hub(source, _FRESH) as listings:
        with pytest.raises(RegistryError):
            await listings.find(source.upstream, TAGS)
        upstream.dials.hang_up = set()
        assert tags_of(await listings.find(source.upstream, TAGS)) == ["one"]


@pytest.mark.parametrize("username", ["", "somebody"])
async def test_list__denied__stale_only_where_it_may_be_the_mirror_that_is(
    username: str, source: Source, upstream: Upstream, expired: Listings
) -> None:
    upstream.dials.failures = [Answer(403, kind="tags")]
    known = source.upstream._replace(username=username)
    await _move(source, known)
    if username:
        page = await expired.find(known, TAGS)
        assert page.status.failure is Failure.CREDENTIALS
    else:
        with pytest.raises(RegistryError) as refused:
            await expired.find(known, TAGS)
        assert refused.value.code is ErrorCode.DENIED


async def test_list__whoever_asked_first_leaves__the_others_are_answered(source: Source, upstream: Upstream) -> None:
    upstream.dials.latency = {"tags": 0.2}
    async with hub(source, _FRESH) as listings:
        first, second = (asyncio.create_task(listings.find(source.upstream, TAGS)) for _ in range(2))
        await eventually(lambda: _has_come(upstream))
        first.cancel()
        assert tags_of(await second) == ["one"]
    assert requests(upstream) == 1


async def _has_come(upstream: Upstream) -> bool:
    return requests(upstream) > 0


async def _move(source: Source, other: config.Upstream) -> None:
    """Keep what is kept of the source's upstream for another one."""
    listings = source.listings
    cache = listings._cache
    answer = await cache.get_response(listings._key(_ask(source.upstream, TAGS)))
    assert answer is not None
    assert await cache.keep(listings._key(_ask(other, TAGS)), answer)
